"""An explanation as one HTML file that needs nothing else: no script, no request."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from markupsafe import Markup

from pipeline.explain import chart, facts
from pipeline.explain.explanation import Explanation
from pipeline.explain.runs import FACES, USABLE, Run, TrackFaces, frame_runs, state, tracks_of
from pipeline.explain.strip import NoFrames, StripFrame, data_uri, strip
from pipeline.records import TimelineFace
from pipeline.report.page import TEMPLATE as REPORT_TEMPLATE
from pipeline.report.page import template_environment
from pipeline.report.reasons import meaning
from shards.atomic import write_bytes
from shards.schema import TrackOutcome

TEMPLATE = Path(__file__).parent / "template"
MOST_TRACKS = 12
"""Tracks with their own section, those with the most usable frames; the table lists all."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"


@dataclass(frozen=True)
class TrackSection:
    """The content of the page about a track."""

    outcome: TrackOutcome
    figure: chart.PoseChart | None
    runs: list[Run]
    images: list[tuple[TimelineFace | None, str]]
    """Each chosen image as a data URI, with its measurements."""


def write_page(found: Explanation, path: Path) -> None:
    """Write the page.

    Raises:
        OutOfSpace: the disk is full.
        OSError: the path cannot be written to.
    """
    write_bytes(path, as_page(found).encode())


def as_page(found: Explanation) -> str:
    """The page; where the video's frames cannot be decoded, it has a note and shows the rest."""
    notes, frames = list(found.notes), list[StripFrame]()
    if found.file is not None and found.timeline.frames:
        try:
            frames = strip(found.file, found.timeline, found.decoder)
        except NoFrames as error:
            notes.append(f"The video's frames cannot be decoded: {error}")
    tracks = tracks_of(found.timeline)
    environment = template_environment(TEMPLATE)
    environment.filters |= {"meaning": state_meaning, "colour": chart.colour, "state": state}
    style = [REPORT_TEMPLATE / "style.css", TEMPLATE / "explain.css"]
    return environment.get_template("explain.html.j2").render(
        outcome=found.outcome,
        facts=facts,
        chart=chart,
        notes=notes,
        settings=found.settings,
        file=found.file,
        whole=found.whole,
        metric=found.metric,
        faces=facts.faces_by_track(tracks),
        lanes=chart.lanes(found.timeline, tracks) if found.timeline.frames else None,
        states=shown_states(found, tracks),
        frames=frames,
        tracks=_sections(found, tracks),
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in style)),  # noqa: S704 - ours
        policy=POLICY,
    )


def state_meaning(name: str) -> str:
    """The meaning of a face's or a frame's state."""
    known = {USABLE: "passed every check", FACES: "the frame shows a face or more"}
    return known.get(name) or meaning(name)


def shown_states(found: Explanation, tracks: list[TrackFaces]) -> list[str]:
    """The states that occur, `usable` first and then in the order of the colours, unknown ones last."""
    there = {run.state for track in tracks for run in track.runs}
    whole_frames = {run.state for run in frame_runs(found.timeline)}
    there |= whole_frames if whole_frames != {FACES} else set()
    places = {name: place for place, name in enumerate(chart.COLOURS)}
    return sorted(there, key=lambda name: (places.get(name, len(places)), name))


def _sections(found: Explanation, tracks: list[TrackFaces]) -> list[TrackSection]:
    """The best tracks; for one that never passed the first checks, the table and the lanes are enough."""
    by_number = {track.number: track for track in tracks}
    step = chart.usual_step(found.timeline)
    best = sorted(
        found.outcome.tracks,
        key=lambda track: (track.key is None, -track.usable_frames, -track.frames, track.track),
    )
    sections = []
    for outcome in best:
        track = by_number.get(outcome.track, TrackFaces(outcome.track, []))
        images = [data_uri(jpeg) for jpeg in found.images.get(outcome.track, [])]
        has_pose = found.whole and any(face.pose for face in track.faces)
        if has_pose or images:
            faces: list[TimelineFace | None] = list(track.chosen)
            sections.append(
                TrackSection(
                    outcome=outcome,
                    figure=chart.pose_chart(track, step) if has_pose else None,
                    runs=track.runs if found.whole else [],
                    images=list(zip_longest(faces[: len(images)], images)),
                )
            )
    return sections[:MOST_TRACKS]
