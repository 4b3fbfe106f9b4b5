"""The clips of a dataset are found by the names in its annotations, in the official layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import Source
from pipeline.sources.dataset import list_source, list_sources
from pipeline.sources.manifest import Listing, SourceError
from shards.schema import Attribute

DASHED = "-2KGPYEFnsU"


def entry(origin: str) -> dict[str, Any]:
    return {
        "ytb_id": origin,
        "duration": {"start_sec": 1, "end_sec": 3},
        "bbox": {"top": 0.1, "bottom": 0.6, "left": 0.2, "right": 0.4},
        "attributes": {"appearance": [0, 1], "action": [1]},
    }


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listed(manifest: Listing) -> list[tuple[str, str]]:
    return [(video.video_id, video.uri) for video in manifest.videos]


@pytest.fixture
def celebv_hq(tmp_path: Path) -> Path:
    root = tmp_path / "downloaded_celebvhq"
    names = [f"{DASHED}_8", f"{DASHED}_11", f"{DASHED}_8_1", "M2Ohb0FAaJU_1"]
    content = {
        "meta_info": {"appearance_mapping": ["blurry", "male"], "action_mapping": ["talk"]},
        "clips": {name: entry(name[:11]) for name in names},
    }
    touch(root, "raw/holiday.mp4", f"processed/{DASHED}_8.mp4", f"processed/{DASHED}_8_1.mp4", "raw/a.part")
    (tmp_path / "celebvhq_info.json").write_text(json.dumps(content))
    return root


def test_clips_of_celebv_hq_have_their_origin_and_attributes(celebv_hq: Path) -> None:
    manifest = list_source(Source.model_validate({"kind": "celebv-hq", "path": celebv_hq}))
    assert listed(manifest) == [
        (f"celebv-hq/{DASHED}_8", f"processed/{DASHED}_8.mp4"),
        (f"celebv-hq/{DASHED}_8_1", f"processed/{DASHED}_8_1.mp4"),
    ]
    for video in manifest.videos:
        assert (video.source, video.origin) == ("celebv-hq", DASHED)
        assert video.attributes == (
            Attribute(name="action", value="talk"),
            Attribute(name="appearance", value="male"),
        )
    assert manifest.ignored.messages() == [
        "Ignored 1 file that is not a video (.part: 1).",
        "Ignored 1 video file that the annotations do not name: raw/holiday.mp4.",
        f"warning: 2 of 4 annotated clips have no file: {DASHED}_11, M2Ohb0FAaJU_1.",
    ]


def test_a_doubled_suffix_is_that_of_celebv_text(tmp_path: Path) -> None:
    origin = "oC9r-CTbToE"
    plain = {name: value for name, value in entry(origin).items() if name != "attributes"}
    content = {f"{origin}_0_{number}.mp4": plain for number in range(3)}
    (tmp_path / "celebvtext_info.json").write_text(json.dumps(content))
    touch(tmp_path, f"sp_0002/{origin}_0_0.mp4.mp4", f"{origin}_0_0.mp4", f"sp_0003/{origin}_0_2.mp4")
    manifest = list_source(Source.model_validate({"kind": "celebv-text", "name": "text", "path": tmp_path}))
    assert listed(manifest) == [
        (f"text/{origin}_0_0", f"{origin}_0_0.mp4"),
        (f"text/{origin}_0_2", f"sp_0003/{origin}_0_2.mp4"),
    ]
    assert manifest.ignored.duplicates == 1
    assert manifest.ignored.missing_such_as == [f"{origin}_0_1"]


def test_crops_of_talkinghead_are_found_by_all_lists_of_tubes(tmp_path: Path) -> None:
    for name, line in (
        ("small", "--Y9imYnfBw_0000, 720, 1280, 0, 271, 504, 63, 792, 351"),
        ("val", "1lSejjfNHpw_0075, 1080, 1920, 0, 728, 671, 47, 1471, 847"),
    ):
        (tmp_path / f"{name}_video_tubes.txt").write_text(f"{line}\n{line}\n")
    crop = "--Y9imYnfBw_0000_S0_E271_L504_T63_R792_B351"
    touch(tmp_path, f"small/cropped_clips/{crop}.mp4")
    manifest = list_source(Source.model_validate({"kind": "talkinghead-1kh", "path": tmp_path}))
    (video,) = manifest.videos
    assert (video.video_id, video.origin, video.span_frames) == (
        f"talkinghead-1kh/{crop}",
        "--Y9imYnfBw",
        None,
    )
    assert (manifest.ignored.annotated, manifest.ignored.missing) == (2, 1)


def test_without_its_crop_a_tube_is_a_part_of_its_chunk(tmp_path: Path) -> None:
    (tmp_path / "small_video_tubes.txt").write_text(
        "--Y9imYnfBw_0000, 720, 1280, 0, 271, 504, 63, 792, 351\n"
        "--Y9imYnfBw_0000, 720, 1280, 272, 423, 493, 60, 781, 348\n"
    )
    touch(tmp_path, "small/1min_clips/--Y9imYnfBw_0000.mp4", "small/raw_videos/--Y9imYnfBw.mp4")
    manifest = list_source(Source.model_validate({"kind": "talkinghead-1kh", "path": tmp_path}))
    assert [(video.uri, video.span_frames) for video in manifest.videos] == [
        ("small/1min_clips/--Y9imYnfBw_0000.mp4", (0, 271)),
        ("small/1min_clips/--Y9imYnfBw_0000.mp4", (272, 423)),
    ]
    assert manifest.videos[0].annotated_box == (504 / 1280, 63 / 720, 792 / 1280, 351 / 720)
    assert manifest.ignored.unannotated == 1


def test_without_its_own_file_a_clip_is_a_part_of_the_download(celebv_hq: Path) -> None:
    touch(celebv_hq, f"raw/{DASHED}.webm")
    manifest = list_source(Source.model_validate({"kind": "celebv-hq", "path": celebv_hq}))
    assert [(video.uri, video.span_s) for video in manifest.videos] == [
        (f"raw/{DASHED}.webm", (1, 3)),
        (f"processed/{DASHED}_8.mp4", None),
        (f"processed/{DASHED}_8_1.mp4", None),
    ]
    assert manifest.ignored.missing_such_as == ["M2Ohb0FAaJU_1"]


def test_what_cannot_be_listed_is_named(celebv_hq: Path, tmp_path: Path) -> None:
    def message(**source: Any) -> str:
        with pytest.raises(SourceError) as caught:
            list_source(Source.model_validate({"kind": "celebv-hq", "path": celebv_hq, **source}))
        return str(caught.value)

    info = tmp_path / "celebvhq_info.json"
    assert "no file below" in message(path=celebv_hq / "raw", annotations=info)  # it holds a holiday
    info.write_text("{")
    assert f"source.annotations: {info}, the whole file: not JSON" in message()
    assert "cannot read" in message(annotations=tmp_path / "other.json")
    info.unlink()
    assert "source.annotations: no celebvhq_info.json in " in message()


def test_annotations_of_a_plain_folder_are_an_error() -> None:
    with pytest.raises(ValidationError, match=r"source\.kind=folder reads none"):
        Source.model_validate({"path": "/clips", "annotations": "/clips/info.json"})


def test_a_source_is_named_after_its_kind_unless_it_has_a_name() -> None:
    assert Source.model_validate({"kind": "celebv-text", "path": "/clips"}).name == "celebv-text"
    assert Source.model_validate({"path": "/clips"}).name == "folder"


CLIP = "Clip+Cxsg9YD3CGM+P0+C0+F12714-12860"
OTHER = "Clip+Cxsg9YD3CGM+P1+C0+F100-200"
ANNOTATION = """Video Cxsg9YD3CGM
H: 1080
W: 1920
FPS: 29.97

FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]

12715 0 700 100 300 400 1 1 2 2 3 3 4 4 5 5
CROP 600 50 1200 650
"""


def test_directories_of_frames_are_clips_of_vfhq(tmp_path: Path) -> None:
    touch(
        tmp_path,
        f"{CLIP}/00000000.png",
        f"{CLIP}/00000001.png",
        f"a/{OTHER}/00000000.jpg",
        f"{CLIP}/Thumbs.db",
    )
    manifest = list_source(Source.model_validate({"kind": "vfhq", "path": tmp_path, "frame_rate": 24}))
    first, second = manifest.videos
    assert (first.video_id, first.uri, first.frame_rate) == (f"vfhq/{CLIP}", CLIP, 24)
    assert (first.origin, first.source_person, first.annotated_box) == ("Cxsg9YD3CGM", "P0", None)
    assert first.bytes == len(f"{CLIP}/00000000.png{CLIP}/00000001.png")
    assert (second.uri, second.source_person) == (f"a/{OTHER}", "P1")
    assert manifest.ignored.messages() == []


def test_vfhq_annotations_give_the_rate_of_frames_and_the_parts_of_downloads(tmp_path: Path) -> None:
    touch(tmp_path, f"vfhq/{CLIP}/00000000.png", "vfhq/Cxsg9YD3CGM.webm")
    (tmp_path / "meta_info").mkdir()
    for name in (CLIP, OTHER, OTHER.replace("Cxsg9YD3CGM", "27We1asHYfc")):
        (tmp_path / "meta_info" / f"{name}.txt").write_text(ANNOTATION)
    manifest = list_source(Source.model_validate({"kind": "vfhq", "path": tmp_path / "vfhq"}))
    first, second = manifest.videos
    assert (first.uri, first.frame_rate, first.span_frames) == (CLIP, 29.97, None)
    assert (second.uri, second.span_frames, second.frame_rate) == ("Cxsg9YD3CGM.webm", (101, 199), None)
    assert second.annotated_box == (600 / 1920, 50 / 1080, 1200 / 1920, 650 / 1080)
    assert manifest.ignored.missing_such_as == [OTHER.replace("Cxsg9YD3CGM", "27We1asHYfc")]


def test_every_real_name_of_vfhq_is_a_clip(metadata: Path, tmp_path: Path) -> None:
    names = [
        name
        for kind in ("test", "train")
        for name in (metadata / "vfhq" / f"clip_names_{kind}_from_EFHQ.txt").read_text().split()
    ]
    for name in names:
        (tmp_path / name).mkdir()
    manifest = list_source(Source.model_validate({"kind": "vfhq", "path": tmp_path}))
    assert [video.uri for video in manifest] == sorted(set(names))
    assert len({(video.origin, video.source_person) for video in manifest}) == 7958 + 218


def test_a_clip_that_is_annotated_twice_differently_is_told(tmp_path: Path) -> None:
    first, second = entry(DASHED), entry(DASHED)
    second["duration"]["end_sec"] = 9
    sets = {"clips_set1": {f"{DASHED}_0_0": first}, "clips_set2": {f"{DASHED}_0_0": second}}
    for value in (first, second):
        del value["attributes"]
    (tmp_path / "celebvtext_info.json").write_text(json.dumps(sets))
    touch(tmp_path, f"{DASHED}.mp4")
    manifest = list_source(Source.model_validate({"kind": "celebv-text", "path": tmp_path}))
    assert [video.span_s for video in manifest] == [(1, 3)]
    assert "warning: 1 clip is annotated twice, differently: the first entry counts." in (
        manifest.ignored.messages()
    )


def test_sources_are_listed_together_in_the_order_of_their_ids(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.mp4", "a/note.txt", "b/two.mp4")
    sources = [
        Source.model_validate({"name": name, "path": tmp_path / folder})
        for name, folder in (("clips", "a"), ("clips-more", "b"))
    ]
    manifest = list_sources(sources)
    ids = [video.video_id for video in manifest.videos]
    assert ids == sorted(ids) == ["clips-more/two.mp4", "clips/one.mp4"]
    assert manifest.messages() == ["clips: Ignored 1 file that is not a video (.txt: 1)."]


def test_the_source_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.mp4")
    sources = [Source(name="a", path=tmp_path / "a"), Source(name="b", path=tmp_path / "b")]
    with pytest.raises(SourceError, match=r"^sources\.b\.path: .*/b is not a directory"):
        list_sources(sources)


def test_a_plain_folder_that_holds_a_dataset_is_told_its_kind(celebv_hq: Path, tmp_path: Path) -> None:
    (celebv_hq / "celebvhq_info.json").write_bytes((tmp_path / "celebvhq_info.json").read_bytes())
    listing = list_source(Source(name="clips", path=celebv_hq))
    assert listing.ignored.messages()[0] == (
        "celebvhq_info.json lies there: source.kind=celebv-hq takes its clips."
    )


def test_directories_of_frames_are_told_their_kind(tmp_path: Path) -> None:
    touch(tmp_path, f"{CLIP}/00000000.png")
    with pytest.raises(SourceError, match=r"contains no video file .* source\.kind=vfhq takes its clips"):
        list_source(Source(name="clips", path=tmp_path))


def test_a_tree_of_another_kind_is_named(celebv_hq: Path) -> None:
    with pytest.raises(SourceError, match=r"has neither annotations .*Check source\.kind=vfhq"):
        list_source(Source.model_validate({"kind": "vfhq", "path": celebv_hq}))


def test_annotations_two_levels_above_are_found(celebv_hq: Path) -> None:
    listing = list_source(Source.model_validate({"kind": "celebv-hq", "path": celebv_hq / "processed"}))
    assert len(listing) == 2
