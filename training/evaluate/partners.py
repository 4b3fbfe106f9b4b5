"""Whose identity tokens stand in for whose in the swap test."""

from __future__ import annotations

from collections.abc import Sequence


def partners(persons: Sequence[str]) -> list[int | None]:
    """For each identity another one of another person: the next one in the list, which goes round in a circle.

    So the choice depends on nothing but the list, and while all persons differ each identity is chosen once.

    Args:
        persons: the person of each identity; several identities may show the same one.

    Returns:
        Places in the list; None where every identity shows the same person.
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
