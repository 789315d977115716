"""What Ctrl-C leaves behind, and the exact command that goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from frozen_cache.errors import StoppedError


@contextmanager
def says_how_to_go_on() -> Iterator[None]:
    """End a stopped stage with one line: what is safe, and the command that goes on with it."""
    command = f"go on with: {shlex.join(['frozen-cache', *sys.argv[1:]])}"
    try:
        yield
    except StoppedError as error:
        raise StoppedError(f"{error}; {command}") from None
    except KeyboardInterrupt:
        raise StoppedError(f"stopped at once; checkpoints are safe; {command}") from None
