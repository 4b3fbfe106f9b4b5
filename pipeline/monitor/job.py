"""Whether this process is the driver of a job that was submitted to a Ray cluster."""

from __future__ import annotations

import json
import os

CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable for drivers of jobs."""


def submission_id() -> str:
    """The id by which `ray job logs` and `ray job stop` know this job; empty where it is none."""
    try:
        return str(json.loads(os.environ.get(CONFIG, "{}"))["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return ""
