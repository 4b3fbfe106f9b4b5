"""Lines of progress: what is done, the rate, and the time left."""

from __future__ import annotations

from training.progress import Progress


def test_progress_has_rate_and_time_left_and_ends_with_the_total() -> None:
    lines: list[str] = []
    times = iter([0.0, 1.0, 11.0, 12.0, 30.0])
    progress = Progress("generated", "images", 8, lines.append, clock=lambda: next(times))
    for count in (1, 4, 1, 2):
        progress.advance(count)
    assert lines == [
        "generated 5 of 8 images, 0.455/s, 7 s left",
        "generated 8 of 8 images, 0.267/s",
    ]
    assert progress.done == 8


def test_a_line_may_say_more_and_is_known_to_have_been_shown() -> None:
    lines: list[str] = []
    times = iter([0.0, 1.0, 11.0, 12.0])
    progress = Progress("trained", "steps", 10, lines.append, clock=lambda: next(times))
    losses = iter(["loss 3", "loss 2"])
    assert [progress.advance(count, also=lambda: next(losses)) for count in (1, 4, 5)] == [False, True, True]
    assert lines == [
        "trained 5 of 10 steps, loss 3, 0.455/s, 11 s left",
        "trained 10 of 10 steps, loss 2, 0.833/s",
    ]


def test_large_numbers_and_rates_are_written_out() -> None:
    lines: list[str] = []
    times = iter([0.0, 5.0, 40.0, 80.0, 90.0])
    progress = Progress("latents of", "identities", 100_000, lines.append, clock=lambda: next(times))
    for count in (10, 390, 400, 99_200):
        progress.advance(count)
    assert lines == [
        "latents of 400 of 100,000 identities, 10.0/s, 2 h 46 min left",
        "latents of 800 of 100,000 identities, 10.0/s, 2 h 45 min left",
        "latents of 100,000 of 100,000 identities, 1,111.1/s",
    ]


def test_before_anything_is_done_the_time_left_is_not_known() -> None:
    lines: list[str] = []
    times = iter([0.0, 20.0])
    Progress("latents of", "identities", 10, lines.append, clock=lambda: next(times)).advance(0)
    assert lines == ["latents of 0 of 10 identities, 0/s"]
