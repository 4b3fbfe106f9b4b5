"""Which finished videos a build curates again, because the user asks for it.

    <output>/.staging/<curation digest>/retry.json   what was asked for, until the build is finished

Their staged files are removed before any work. What was asked for is recorded, so that the same command continues
a build that was interrupted: what it has curated again is then kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import BuildError
from pipeline.not_accepted import MISSING, ListError, read_entries
from pipeline.people.outcomes import AFTER_CURATION
from pipeline.sources.manifest import Video, one_line, printable
from pipeline.staging import DamagedStagedFile, Staging
from shards.atomic import remove_file, write_bytes
from shards.canonical import indented_json, sha256_hex
from shards.schema import Status, VideoOutcome
from storage.path import AnyPath

RETRY_JSON = "retry.json"
MOST_NAMED = 5
"""Unknown ids that an error names."""


@dataclass(frozen=True)
class Retry:
    """What to curate again; a video is when any of these names it.

    Attributes:
        failed: all videos that failed.
        reasons: those whose outcome has one of these reasons.
        file: those that a list names, as `pipeline.not_accepted` reads it.
    """

    failed: bool = False
    reasons: tuple[str, ...] = ()
    file: AnyPath | None = None

    def __bool__(self) -> bool:
        return self.failed or bool(self.reasons) or self.file is not None


@dataclass(frozen=True)
class Listed:
    """The content of a list.

    Attributes:
        ids: of its videos.
        missing: its lines of clips without a file.
    """

    ids: frozenset[str] = frozenset()
    missing: int = 0


def read_list(retry: Retry, videos: Iterable[Video]) -> Listed:
    """Read the list, if one is given.

    Args:
        retry: names the list.
        videos: all of the build.

    Raises:
        BuildError: it cannot be read, or names videos that are not among `videos`.
    """
    path = retry.file
    if path is None:
        return Listed()
    shown = printable(str(path))
    try:
        entries = list(read_entries(path))
    except ListError as error:
        raise BuildError(f"--retry {shown}: {error}") from error
    except OSError as error:
        raise BuildError(f"--retry {shown} cannot be read: {error.strerror}") from error
    # In their order, each once.
    ids = list(dict.fromkeys(entry.video_id for entry in entries if entry.status != MISSING))
    known = {video.video_id for video in videos}
    if unknown := [each for each in ids if each not in known]:
        named = ", ".join(map(one_line, unknown[:MOST_NAMED]))
        more = ", …" if len(unknown) > MOST_NAMED else ""
        raise BuildError(
            f"--retry {shown}: {len(unknown)} of {len(ids)} listed videos are not in the source: {named}{more}. "
            + _advice(unknown[0], known)
        )
    return Listed(frozenset(ids), sum(entry.status == MISSING for entry in entries))


def _advice(unknown: str, known: Iterable[str]) -> str:
    meant = next((each for each in known if each.endswith(f"/{unknown}")), None)
    if meant is not None:
        return f"An id begins with the name of its source: {one_line(meant)}"
    return "Remove their lines, or check source.path"


def forget_again(
    retry: Retry, listed: Listed, staging: Staging, videos: list[Video], *, dry_run: bool = False
) -> tuple[list[str], list[Video]]:
    """Drop the outcomes of the videos to curate again, unless an interrupted build has done so.

    Args:
        retry: what to curate again.
        listed: its list.
        staging: the finished videos.
        videos: all of the build.
        dry_run: drop nothing.

    Returns:
        Messages for the user, and the videos to curate again.

    Raises:
        BuildError: no finished video has one of the reasons.
        OSError: the staging area cannot be read or written.
    """
    messages = []
    if listed.missing:
        lines = "1 line" if listed.missing == 1 else f"{listed.missing} lines"
        messages.append(f"Ignored {lines} of {printable(str(retry.file))} with status {MISSING}.")
    asked = indented_json(
        {
            "failed": retry.failed,
            "reasons": sorted(set(retry.reasons)),
            "listed_sha256": sha256_hex("\n".join(sorted(listed.ids)).encode()),
        }
    )
    if _recorded(staging) == asked:
        return [
            *messages,
            "Continuing the retry that was interrupted: what it has curated again is kept.",
        ], []
    again = _again(retry, listed, staging, staging.finished(videos))
    if not dry_run:
        staging.forget(again)
        write_bytes(staging.folder / RETRY_JSON, asked)
    return [
        *messages,
        f"{len(again)} finished {'video is' if len(again) == 1 else 'videos are'} curated again.",
    ], again


def finish_retry(staging: Staging) -> None:
    """Record that nothing is left to curate again: the next run with the same options starts afresh.

    Raises:
        BuildError: the record cannot be removed.
    """
    path = staging.folder / RETRY_JSON
    try:
        remove_file(path)
    except OSError as error:
        raise BuildError(f"cannot remove {path}: {error.strerror}") from error


def _recorded(staging: Staging) -> bytes | None:
    try:
        return (staging.folder / RETRY_JSON).read_bytes()
    except FileNotFoundError:
        return None


def _again(retry: Retry, listed: Listed, staging: Staging, finished: list[Video]) -> list[Video]:
    if not retry.failed and not retry.reasons:
        return [video for video in finished if video.video_id in listed.ids]
    outcomes = [(video, _outcome(staging, video)) for video in finished]
    occurring = Counter(str(found.reason) for _, found in outcomes if found and found.reason)
    if unknown := [reason for reason in retry.reasons if reason not in occurring]:
        raise BuildError(_unknown_reason(unknown[0], occurring))
    return [
        video
        for video, found in outcomes
        if video.video_id in listed.ids or found is None or _asked(retry, found)
    ]


def _asked(retry: Retry, outcome: VideoOutcome) -> bool:
    return (retry.failed and outcome.status is Status.FAILED) or str(outcome.reason) in retry.reasons


def _outcome(staging: Staging, video: Video) -> VideoOutcome | None:
    """The outcome of a finished video; None where its file is damaged, so that it must be curated again anyway."""
    try:
        return staging.outcome(video)
    except DamagedStagedFile:
        return None


def _unknown_reason(reason: str, occurring: Counter[str]) -> str:
    if reason in AFTER_CURATION:
        return (
            f"--retry-reason {reason}: every build finds duplicates anew, so there is nothing to curate again"
        )
    ordered = sorted(occurring.items(), key=lambda item: (-item[1], item[0]))
    there = ", ".join(f"{name} ({count})" for name, count in ordered)
    found = f"These occur: {there}" if there else "All finished videos are accepted"
    return f"--retry-reason {printable(reason)}: no finished video has this reason. {found}"
