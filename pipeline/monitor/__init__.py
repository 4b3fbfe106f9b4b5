"""Watching a build: progress, its state for `mfhq status`, logs and metrics. No dataset depends on any of it."""
