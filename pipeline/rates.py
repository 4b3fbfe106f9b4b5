"""What a build measured of the videos it curated: seconds, identities and bytes, from which `mfhq plan` estimates.

A finished build writes them to <output>/report/rates.json:

    {"device": "cpu", "settings": {"models": {...}, ...},          what the figures depend on
     "dataset_bytes_per_identity": ...,                            shards
     "all": {"videos": ..., "video_s": ..., "analysis_s_per_video_s": ..., ...},
     "sources": {"vfhq": {...}}}                                   the same, of each source

The file names sources, but no video. No dataset depends on it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.config import PlanConfig
from pipeline.errors import BuildError
from settings.section import differences
from shards.schema import Record
from storage.path import AnyPath

FILE = "report/rates.json"
"""Where a build writes them, relative to its output."""
SCORING = frozenset({"score", "embed"})
"""Steps of the quality network and of the embeddings of chosen images, which may have processes of their own. All
others are steps of the analysis."""

_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rate(Record):
    """The figures of some videos."""

    kind: str | None = None
    """`source.kind` of their source; None for those of several sources."""
    videos: Annotated[int, Field(gt=0)]
    video_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Their length, as far as it is known: of parts of files, that of the parts."""
    analysis_s_per_video_s: _NotNegative
    """Seconds of one analyser for a second of video, all steps but those of `SCORING`."""
    scoring_s_per_video_s: _NotNegative
    """Seconds of `SCORING` for a second of video."""
    identities_per_video_h: _NotNegative
    staged_bytes_per_video: _NotNegative
    """Size of the file in the staging area."""
    video_s_per_byte: _NotNegative | None = None
    """Of videos that are whole files; None where all are parts."""


class Rates(Record):
    """The file."""

    device: Literal["cpu", "cuda"]
    settings: dict[str, Any]
    """All that shape the curation of a video."""
    dataset_bytes_per_identity: _NotNegative | None
    """Size of shards; None where no video gave an identity."""
    all: Rate
    sources: dict[str, Rate]

    def of(self, name: str, kind: str) -> tuple[Rate, bool]:
        """The rate of a source: its own, that of another source of its kind, or else that of all sources.

        Returns:
            The rate, and whether it is of the source's kind.
        """
        own = self.sources.get(name)
        if own is not None and own.kind == kind:
            return own, True
        alike = [rate for rate in self.sources.values() if rate.kind == kind]
        return (alike[0], True) if alike else (self.all, False)

    def differences(self, config: PlanConfig) -> list[str]:
        """The keys in which a build of `config` differs from the one that was measured, as `key: old -> new`."""
        curation = config.curation({}, {})
        settings = curation["settings"]
        if settings["tracking"]["merge_cosine"] is None:
            # A plan does not look up the embedder's; another embedder is a difference by itself.
            settings["tracking"]["merge_cosine"] = self.settings.get("tracking", {}).get("merge_cosine")
        device = {"run": {"device": self.device}}, {"run": {"device": curation["device"]}}
        return differences(self.settings, settings) + differences(*device)


def read_rates(path: AnyPath) -> Rates:
    """The rates in a file.

    Raises:
        BuildError: it cannot be read, or does not hold rates.
    """
    try:
        return Rates.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BuildError(f"cannot read the rates {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BuildError(
            f"{path} does not hold rates: {key + ': ' if key else ''}{first['msg']}. Give the {FILE} of a "
            "finished build"
        ) from error
