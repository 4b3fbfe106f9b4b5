"""Generates images of a person from photographs."""
