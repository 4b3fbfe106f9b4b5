"""A video that crashes, hangs or swallows memory costs that video; the process and its deaths are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import pytest

from faces.registry import WeightsFile, load_weights
from pipeline.config import Config
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import AnalysedVideo
from pipeline.stages.isolate import IsolatedAnalyser
from settings.loading import load_workflow
from shards.schema import Reason, Status

pytestmark = pytest.mark.slow
WORKFLOW = Path(__file__).parents[2] / "workflows" / "curate_embedded.yaml"
TICKS_OF_WORK = 15
"""Hundredths of a second of CPU time after which a process is in the middle of a video, not at its start."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos: a face that tilts from side to side, a frame of 64 megapixels, and nothing."""
    from skimage import data

    folder = tmp_path_factory.mktemp("clips")
    portrait = data.astronaut()[:320, 60:380]
    with av.open(str(folder / "face.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for number in range(40):
            turned = cv2.getRotationMatrix2D((160, 130), (number % 30 - 15) * 1.5, 1.0)
            image = cv2.warpAffine(portrait, turned, (320, 320), borderMode=cv2.BORDER_REPLICATE)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    with av.open(str(folder / "huge.mp4"), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 8000, 8000, "yuvj420p"
        file.mux(stream.encode(av.VideoFrame(8000, 8000, "yuvj420p")))
        file.mux(stream.encode())
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return settings(folder)


@pytest.fixture(scope="module")
def models(config: Config) -> dict[str, WeightsFile]:
    return load_weights([name for name in config.models.names if name != "piqe"], None)


@pytest.fixture(scope="module")
def analyser(config: Config, models: dict[str, WeightsFile]) -> Iterator[IsolatedAnalyser]:
    analyser = IsolatedAnalyser(config, models)
    yield analyser
    analyser.close()


@pytest.fixture(scope="module")
def videos(config: Config) -> dict[str, Video]:
    return {Path(video.uri).stem: video for video in list_folder(config.source).videos}


@pytest.fixture(scope="module")
def face(videos: dict[str, Video]) -> Video:
    return videos["face"]


@pytest.fixture(scope="module")
def undisturbed(analyser: IsolatedAnalyser, face: Video) -> AnalysedVideo:
    return analyser.analyse(face)


def settings(folder: Path, *overrides: str) -> Config:
    fixed = [
        f"source.path={folder}",
        f"output={folder}-out",
        "faces.min_crop_px=90",
        "run.video_timeout_s=20",
    ]
    return load_workflow(WORKFLOW, [*fixed, *overrides], Config)


def child_of(pid: int) -> int | None:
    """The analysing process of a process, if it has one."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in command:
                return int(child)
    return None


def loaded_child() -> int | None:
    """The analysing process of this one, once its networks are loaded: its memory is limited after that."""
    pid = child_of(os.getpid())
    if pid is None or not is_there(pid):
        return None
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    line = next(line for line in limits if line.startswith("Max data size"))
    return None if line.split()[3] == "unlimited" else pid


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def struck(number: signal.Signals, times: int = 1) -> Iterator[list[int]]:
    """Send a signal to the analysing process while it works on a video, and to its successors."""
    hit: list[int] = []

    def strike() -> None:
        while len(hit) < times and wait_for(lambda: loaded_child() not in (None, *hit)):
            pid = loaded_child()
            if pid is None:
                continue
            if wait_for(partial(_has_worked, pid, cpu_ticks(pid) + TICKS_OF_WORK)):
                os.kill(pid, number)
                hit.append(pid)

    thread = threading.Thread(target=strike)
    thread.start()
    yield hit
    thread.join()


def _has_worked(pid: int, ticks: int) -> bool:
    return cpu_ticks(pid) >= ticks


def same(first: AnalysedVideo, second: AnalysedVideo) -> bool:
    """Whether two analyses agree in everything but the time they took."""
    analyses = [video.analysis.model_copy(update={"seconds": {}}) for video in (first, second)]
    return analyses[0] == analyses[1] and (first.jpegs, first.masks) == (second.jpegs, second.masks)


def test_a_video_is_analysed_in_another_process(undisturbed: AnalysedVideo) -> None:
    outcome = undisturbed.analysis.outcome
    assert outcome.status is Status.ACCEPTED
    assert outcome.analysed_frames == outcome.faces_seen == 24
    assert len(undisturbed.jpegs) == len(undisturbed.masks) == len(undisturbed.analysis.tracks[0].candidates)
    assert undisturbed.jpegs[0].startswith(b"\xff\xd8")


def test_a_video_that_crashes_its_process_each_time_is_one_failed_row_that_names_the_signal(
    analyser: IsolatedAnalyser, face: Video, undisturbed: AnalysedVideo
) -> None:
    with struck(signal.SIGSEGV, times=2) as hit:
        outcome = analyser.analyse(face).analysis.outcome
    assert len(set(hit)) == 2
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.WORKER_CRASHED)
    assert outcome.detail == "the analysing process was ended by SIGSEGV"
    assert outcome.video_id == face.video_id


def test_after_crashes_a_video_whose_process_is_killed_once_is_tried_again_and_comes_out_the_same(
    analyser: IsolatedAnalyser, face: Video, undisturbed: AnalysedVideo
) -> None:
    with struck(signal.SIGKILL) as hit:
        found = analyser.analyse(face)
    assert len(hit) == 1
    assert same(found, undisturbed)


def test_a_video_that_hangs_is_one_failed_row_and_its_process_does_not_stay(
    folder: Path,
    config: Config,
    analyser: IsolatedAnalyser,
    videos: dict[str, Video],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analyser, "_config", settings(folder, "run.video_timeout_s=2"))
    with struck(signal.SIGSTOP) as hit:
        outcome = analyser.analyse(videos["face"]).analysis.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.TIMEOUT)
    assert outcome.detail == "longer than 2 s (run.video_timeout_s); --retry-failed tries again"
    assert not is_there(hit[0])
    assert analyser.analyse(videos["empty"]).analysis.outcome.reason is Reason.EMPTY_FILE


def test_a_process_that_dies_between_two_videos_is_replaced_and_costs_none(
    analyser: IsolatedAnalyser, videos: dict[str, Video]
) -> None:
    analyser.analyse(videos["empty"])
    pid = loaded_child()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not is_there(pid))
    assert analyser.analyse(videos["empty"]).analysis.outcome.reason is Reason.EMPTY_FILE
    assert loaded_child() not in (None, pid)


def test_a_video_that_takes_too_much_memory_is_one_failed_row_and_its_process_goes_on(
    folder: Path, models: dict[str, WeightsFile], videos: dict[str, Video]
) -> None:
    frugal = IsolatedAnalyser(settings(folder, "run.video_memory_gb=0.05"), models)
    outcome = frugal.analyse(videos["huge"]).analysis.outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.OUT_OF_MEMORY)
    assert outcome.detail == "more than 0.05 GB (run.video_memory_gb); --retry-failed tries again"
    assert frugal.analyse(videos["empty"]).analysis.outcome.reason is Reason.EMPTY_FILE
    frugal.close()


def test_no_process_stays_when_the_parent_is_killed(folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    assert is_there(pid)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not is_there(pid), seconds=10)


def test_networks_that_cannot_be_loaded_are_an_error_at_once(
    config: Config, models: dict[str, WeightsFile], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    broken = models | {
        config.models.detector: replace(models[config.models.detector], path=tmp_path / "broken.onnx")
    }
    with pytest.raises(RuntimeError, match=r"could not load its networks: \S+: .*broken\.onnx"):
        IsolatedAnalyser(config, broken)


def _wait_to_be_killed(folder: Path) -> None:
    config = settings(folder)
    analyser = IsolatedAnalyser(config, load_weights([n for n in config.models.names if n != "piqe"], None))
    print(child_of(os.getpid()), flush=True)
    time.sleep(600)
    analyser.close()


if __name__ == "__main__":
    _wait_to_be_killed(Path(sys.argv[1]))
