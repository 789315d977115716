"""What can be wrong with a cache."""

from frozen_cache.errors import UserError


class DamagedCacheError(UserError):
    """Stored data is not what was committed; names the segment and, when one was being read, the image."""


class IncompleteCacheError(UserError):
    """Not every segment has been committed yet."""
