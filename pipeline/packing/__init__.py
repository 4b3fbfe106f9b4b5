"""Packing: where each sample goes is arithmetic over columns; shards are written by tasks, in any order."""
