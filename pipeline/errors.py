"""The errors that end a build; their messages are for the user who started it."""


class BuildError(RuntimeError):
    """The build cannot go on; the message says what is wrong and what to do."""


class MachineFault(RuntimeError):  # noqa: N818 - named after whose fault it is: no video's
    """Something broke that is no video's fault: it ends the build, and no video is blamed for it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the build to stop, as `ray job stop`, Slurm and Kubernetes do; handled as Ctrl-C is."""
