"""Representations: networks that encode images of a person into identity tokens."""
