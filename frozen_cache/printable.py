"""Text from files, as a terminal may be given it."""

from __future__ import annotations

import unicodedata

HARMLESS = "\n\t"
TURNING = frozenset(["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"])
"""Unicode's classes of marks that turn the direction of writing: what follows looks like something else."""


def printable(text: str) -> str:
    """`text` with control characters, marks that turn the direction of writing, and halves of characters as escapes.

    A name in somebody's data set could otherwise clear the screen, write over a line, or end the program with an error
    of encoding.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(each) if _acts(each) else each for each in text)


def _acts(character: str) -> bool:
    return character not in HARMLESS and (
        unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in TURNING
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
