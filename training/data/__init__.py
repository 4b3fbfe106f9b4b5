"""Streams the shards: which identity when, from disk or object storage, as uint8 batches."""
