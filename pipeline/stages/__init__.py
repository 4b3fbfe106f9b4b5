"""One file per step of the curation, each a pure function or a small class with a loaded model."""
