"""Decoders: networks that are trained to make images of a person from identity tokens."""
