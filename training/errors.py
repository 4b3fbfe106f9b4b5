"""The errors that end a training run, in words for the person who started it."""


class TrainingError(RuntimeError):
    """The run cannot go on; the message says what is wrong and what to do."""


class BadSample(ValueError):  # noqa: N818 - names the thing, which the stream skips and counts
    """A sample that stays damaged however often it is read; the message names key, shard and what is wrong."""
