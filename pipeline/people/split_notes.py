"""What the split has to say to the user: few sentences, with counts and the first examples, for any N.

The generators yield nothing where there is nothing to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import Split
from pipeline.people.earlier_split import EarlierSplit
from pipeline.people.listed_videos import ListedVideos
from pipeline.people.sentences import MOST_NAMED, counted, such_as
from pipeline.people.split_groups import Groups

Mask = NDArray[np.bool_]

TIES = "a person, a video or an origin"


@dataclass(frozen=True, eq=False)
class Past:
    """What an earlier dataset did with G groups.

    Attributes:
        name: of the dataset; None without one.
        held_out: (G,) whether a member was held out.
        trained: (G,) whether a member was trained on.
    """

    name: str | None
    held_out: Mask
    trained: Mask


def too_large(groups: Groups, config: Split, drawn: Mask) -> Iterator[str]:
    """Groups that the draw chose and that have too many videos."""
    if drawn.any():
        yield (
            f"{_groups_are(drawn)} drawn for the test split, but larger than "
            f"split.max_group_videos={config.max_group_videos} and so left in the training split: "
            f"{_examples(groups, drawn)}. Raise the key to hold them out. If one of them shows several people, "
            "linking is wrong: make it stricter."
        )


def outgrown(groups: Groups, config: Split, past: Past, held_out: Mask) -> Iterator[str]:
    """Groups that the earlier dataset held out and that have too many videos now."""
    if held_out.any():
        yield (
            f"{_groups_are(held_out)} larger than split.max_group_videos={config.max_group_videos}, but held out "
            f"as in {past.name}: {_examples(groups, held_out)}."
        )


def merged(groups: Groups, past: Past) -> Iterator[str]:
    """Groups that new videos make out of people of both splits of the earlier dataset."""
    both = past.held_out & past.trained
    if both.any():
        yield (
            f"{_groups_are(both)} made of identities that {past.name} held out and of others that it trained on, "
            "because new videos or settings link them. All of their videos are held out now: "
            f"{_examples(groups, both)}."
        )


def unmatched(groups: Groups, earlier: EarlierSplit, past: Past) -> Iterator[str]:
    """Identities of the earlier dataset that this one does not have."""
    gone = earlier.missing(groups.identities)
    if len(groups) and not (past.held_out | past.trained).any():
        yield (
            f"No identity, video or origin of this build is in {past.name}, the dataset of split.from. Check the "
            "path, and the names of the sources, which are part of the videos' ids."
        )
    elif gone:
        yield (
            f"{past.name} held out {counted(len(gone), 'identity')} of which this build has neither the video nor "
            f"the origin: {such_as(gone)}. The test split is smaller by them."
        )


def no_effect(
    listed: ListedVideos, reasons: Mapping[str, str], groups: Groups, is_listed: Mask
) -> Iterator[str]:
    """Entries of the list whose videos are not in the dataset, with why.

    Args:
        listed: the list.
        reasons: of the videos that are not accepted, by id.
        groups: of N identities.
        is_listed: (N,) whether the list names the row's video.
    """
    yield from listed.messages()
    held = set(groups.values("video_id", is_listed & groups.is_kept))
    copies = set(groups.values("video_id", is_listed & ~groups.is_kept)) - held
    out = {entry: videos for entry, videos in listed.entries.items() if videos and held.isdisjoint(videos)}
    copied = {
        entry: next(v for v in videos if v in copies) for entry, videos in out.items() if copies & {*videos}
    }
    lost = {entry: videos[0] for entry, videos in out.items() if entry not in copied}
    if copied:
        why = [f"{entry} ({reasons.get(video, 'left out')})" for entry, video in copied.items()]
        yield (
            f"split.test_list: the videos of {counted(len(copied), 'entry')} are left out, because other videos "
            f"show the same person; these are held out in their place: {such_as(why)}."
        )
    if lost:
        why = [f"{entry} ({reasons.get(video, 'no identity')})" for entry, video in lost.items()]
        yield (
            f"split.test_list: the videos of {len(lost):,} of {counted(len(listed.entries), 'entry')} are not "
            f"accepted, so they are in no split: {such_as(why)}."
        )


def not_listed(groups: Groups, is_listed: Mask, held_out: Mask) -> Iterator[str]:
    """Videos that are held out though the list does not name them.

    Args:
        groups: of N identities.
        is_listed: (N,) whether the list names the row's video.
        held_out: (N,) whether the row is held out.
    """
    videos = groups.values("video_id", held_out & ~is_listed & groups.is_kept)
    if not videos:
        return
    examples = []
    for video in videos[:MOST_NAMED]:
        row = pc.index(groups.identities["video_id"], video).as_py()
        beside = groups.values("video_id", (groups.label == groups.label[row]) & is_listed)
        examples.append(f"{video} (linked to {beside[0]})")
    are = "is" if len(videos) == 1 else "are"
    yield (
        f"{counted(len(videos), 'video')} that split.test_list does not name {are} held out as well, for sharing "
        f"{TIES} with listed ones: {such_as([*examples, *videos[MOST_NAMED:]])}."
    )


def list_against_past(groups: Groups, past: Past, chosen: Mask) -> Iterator[str]:
    """Groups that the list moves out of the split of the earlier dataset."""
    released, taken = past.held_out & ~chosen, past.trained & chosen
    if released.any():
        yield (
            f"{_groups_are(released)} trained on now, because split.test_list does not name them, but {past.name} "
            f"held them out: {_examples(groups, released)}."
        )
    if taken.any():
        yield (
            f"{_groups_are(taken)} held out now, because split.test_list names them, but {past.name} trained on "
            f"them: {_examples(groups, taken)}."
        )


def empty_by_list(listed: ListedVideos) -> str:
    """Why the test split of a list is empty."""
    if not listed.entries:
        return "The test split is empty: split.test_list has no entries. Add some, or leave the key out."
    return (
        f"The test split is empty: no video of the {counted(len(listed.entries), 'entry')} of split.test_list is "
        "accepted. Correct the list, or leave the key out."
    )


def empty_by_draw(groups: Groups, config: Split, draws: NDArray[np.float64], fits: Mask, past: Past) -> str:
    """Why the test split of a draw is empty, and the value that changes it.

    Args:
        groups: of the identities.
        config: how much was to be held out.
        draws: (G,) the least draw of each group.
        fits: (G,) whether a group is small enough.
        past: what the earlier dataset did with the groups.
    """
    whole = f"{counted(int(groups.is_kept.sum()), 'identity')} in {counted(len(groups), 'group')}"
    candidates = fits & ~past.trained
    if len(groups) == 1:
        cause = f"all videos share {TIES}, so nothing would be left to train on"
        remedy = "Add videos of other people"
    elif past.trained.all():
        cause = f"{past.name} trained on someone of every group"
        remedy = "Pin the held-out videos by split.test_list, or leave split.from out"
    elif not candidates.any():
        cause = f"the groups are larger than split.max_group_videos={config.max_group_videos}"
        remedy = "Raise the key, or pin the held-out videos by split.test_list"
    else:
        cause = f"of {whole}, none is drawn with split.test_fraction={config.test_fraction:g}"
        fraction, first = _least_fraction(np.where(candidates, draws, np.inf))
        count = counted(int(np.count_nonzero(groups.of(first))), "identity")
        remedy = f"split.test_fraction={fraction} holds out {count}: the group of {_described(groups, first)}"
    return f"The test split is empty: {cause}. {remedy}."


def nothing_left(groups: Groups, config: Split, past: Past, listed: ListedVideos | None) -> str:
    """Why there is nothing to train on."""
    remedy = "Add videos of other people"
    if len(groups) == 1:
        cause = f"all videos share {TIES}"
    elif listed is not None:
        cause = "split.test_list names someone of every group"
        remedy = f"{remedy}, or list fewer"
    elif past.held_out.all():
        cause = f"{past.name} held out someone of every group"
    else:
        cause = f"every group is drawn with split.test_fraction={config.test_fraction:g}"
        remedy = "Lower it"
    return f"Everybody is held out, and nothing is left to train on: {cause}. {remedy}."


def _least_fraction(draws: NDArray[np.float64]) -> tuple[str, int]:
    """The shortest test fraction that holds out the group with the least draw and, where it can, no other."""
    first = int(np.argmin(draws))
    least = float(draws[first])
    second = float(np.min(np.delete(draws, first)))
    for digits in range(2, 16):
        fraction = math.floor(least * 10**digits + 1) / 10**digits
        if least < fraction <= second:
            break
    return f"{min(fraction, 1.0):.{digits}f}", first


def _groups_are(groups: Mask) -> str:
    count = int(np.count_nonzero(groups))
    return "1 group is" if count == 1 else f"{count:,} groups are"


def _examples(groups: Groups, mask: Mask) -> str:
    """The largest groups of a mask."""
    found = np.flatnonzero(mask)
    largest = found[np.argsort(-groups.videos[found], kind="stable")]
    shown = "; ".join("that of " + _described(groups, int(group)) for group in largest[:MOST_NAMED])
    return shown + (f"; and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else "")


def _described(groups: Groups, group: int) -> str:
    """A group by its first key, its size and its origins."""
    rows = groups.of(group)
    first = groups.identities["key"][int(np.argmax(rows))].as_py()
    origins = groups.values("origin", rows)
    from_ = f" from {such_as(origins)}" if origins else ""
    return f"{first} ({counted(int(groups.videos[group]), 'video')}{from_})"
