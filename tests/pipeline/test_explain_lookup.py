"""Which video is meant: by id, path, file name or sample key; anything else is an error with close matches."""

from __future__ import annotations

import pytest

from pipeline.explain.lookup import MOST_LISTED, Known, UnknownVideo, find
from pipeline.stages.finalize import sample_key

URIS = ("a/talk.mp4", "b/talk.mp4", "b/interview 1.mkv", "c/news.mp4", "c/news.mp4.mp4", "caf\\xe9.mp4")
VIDEOS = [Known(f"set/{uri}", "set", uri) for uri in URIS]


@pytest.mark.parametrize(
    ("wanted", "uri"),
    [
        ("set/a/talk.mp4", "a/talk.mp4"),
        ("a/talk.mp4", "a/talk.mp4"),
        ("./b/talk.mp4", "b/talk.mp4"),
        ("/data/clips/b/talk.mp4", "b/talk.mp4"),
        ("interview 1.mkv", "b/interview 1.mkv"),
        ("interview 1", "b/interview 1.mkv"),
        ("c/news.mp4", "c/news.mp4"),
        ("news.mp4", "c/news.mp4"),
        ("caf\udce9.mp4", "caf\\xe9.mp4"),
        (sample_key(VIDEOS[1], 3), "b/talk.mp4"),
    ],
)
def test_a_video_is_found_by_each_of_its_names(wanted: str, uri: str) -> None:
    assert find(wanted, VIDEOS).uri == uri


@pytest.mark.parametrize("wanted", ["-2KGPYEFnsU_8", "hq/-2KGPYEFnsU_8"])
def test_a_clip_is_found_by_what_its_dataset_calls_it(wanted: str) -> None:
    clips = [Known(f"hq/-2KGPYEFnsU_{number}", "hq", "raw/-2KGPYEFnsU.mp4") for number in (8, 81)]
    assert find(wanted, clips) == clips[0]
    with pytest.raises(UnknownVideo) as error:
        find("-2KGPYEFnsU_9", clips)
    assert "Did you mean one of these?\n  hq/-2KGPYEFnsU_8" in str(error.value)
    with pytest.raises(UnknownVideo, match="names 2 videos"):
        find("-2KGPYEFnsU.mp4", clips)


def test_a_name_of_two_videos_lists_both() -> None:
    with pytest.raises(UnknownVideo) as error:
        find("talk.mp4", VIDEOS)
    assert str(error.value).splitlines()[1:] == ["  set/a/talk.mp4", "  set/b/talk.mp4"]


@pytest.mark.parametrize("wanted", ["tolk.mp4", "b/tlak.mp4", "alk"])
def test_a_misspelt_name_lists_the_likely_ones(wanted: str) -> None:
    with pytest.raises(UnknownVideo, match=r"none of the 6 videos.*Did you mean") as error:
        find(wanted, VIDEOS)
    assert {"  set/a/talk.mp4", "  set/b/talk.mp4"} <= set(str(error.value).splitlines())


def test_a_name_like_no_other_lists_nothing() -> None:
    with pytest.raises(UnknownVideo) as error:
        find("zzzzzzzzzz", VIDEOS)
    assert str(error.value) == "none of the 6 videos is called 'zzzzzzzzzz'."


def test_a_long_list_is_cut() -> None:
    many = [Known(f"set/{number}/talk.mp4", "set", f"{number}/talk.mp4") for number in range(20)]
    with pytest.raises(UnknownVideo) as error:
        find("talk.mp4", many)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + MOST_LISTED + 1
    assert lines[-1] == "  … and 12 more"
