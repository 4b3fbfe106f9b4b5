"""Names of the files in the output of `omniid evaluate`, which other programs read."""

from __future__ import annotations

RESULT_FILE = "evaluation.json"
"""Written last: where it is, the evaluation is complete."""
SETTINGS_FILE = "settings.json"
"""What the generated images depend on."""
PEOPLE_FILE = "people.jsonl"
IMAGES_FILE = "images.jsonl"
SUMMARY_FILE = "evaluation.md"
PAGE_FILE = "index.html"
SHEET_FILE = "comparison.png"
IMAGES_FOLDER = "images"
FORMAT_VERSION = "1.0"
"""Of `RESULT_FILE`."""
