"""The error that ends a build, in words for the person who started it."""


class BuildError(RuntimeError):
    """The build cannot go on; the message says what is wrong and what to do."""
