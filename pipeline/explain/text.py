"""An explanation for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from pipeline.explain import facts
from pipeline.explain.explanation import Explanation
from pipeline.explain.runs import FACES, Run, frame_runs, tracks_of
from pipeline.records import TimelineFace
from pipeline.sources.manifest import printable

WIDTH = 110
GLUE = "\N{NO-BREAK SPACE}"
MOST_RUNS = 40
"""Stretches shown of one track; a flickering detection has hundreds."""


def as_text(found: Explanation) -> str:
    """The outcome, the tracks, and the events along the time of each."""
    outcome = found.outcome
    lines = [
        *_rows(
            [
                ("video", outcome.video_id),
                ("outcome", facts.verdict(outcome)),
                ("detail", outcome.detail or ""),
                *facts.from_source(outcome).items(),
                ("format", facts.media_format(outcome)),
                ("analysed", facts.analysed(outcome) if outcome.analysed_frames else ""),
                ("gates", "  ".join(facts.gates(found.settings))),
                ("file", printable(str(found.file or ""))),
                *(("note", note) for note in found.notes),
            ]
        ),
        *_tracks(found),
        *_timeline(found),
    ]
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name:<10} {value}" for name, value in rows if value]


def _tracks(found: Explanation) -> list[str]:
    if not found.outcome.tracks:
        return []
    faces = facts.faces_by_track(tracks_of(found.timeline))
    rows = [("track", "time s", "frames", "usable", "face px", "crop px", "yaw", "pitch", "result")]
    for track in found.outcome.tracks:
        seen = faces.get(track.track, [])
        rows.append(
            (
                str(track.track),
                f"{track.start_s:.1f}{facts.DASH}{track.end_s:.1f}",
                str(track.frames),
                str(track.usable_frames),
                facts.sizes(seen),
                facts.crops(seen),
                facts.angles(seen, facts.yaw),
                facts.angles(seen, facts.pitch),
                facts.track_result(track),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return ["", *table]


def _timeline(found: Explanation) -> list[str]:
    lines: list[str] = []
    tracks = tracks_of(found.timeline)
    if found.whole and found.timeline.frames:
        lines += ["", "timeline  seconds, state, frames"]
        whole_frames = frame_runs(found.timeline)
        if any(run.state != FACES for run in whole_frames):
            lines += _runs("all", whole_frames)
        for track in tracks:
            lines += _runs(str(track.number), track.runs)
    for track in tracks:
        if track.chosen:
            quality = f" (quality: {found.metric})" if found.metric else ""
            lines += ["", f"chosen from track {track.number}{quality}", *map(_chosen, track.chosen)]
    return lines


def _runs(name: str, stretches: Sequence[Run]) -> list[str]:
    """The stretches of a track, as many on a line as fit."""
    parts = [f"{run.start_s:.1f}-{run.end_s:.1f} s {run.state} {run.frames}" for run in stretches[:MOST_RUNS]]
    if len(stretches) > MOST_RUNS:
        parts.append(f"and {len(stretches) - MOST_RUNS} more stretches (--json lists every frame)")
    glued = ", ".join(part.replace(" ", GLUE) for part in parts)  # a line ends between stretches only
    lines = textwrap.wrap(
        glued, WIDTH, initial_indent=f"{name:>5}  ", subsequent_indent=" " * 7, break_on_hyphens=False
    )
    return [line.replace(GLUE, " ") for line in lines]


def _chosen(face: TimelineFace) -> str:
    pose = face.pose
    angles = (
        f"yaw {round(pose.yaw):+d} pitch {round(pose.pitch):+d} roll {round(pose.roll):+d}" if pose else ""
    )
    quality = f"quality {face.quality:g}" if face.quality is not None else ""
    return f"{face.time_s:9.2f} s  frame {face.frame:<6} {angles:<30} {quality}".rstrip()
