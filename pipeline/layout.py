"""Names below the output of a build that belong to no dataset; shards/layout.py has those that do."""

from __future__ import annotations

PHOTOGRAPHS = "photographs.tsv"
"""In the directory of the report of a dataset of photographs: the outcome of each."""
STAGING = ".staging"
"""Holds what a build keeps: finished videos, its lock, its state."""
