"""Which of how many processes this one is, as launchers such as torchrun say it in the environment."""

from __future__ import annotations

import os
import sys
from typing import Any

from frozen_cache.errors import UserError


def process_share(*, without_launcher: str = "") -> tuple[int, int]:
    """(RANK, WORLD_SIZE); (0, 1) without a launcher.

    Args:
        without_launcher: another way to say the same, for the error.

    Raises:
        UserError: the variables are no numbers, do not fit each other, or nothing has launched the other processes,
            which this one would wait for in vain.
    """
    world, rank = _number("WORLD_SIZE", default=1), _number("RANK", default=0)
    if world < 1 or not 0 <= rank < world:
        raise UserError(f"RANK={rank} and WORLD_SIZE={world} in the environment do not fit each other: {_WAY_ON}")
    if world > 1 and not os.environ.get("MASTER_ADDR"):
        raise UserError(
            f"WORLD_SIZE={world} is set in the environment, but no launcher started this process (MASTER_ADDR is not "
            f"set): {_WAY_ON}{f', {without_launcher}' if without_launcher else ''}"
        )
    return rank, world


def leave_processes() -> None:
    """Close torch's process group where there is one: its threads can abort a program that ends with it open.

    Nothing is imported: where Ctrl-C broke off the import of torch, parts of it are there, which cannot come again.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    initialized = getattr(distributed, "is_initialized", None)  # not where torch is built without it
    if initialized is not None and initialized():
        distributed.destroy_process_group()


_WAY_ON = "unset RANK and WORLD_SIZE, or start with `torchrun --nproc-per-node N -m frozen_cache ...`"


def _number(name: str, *, default: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}={text!r} in the environment is not a number: {_WAY_ON}") from None
