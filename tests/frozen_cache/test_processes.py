"""Leaving a group of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torch import distributed

from frozen_cache.processes import leave_processes


def test_an_open_process_group_is_closed_and_none_is_no_error(tmp_path: Path) -> None:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    leave_processes()
    assert not distributed.is_initialized()
    leave_processes()


def test_it_needs_no_torch() -> None:
    script = "import sys\nfrom frozen_cache.processes import leave_processes\nleave_processes()\n"
    subprocess.run([sys.executable, "-c", f"{script}assert 'torch' not in sys.modules"], check=True)


def test_an_import_of_torch_that_was_broken_off_is_left_alone() -> None:
    """Ctrl-C in these seconds leaves parts of torch; what imports them again fails."""
    script = (
        "import sys, types\nfrom frozen_cache.processes import leave_processes\n"
        "part = sys.modules['torch.distributed'] = types.ModuleType('torch.distributed')\nleave_processes()\n"
        "assert 'torch' not in sys.modules\nsys.modules['torch'] = types.ModuleType('torch')\nleave_processes()\n"
        "part.is_available = lambda: True\nleave_processes()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
