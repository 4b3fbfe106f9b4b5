"""How the dataset was made: networks with their licenses, configuration, versions."""

from __future__ import annotations

import json
from dataclasses import dataclass

from faces.catalogue import MODELS
from shards.metadata import Provenance

ROLES = {
    "detector": "face detection",
    "landmarker": "landmarks and head pose",
    "embedder": "identity embedding",
    "quality": "image quality",
}
LIBRARY_LICENSES = {
    "insightface": "code: MIT; its networks: non-commercial research only",
    "pyiqa": "PolyForm Noncommercial 1.0.0 and NTU S-Lab License 1.0: non-commercial only",
}
"""Licenses of libraries that restrict the use of their results or networks."""
_RESTRICTING = ("noncommercial", "non-commercial")


@dataclass(frozen=True)
class Network:
    """A network that the dataset was made with."""

    name: str
    role: str
    sha256: str | None
    license: str

    @property
    def restricted(self) -> bool:
        """Whether commercial use is not allowed."""
        return any(word in self.license.lower() for word in _RESTRICTING)


def networks(provenance: Provenance) -> list[Network]:
    """The networks, by role, and metrics that need no weights."""
    roles = _roles(provenance)
    names = [*roles, *(name for name in sorted(provenance.models) if name not in roles)]
    return [
        Network(name, roles.get(name, ""), provenance.models.get(name), _license(name, provenance))
        for name in names
    ]


def libraries(provenance: Provenance) -> list[tuple[str, str, str]]:
    """Name, version and license note of each library."""
    return [
        (name, version, LIBRARY_LICENSES.get(name, ""))
        for name, version in sorted(provenance.libraries.items())
    ]


def configuration(provenance: Provenance) -> str:
    """The configuration as indented JSON text."""
    return json.dumps(provenance.config, indent=2, sort_keys=True, ensure_ascii=False)


def number(provenance: Provenance, section: str, key: str) -> float | None:
    """A number of the configuration, if it is there."""
    values = provenance.config.get(section)
    value = values.get(key) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _roles(provenance: Provenance) -> dict[str, str]:
    chosen = provenance.config.get("models")
    if not isinstance(chosen, dict):
        return {}
    return {str(chosen[key]): role for key, role in ROLES.items() if isinstance(chosen.get(key), str)}


def _license(name: str, provenance: Provenance) -> str:
    if name in MODELS:
        return MODELS[name].license
    if name in provenance.models:
        return "not in the catalogue: see where the file is from"
    return "no weights; computed by pyiqa: " + LIBRARY_LICENSES["pyiqa"]
