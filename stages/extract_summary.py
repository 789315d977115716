"""How an extraction ended, in words."""

from __future__ import annotations

from dataclasses import dataclass

from frozen_cache.remote import CachePath


@dataclass(frozen=True)
class ExtractSummary:
    """How an extraction ended."""

    out: CachePath
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
    plan: str = ""
    """The table that was printed first."""
    gauge: tuple[str, ...] = ()
    """What the finished cache says about its ground truth."""
    dry: bool = False
    """Nothing was to be written."""

    @classmethod
    def of_plan(cls, out: CachePath, plan: str, *, images: int) -> ExtractSummary:
        """Of a run that only says what it would do."""
        return cls(
            out=out,
            images=images,
            views=0,
            skipped_missing=0,
            skipped_broken=0,
            notes=(),
            segments_left=0,
            seconds=0.0,
            plan=plan,
            dry=True,
        )

    def text(self) -> str:
        """What the command prints in the end."""
        if self.dry:
            return f"{self.plan}\nnothing was written (--dry-run)"
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
        lines += self.gauge
        if self.segments_left:
            lines.append(f"{self.segments_left} segments are still open: other processes' shares, or run it again")
        lines.append(f"cache: {self.out}")
        return "\n".join(lines)
