"""An explanation for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.explain import facts
from pipeline.explain.explanation import Explanation
from pipeline.explain.runs import FACES, Run, frame_runs, tracks_of

MOST_RUNS = 40
"""Stretches shown of one track; a flickering detection has hundreds."""


def as_text(found: Explanation) -> str:
    """The outcome, the tracks, and what happened along the time of each."""
    outcome = found.outcome
    lines = [
        *_rows(
            [
                ("video", outcome.video_id),
                ("outcome", facts.verdict(outcome)),
                ("detail", outcome.detail or ""),
                ("picture", facts.picture(outcome)),
                ("analysed", facts.analysed(outcome) if outcome.analysed_frames else ""),
                ("gates", "  ".join(f"{key}={value}" for key, value in found.settings.items())),
                ("file", str(found.file or "")),
                *(("note", note) for note in found.notes),
            ]
        ),
        *_tracks(found),
        *_timeline(found),
    ]
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name:<9} {value}" for name, value in rows if value]


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
    lines = []
    for track in tracks_of(found.timeline):
        lines += ["", f"track {track.number}"]
        if found.whole:
            lines += _runs(track.runs)
        if track.chosen:
            lines.append("  chosen")
        for face in track.chosen:
            pose = face.pose
            angles = f"yaw {pose.yaw:+.0f} pitch {pose.pitch:+.0f} roll {pose.roll:+.0f}" if pose else ""
            lines.append(
                f"    {face.time_s:7.2f} s  frame {face.frame:<6} {angles}  quality {face.quality:g}"
            )
    if found.whole and any(run.state != FACES for run in frame_runs(found.timeline)):
        lines += ["", "whole frames", *_runs(frame_runs(found.timeline))]
    return lines


def _runs(stretches: Sequence[Run]) -> list[str]:
    lines = [
        f"  {run.start_s:7.2f}{facts.DASH}{run.end_s:<7.2f} s  {run.state:<16} {run.frames:>4}"
        for run in stretches[:MOST_RUNS]
    ]
    if len(stretches) > MOST_RUNS:
        lines.append(f"  … and {len(stretches) - MOST_RUNS} more stretches; --json lists every frame")
    return lines
