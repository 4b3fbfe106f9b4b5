"""Photographs of a person in, new images of that person out."""
