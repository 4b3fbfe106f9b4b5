"""Which identity's tokens replace which identity's in the swap test: negative pairs."""

from __future__ import annotations

from collections.abc import Sequence


def mismatched(persons: Sequence[str]) -> list[int | None]:
    """For each identity another one of another person: the next one in the list, which wraps around.

    The choice depends on the list alone. While all persons differ, each identity is chosen once.

    Args:
        persons: the person of each identity; several identities may show the same one.

    Returns:
        Indices into the list; None where every identity shows the same person.
    """
    count = len(persons)
    return [
        next(
            (
                other % count
                for other in range(place + 1, place + count)
                if persons[other % count] != persons[place]
            ),
            None,
        )
        for place in range(count)
    ]
