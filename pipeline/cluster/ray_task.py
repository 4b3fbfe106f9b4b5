"""What runs in a process of a Ray cluster for one task of packing or verifying."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.cluster.place import this_place
from pipeline.cluster.workers import LEAVE_S
from pipeline.time_limit import NoHeartbeat, while_beating


@dataclass(frozen=True)
class Failed:
    """What a task has raised: returned, because Ray would wrap it in stack traces.

    Attributes:
        error: raised by the task.
    """

    error: Exception


def execute(function: Callable[[Any], Any], item: Any, label: str, timeout_s: float) -> Iterator[Any]:
    """Run a task.

    Args:
        function: of the item.
        item: of the task.
        label: names it in messages.
        timeout_s: seconds without access to a file after which the task is given up.

    Yields:
        The `Place`, at once; then the result, or `Failed`.
    """
    yield this_place()
    try:
        result = while_beating(timeout_s, label, partial(function, item))
    except NoHeartbeat as error:
        yield Failed(error)
        # Nothing else ends its thread. The driver has the fault, and looks no more at this process.
        time.sleep(LEAVE_S)
        os._exit(1)
    except Exception as error:  # the driver raises it
        yield Failed(error)
    else:
        yield result
