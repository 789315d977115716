"""How an extraction ended, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExtractSummary:
    """How an extraction ended."""

    out: Path
    images: int
    """Images that the cache is made of."""
    views: int
    """Views extracted by this run; 0 where nothing was left to do."""
    skipped_missing: int
    skipped_broken: int
    notes: tuple[str, ...]
    """What was done to images that are not of 8 bits, and why images may be missing."""
    segments_left: int
    """Segments that are still not committed: other processes' shares."""
    seconds: float

    def text(self) -> str:
        """What the command prints in the end."""
        lines = []
        if self.views:
            rate = self.views / max(self.seconds, 1e-9)
            lines.append(f"extracted {self.views} views in {self.seconds:.1f} s ({rate:.1f} img/s)")
        elif not self.segments_left:
            lines.append("nothing is left to do")
        if self.skipped_missing:
            lines.append(f"left out {self.skipped_missing} images that are not there")
        if self.skipped_broken:
            lines.append(f"left out {self.skipped_broken} broken images, named by `frozen-cache cache info {self.out}`")
        lines += self.notes
        if self.segments_left:
            lines.append(f"{self.segments_left} segments are still open: other processes' shares, or run it again")
        lines.append(f"cache: {self.out}")
        return "\n".join(lines)
