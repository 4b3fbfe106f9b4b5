"""A video in an object store is analysed from a copy that is gone afterwards."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from faulty_proxy import spoiling
from seaweed import S3Server

from pipeline.config import Source
from pipeline.errors import MachineFault
from pipeline.sandbox import DecodeFailed
from pipeline.source_files import local_file
from pipeline.sources.dataset import list_source
from pipeline.sources.manifest import SourceError, Video
from shards.schema import Reason
from storage.bucket import Bucket

pytestmark = pytest.mark.usefixtures("credentials")
CLIP = "Clip+Cxsg9YD3CGM+P0+C0+F12714-12860"


@pytest.fixture(scope="module")
def bucket(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("tree")
    for name in (
        *("-a b.mp4", "sub/.hidden.mp4", "sub/b.MP4", "note.txt", "raw/c.mp4"),
        *(f"frames/{CLIP}/{number:08d}.png" for number in range(40)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return s3.upload(root, "sources", "some/tree")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def copies(scratch: Path) -> list[Path]:
    return [path for path in scratch.glob("mfhq-scratch-*/*") if path.name != "lock"]


def listed(kind: str, path: str, **more: object) -> list[Video]:
    return list_source(Source.model_validate({"kind": kind, "path": path, **more})).videos


def test_a_bucket_is_listed_as_a_directory_is(bucket: str) -> None:
    source = Source.model_validate({"name": "clips", "path": bucket, "exclude": "raw/*"})
    listing = list_source(source)
    assert [video.uri for video in listing] == ["-a b.mp4", "sub/b.MP4"]
    first = listing.videos[0]
    assert (first.path, first.bytes) == (f"{bucket}/-a b.mp4", len("-a b.mp4"))
    assert first.modified_ns > 0
    assert listing.ignored.messages() == [
        "Ignored 41 files that are not videos (.png: 40, .txt: 1).",
        "Ignored 1 hidden file or directory (name begins with a dot).",
        "Ignored 1 file or directory by source.include and source.exclude.",
    ]


def test_a_file_is_copied_and_the_copy_removed(bucket: str, scratch: Path) -> None:
    video = listed("folder", bucket)[0]
    with local_file(video) as path:
        assert path.read_bytes() == b"-a b.mp4"
        assert path.suffix == ".mp4"
        assert copies(scratch) == [path]
    assert copies(scratch) == []


def test_a_directory_of_frames_is_copied_as_a_whole(bucket: str, scratch: Path) -> None:
    (video,) = listed("vfhq", f"{bucket}/frames")
    assert (video.uri, video.frame_rate) == (CLIP, 25)
    with local_file(video) as path:
        assert len(list(path.iterdir())) == 40
        assert (path / "00000007.png").read_bytes() == f"frames/{CLIP}/00000007.png".encode()
    assert copies(scratch) == []


def test_an_object_that_is_gone_or_changed_has_a_reason(bucket: str, scratch: Path) -> None:
    video = listed("folder", bucket)[0]
    gone = video.model_copy(update={"path": f"{bucket}/gone.mp4"})
    changed = video.model_copy(update={"bytes": 3})
    for other, reason, detail in (
        (gone, Reason.INACCESSIBLE, "but it was listed"),
        (changed, Reason.UNREADABLE, "it has 8 bytes, and had 3 when it was listed"),
    ):
        with pytest.raises(DecodeFailed) as caught, local_file(other):
            pass
        assert caught.value.rejection.reason is reason
        assert detail in str(caught.value.rejection.detail)
    assert copies(scratch) == []


def test_a_full_temporary_directory_is_the_machine_s_fault(
    bucket: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.source_files.SPARE_BYTES", 2**60)
    video = listed("folder", bucket)[0]
    with pytest.raises(MachineFault, match=r"has no room for a copy of .* set TMPDIR"), local_file(video):
        pass


def test_an_empty_prefix_is_an_error(bucket: str) -> None:
    with pytest.raises(SourceError, match="s3://sources/nowhere contains no video file"):
        listed("folder", "s3://sources/nowhere")


ODD = ("What is this?.mp4", "h#1.mp4", "100%25 real.mp4", "é [x] *.mp4", "a'b\"c.mp4")


@pytest.fixture(scope="module")
def odd(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("odd")
    for name in ODD:
        (root / name).write_bytes(name.encode())
    frames = root / CLIP
    (frames / "thumbs").mkdir(parents=True)
    for name in ("00000000.png", "._00000000.png", "thumbs/00000000.png", "note.txt"):
        (frames / name).write_bytes(name.encode())
    return s3.upload(root, "sources", "odd")


def test_keys_may_hold_any_character_that_a_file_name_holds(odd: str, scratch: Path) -> None:
    videos = listed("folder", odd)
    assert sorted(video.uri for video in videos) == sorted(ODD)
    for video in videos:
        with local_file(video) as path:
            assert path.read_bytes() == video.uri.encode()


def test_of_a_directory_of_frames_only_frames_count(odd: str, scratch: Path) -> None:
    (video,) = listed("vfhq", odd)
    assert video.bytes == len("00000000.png")
    with local_file(video) as path:
        assert [frame.name for frame in path.iterdir()] == ["00000000.png"]


def test_a_bucket_that_is_gone_is_the_machine_s_fault(bucket: str, scratch: Path) -> None:
    video = listed("folder", bucket)[0].model_copy(update={"path": "s3://gone-bucket/a.mp4"})
    with pytest.raises(MachineFault, match="there is no such bucket"), local_file(video):
        pass


def test_an_object_that_alone_is_refused_is_one_failed_video(
    bucket: str, scratch: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = listed("folder", bucket)[0]
    with spoiling(s3.port, 0.0) as proxy:
        proxy.archived = "-a%20b.mp4"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setattr("storage.object_path._bucket", Bucket)
        with pytest.raises(DecodeFailed) as caught, local_file(video):
            pass
    assert caught.value.rejection.reason is Reason.INACCESSIBLE
    assert "HTTP 403, InvalidObjectState" in str(caught.value.rejection.detail)


def test_a_replaced_object_is_not_the_one_that_was_listed(bucket: str, scratch: Path) -> None:
    video = listed("folder", bucket)[0]
    older = video.model_copy(update={"modified_ns": video.modified_ns - 10**10})
    with pytest.raises(DecodeFailed) as caught, local_file(older):
        pass
    assert caught.value.rejection.detail == "it was replaced after it was listed"


def test_errors_of_the_block_are_not_those_of_the_copy(bucket: str, scratch: Path) -> None:
    def fill_another_disk() -> None:
        with local_file(listed("folder", bucket)[0]):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_another_disk()
