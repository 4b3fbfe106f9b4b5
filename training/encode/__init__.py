"""Encodes photos of a person into identity tokens."""
