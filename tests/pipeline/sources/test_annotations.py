"""The datasets' annotation files are read as they are, and what deviates is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.annotations.celebv import read_celebv
from pipeline.sources.annotations.clip import AnnotationError
from pipeline.sources.annotations.talkinghead import read_tubes
from pipeline.sources.annotations.vfhq import parse_clip_name, read_annotation
from shards.schema import Attribute

ENTRY = {
    "ytb_id": "-abc_DEF012",
    "duration": {"start_sec": 1.5, "end_sec": 4.0},
    "bbox": {"top": 0.1, "bottom": 0.6, "left": 0.2, "right": 0.4},
    "version": "v0.1",
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "info.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_clip_of_celebv_hq_has_its_span_its_box_and_its_attributes(tmp_path: Path) -> None:
    attributes = {
        "appearance": [1, 0, 1],
        "action": [0, 1],
        "emotion": {"sep_flag": True, "labels": [{"emotion": "happy", "start_sec": 0, "end_sec": 1}]},
    }
    content = {
        "meta_info": {"appearance_mapping": ["blurry", "male", "young"], "action_mapping": ["blow", "talk"]},
        "clips": {"-abc_DEF012_3_1": ENTRY | {"attributes": attributes}},
    }
    (clip,) = read_celebv(written(tmp_path, content))
    assert (clip.key, clip.origin, clip.part) == ("-abc_DEF012_3_1", "-abc_DEF012", "-abc_DEF012")
    assert (clip.span_s, clip.box, clip.box_px) == ((1.5, 4.0), (0.2, 0.1, 0.4, 0.6), None)
    assert clip.attributes == (
        Attribute(name="action", value="talk"),
        Attribute(name="appearance", value="blurry, young"),
        Attribute(name="emotion", value="happy"),
    )


@pytest.mark.parametrize(
    "content",
    [
        {"-abc_DEF012_3.mp4": ENTRY},
        {"clips": {"-abc_DEF012_3": ENTRY}},
        {"clips_set1": {"-abc_DEF012_3": ENTRY}, "clips_set2": {"-abc_DEF012_3": ENTRY}},
    ],
)
def test_every_form_of_celebv_text_gives_the_same_clip(tmp_path: Path, content: dict[str, Any]) -> None:
    clips = set(read_celebv(written(tmp_path, content)))
    assert [(clip.key, clip.span_s) for clip in clips] == [("-abc_DEF012_3", (1.5, 4.0))]


def test_a_box_in_pixels_waits_for_the_size_of_the_frame(tmp_path: Path) -> None:
    box = {"top": 10, "bottom": 937, "left": 800, "right": 1872}
    (clip,) = read_celebv(written(tmp_path, {"clips": {"-abc_DEF012_3": ENTRY | {"bbox": box}}}))
    assert (clip.box, clip.box_px) == (None, (800, 10, 1872, 937))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"info\.json, the whole file: not JSON"),
        ("[]", "the whole file: expected an object"),
        ("[" * 100_000, "the whole file: expected an object"),
        ('{"a": ' + "[" * 100_000, "entry 'a': more than 12 levels deep"),
        (
            {"meta_info": {"action_mapping": 5}, "clips": {"-abc_DEF012_1": ENTRY}},
            "meta_info: action_mapping: ",
        ),
        (
            {"-abc_DEF012_1": {**ENTRY, "attributes": {"emotion": {"labels": None}}}},
            r"attributes\.emotion\.labels",
        ),
        ({"-abc_DEF012_1": {**ENTRY, "attributes": {"action": ["0"]}}}, r"attributes\.action\.0"),
        ({"-abc_DEF012_1": {**ENTRY, "duration": {"start_sec": "1", "end_sec": 2}}}, r"duration\.start_sec"),
        (
            {"-abc_DEF012_1": {**ENTRY, "bbox": {"top": 1.01, "bottom": 1.04, "left": 0.1, "right": 0.2}}},
            "bbox: lies outside of the frame",
        ),
        ({"clips": {}}, "expected an object with one entry for each clip"),
        ({"meta_info": {}, "-abc_DEF012_1": ENTRY}, "has `meta_info` but no `clips`"),
        (
            {"clips": {"-abc_DEF012_1": {**ENTRY, "attributes": {"action": [0, 1]}}}},
            "attributes.action: meta_info has no action_mapping",
        ),
        ({"abc": ENTRY}, "entry 'abc': expected the name -abc_DEF012_<number>"),
        ({"-abc_DEF012_1": {**ENTRY, "ytb_id": "../../etc"}}, "entry '-abc_DEF012_1': ytb_id: "),
        ({"-abc_DEF012_1": {**ENTRY, "duration": {"start_sec": 2, "end_sec": 2}}}, "duration: ends at 2 s"),
        ({"-abc_DEF012_1": {**ENTRY, "duration": {"start_sec": 2}}}, r"duration\.end_sec: Field required"),
        ({"-abc_DEF012_1": {**ENTRY, "bbox": {**ENTRY["bbox"], "right": 0.2}}}, "bbox: its right and bottom"),  # type: ignore[dict-item]
        (
            {"-abc_DEF012_1": {**ENTRY, "bbox": {**ENTRY["bbox"], "left": -0.5}}},
            "bbox: lies outside of the frame",
        ),  # type: ignore[dict-item]
    ],
)
def test_an_entry_of_celebv_that_deviates_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        list(read_celebv(written(tmp_path, content)))


def test_a_tube_has_its_frames_its_box_and_the_name_of_its_crop(tmp_path: Path) -> None:
    path = tmp_path / "small_video_tubes.txt"
    path.write_text("0-FQbhkWYuY_0001, 720, 1280, 1300, 1439, 190, 0, 958, 704\n\n")
    (clip,) = read_tubes(path)
    assert clip.key == "0-FQbhkWYuY_0001_S1300_E1439_L190_T0_R958_B704"
    assert (clip.origin, clip.part, clip.frames) == ("0-FQbhkWYuY", "0-FQbhkWYuY_0001", (1300, 1439))
    assert clip.box == (190 / 1280, 0, 958 / 1280, 704 / 720)


@pytest.mark.parametrize(
    "line",
    [
        "0-FQbhkWYuY_0001, 720, 1280, 1300, 1439, 190, 0, 958",
        "0-FQbhkWYuY_0001, 720, 1280, 1300, 1439, 190, 0, 958, x",
        "0-FQbhkWYuY, 720, 1280, 1300, 1439, 190, 0, 958, 704",
        "0-FQbhkWYuY_0001, 720, 1280, 1439, 1300, 190, 0, 958, 704",
        "0-FQbhkWYuY_0001, 720, 1280, 1300, 1439, 190, 0, 1281, 704",
        f"0-FQbhkWYuY_0001, 720, 1280, 1300, {'9' * 5000}, 190, 0, 958, 704",
    ],
)
def test_a_tube_that_deviates_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tubes.txt"
    path.write_text(f"\n{line}\n")
    with pytest.raises(AnnotationError, match=r"tubes\.txt, line 2: "):
        list(read_tubes(path))


def test_a_clip_of_vfhq_is_known_by_its_name() -> None:
    clip = parse_clip_name("Clip+-2x_y4z6A8B+P12+C0+F3709-3927")
    assert clip is not None
    assert (clip.origin, clip.person, clip.frames) == ("-2x_y4z6A8B", "P12", (3710, 3926))


@pytest.mark.parametrize(
    "name", ["Clip+short+P0+C0+F1-9", "Clip+abcdefghijk+P0+C0", "Clip+abcdefghijk+P0+C0+F9-10", "other"]
)
def test_other_names_are_no_clips_of_vfhq(name: str) -> None:
    assert parse_clip_name(name) is None


VFHQ = """Video abcdefghijk
H: 1080
W: 1920
FPS: 29.97

FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]

31 0 100 200 50.5 60 1 2 3 4 5 6 7 8 9 10
32 1 101 200 50 60 1 2 3 4 5 6 7 8 9 10.5
CROP 10 20 500 510
"""


def vfhq(folder: Path, text: str) -> Path:
    path = folder / "clip.txt"
    path.write_text(text)
    return path


def test_an_annotation_of_vfhq_has_a_box_for_each_frame_and_a_crop(tmp_path: Path) -> None:
    found = read_annotation(vfhq(tmp_path, VFHQ))
    assert (found.height, found.width, found.fps, found.crop_px) == (1080, 1920, 29.97, (10, 20, 500, 510))
    assert [face.frame for face in found.faces] == [31, 32]
    assert found.faces[0].box_px == (100, 200, 150.5, 260)
    assert found.faces[1].points_px == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10.5))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Video", "Movie", "line 1: "),
        ("H: 1080", "H: high", "line 2: expected `H: <number>`, found 'H: high'"),
        ("W: 1920", "W: 1920.5", "line 3: "),
        ("FPS: 29.97", "FPS: 0", "line 4: "),
        ("[Landmarks (5 Points)]", "", "line 6: "),
        ("\n31 0", "x\n31 0", "line 7: expected an empty line"),
        (" 9 10\n", " 9\n", "line 8: expected 16 numbers"),
        ("50 60", "50 nan", "line 9: expected 16 numbers"),
        ("50 60", "50 0", "line 9: a box of 50 x 0 pixels"),
        ("32 1", "31 1", "frame 31: comes after frame 31"),
        ("CROP 10 20 500 510", "", "line 9: expected `CROP"),
        ("500 510", "10 510", "line 10: the crop 10 20 10 510 is empty"),
    ],
)
def test_an_annotation_of_vfhq_that_deviates_is_named_by_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in VFHQ
    with pytest.raises(AnnotationError) as caught:
        read_annotation(vfhq(tmp_path, VFHQ.replace(old, new, 1)))
    assert f"clip.txt, {message}" in str(caught.value)


def test_the_genuine_annotations_are_read_whole(metadata: Path) -> None:
    excerpts = [clip for path in metadata.glob("celebv-hq/*.json") for clip in read_celebv(path)]
    assert {clip.key for clip in excerpts} == {"-2KGPYEFnsU_8", "M2Ohb0FAaJU_1"}
    assert all({a.name for a in clip.attributes} == {"action", "appearance", "emotion"} for clip in excerpts)
    text = list(read_celebv(metadata / "celebv-text" / "celebvtext_info.sample.json"))
    assert len({clip.key for clip in text}) == len(text) == 43
    assert all(clip.box is not None and clip.span_s is not None for clip in text)
    tubes = {
        path.name: len(list(read_tubes(path))) for path in metadata.glob("talkinghead-1kh/*_video_tubes.txt")
    }
    assert tubes == {"small_video_tubes.txt": 4, "val_video_tubes.txt": 38, "train_video_tubes.txt": 7684}
    names = [
        name for path in metadata.glob("vfhq/clip_names_*.txt") for name in path.read_text().splitlines()
    ]
    assert len(names) == 16_827 + 439
    assert all(parse_clip_name(name) for name in names)
