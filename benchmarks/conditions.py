"""What a benchmark's result depends on beside the code that it names: machine, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def conditions(device: torch.device | None = None) -> dict[str, Any]:
    """The machine as it is now, and the commit of the checkout; `device` in place of the CPU."""
    cuda = device is not None and device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "commit": commit(),
    }


def processor() -> str:
    """The CPU's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit(checkout: Path = ROOT) -> str:
    """The commit that is checked out, `+` behind it where files have changed since."""
    told = subprocess.run(
        ("git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"),
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()
