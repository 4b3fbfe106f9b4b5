"""The self-contained HTML report over a finished dataset."""
