"""The errors that end a build; their messages are for the user who started it."""


class BuildError(RuntimeError):
    """The build cannot go on; the message states the error and the remedy."""


class MachineFault(RuntimeError):  # noqa: N818 - named after its cause: the machine, not a video
    """The machine failed, not a video: the build ends, and no video gets a failed row."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the build to stop, as `ray job stop`, Slurm and Kubernetes do; handled like Ctrl-C."""
