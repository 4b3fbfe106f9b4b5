"""Keeps Python's garbage collector off objects that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_heap() -> Iterator[None]:
    """No object that exists now is searched for garbage while the block runs.

    A record is thousands of coordinates, each pair an object. For them alone the collector would walk, again and
    again, over everything that imported libraries hold.
    """
    frozen_before = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:
            gc.unfreeze()
