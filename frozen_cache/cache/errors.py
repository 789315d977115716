"""What can be wrong with a cache."""

from frozen_cache.errors import UserError


class DamagedCacheError(UserError):
    """Stored data is not what was committed; names the segment and, when one was being read, the image."""

    def __init__(self, message: str, what: str | None = None) -> None:
        super().__init__(message)
        self.what = what or message
        """The damage alone, without segment, image and advice."""


class IncompleteCacheError(UserError):
    """Not every segment has been committed yet."""
