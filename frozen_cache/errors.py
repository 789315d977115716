"""The errors that the library raises on purpose, and the exit code of each."""


class FrozenCacheError(Exception):
    """What went wrong, where, what to do, in one line. The command line prints it and exits with `exit_code`."""

    exit_code = 1


class UserError(FrozenCacheError):
    """Bad input: files, options, a cache or run that does not fit. Nothing has been harmed."""

    exit_code = 2


class NotFiniteError(FrozenCacheError):
    """A loss, gradient, weight or prediction is not finite; what was saved before stays as it was."""

    exit_code = 3


class StoppedError(FrozenCacheError):
    """Ctrl-C or SIGTERM. Says what is safe."""

    exit_code = 130


def one_line(error: Exception, *, most: int = 300) -> str:
    """What an error of someone else's says, in one line of at most so many characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]
