"""What it means that there was no memory, in one line."""

from __future__ import annotations

from frozen_cache.errors import one_line

TEXTS = ("out of memory", "can't allocate memory")
"""What PyTorch's RuntimeErrors say on devices and on CPUs."""


def explain_memory(error: Exception) -> str:
    """One line: what there was no room for, what to do; empty for an error that is about something else."""
    if not isinstance(error, MemoryError | RuntimeError):
        return ""
    said = one_line(error, most=160)
    if not isinstance(error, MemoryError) and not any(text in said.lower() for text in TEXTS):
        return ""
    return (
        f"memory is full ({said}): choose smaller batches, pictures or numbers, or fewer --workers; "
        "what is finished is safe"
    )
