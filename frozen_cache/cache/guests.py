"""Files that systems leave in any folder: they are no part of a cache, and no damage to it."""

from __future__ import annotations

import re

_GUESTS = re.compile(
    r"\.nfs[0-9a-fA-F]+|\.fuse_hidden[0-9a-fA-F]+|\.DS_Store|\._.*|\.Trash.*|\.directory|\.snapshot|\.AppleDouble|@eaDir"
    r"|[Tt]humbs\.db(:.*)?|desktop\.ini|lost\+found|\.gitignore|\.gitattributes|.*~"
)


def is_guest(name: str) -> bool:
    """Whether a file or folder of this name is of the system's making."""
    return _GUESTS.fullmatch(name) is not None
