"""Which identities are held out: a test split by person and by origin that stays when videos are added.

What shares a person, a video or an origin is a group, and a group is never divided. Three rules say which groups
are held out, the strictest first:

- `split.test_list` pins them: exactly the groups of the listed videos.
- `split.from` continues an earlier dataset: who was held out stays held out, and who was trained on stays in the
  training split. Only a group that new videos make out of both has to move: it is held out, and named.
- Otherwise each unit (an origin, or a video of unknown origin) draws a number from its name alone, and a group is
  held out if any of its units draws less than `split.test_fraction`.

A rule without memory, such as the last, cannot keep everyone in place: two groups that become one may be of both
splits. This one takes the safe direction. An addition never moves a held-out person to the training split, unless
the group outgrows `split.max_group_videos`. It moves a person of the training split to the test split with a
probability of `test_fraction` for each unit that the group gains. So large groups are held out more often than
small ones: one of n units with a probability of 1 - (1 - test_fraction)^n.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import Split
from pipeline.people import split_notes as notes
from pipeline.people.earlier_split import TEST, TRAIN, EarlierSplit
from pipeline.people.listed_videos import ListedVideos
from pipeline.people.split_groups import Groups, find_groups, least_draws
from pipeline.people.split_notes import Past


@dataclass(frozen=True, eq=False)
class HoldOut:
    """The test split.

    Attributes:
        test: (N,) whether each identity is held out.
        notes: sentences for the user on what did not go as the configuration says; few, whatever N.
    """

    test: NDArray[np.bool_]
    notes: list[str]


def hold_out(
    identities: pa.Table,
    persons: NDArray[np.int64],
    config: Split,
    *,
    earlier: EarlierSplit | None = None,
    listed: ListedVideos | None = None,
    reasons: Mapping[str, str] | None = None,
    left_out: Collection[str] = (),
) -> HoldOut:
    """Decide which identities are held out.

    The order of the rows does not matter.

    Args:
        identities: N rows with the columns key (unique), video_id, content and origin (null where unknown).
        persons: (N,) label of each row's person.
        config: how much to hold out.
        earlier: the split to continue.
        listed: the only videos to hold out; with it, nothing is drawn.
        reasons: why other videos are not accepted, by video id.
        left_out: keys of rows that the dataset does not hold. They tie groups together, and are not counted.
    """
    order = pc.sort_indices(identities["key"]).to_numpy()
    rows = identities.select(["key", "video_id", "content", "origin"]).take(order)
    is_kept = ~pc.is_in(rows["key"], value_set=pa.array(sorted(left_out), pa.string())).to_numpy(
        zero_copy_only=False
    )
    groups = find_groups(rows, persons[order], is_kept)
    past = _past(groups, earlier)
    if listed is None:
        chosen, sentences = _draw(groups, config, past)
        if earlier is not None:
            sentences += notes.unmatched(groups, earlier, past)
    else:
        chosen, sentences = _take_listed(groups, listed, past, reasons or {})
    if len(groups) and chosen.all():
        sentences.append(notes.nothing_left(groups, config, past, listed))
    test = np.zeros(len(order), dtype=np.bool_)
    test[order] = chosen[groups.label]
    return HoldOut(test, sentences)


def _past(groups: Groups, earlier: EarlierSplit | None) -> Past:
    if earlier is None:
        none = np.zeros(len(groups), dtype=np.bool_)
        return Past(None, none, none)
    states = earlier.states(groups.identities)
    return Past(earlier.name, groups.any_of(states == TEST), groups.any_of(states == TRAIN))


def _draw(groups: Groups, config: Split, past: Past) -> tuple[NDArray[np.bool_], list[str]]:
    """(G,) groups to hold out: those of the earlier dataset, and of the new ones those that the draw chooses."""
    draws = least_draws(groups, config.seed)
    fits = groups.videos <= (np.inf if config.max_group_videos is None else config.max_group_videos)
    drawn = (draws < config.test_fraction) & ~past.held_out & ~past.trained
    chosen = past.held_out | (drawn & fits)
    sentences = [
        *notes.merged(groups, past),
        *notes.outgrown(groups, config, past, past.held_out & ~fits),
        *notes.too_large(groups, config, drawn & ~fits),
    ]
    if len(groups) and not chosen.any():
        sentences.append(notes.empty_by_draw(groups, config, draws, fits, past))
    return chosen, sentences


def _take_listed(
    groups: Groups, listed: ListedVideos, past: Past, reasons: Mapping[str, str]
) -> tuple[NDArray[np.bool_], list[str]]:
    """(G,) groups to hold out: those with a listed video."""
    wanted = pa.array(sorted(listed.video_ids), type=pa.string())
    videos = groups.identities["video_id"]
    is_listed = pc.is_in(videos, value_set=wanted).to_numpy(zero_copy_only=False)
    chosen = groups.any_of(is_listed)
    sentences = [
        *notes.no_effect(listed, reasons, groups, is_listed),
        *notes.not_listed(groups, is_listed, chosen[groups.label]),
        *notes.list_against_past(groups, past, chosen),
    ]
    if len(groups) and not chosen.any():
        sentences.append(notes.empty_by_list(listed))
    return chosen, sentences
