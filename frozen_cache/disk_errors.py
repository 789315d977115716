"""What the system's own errors mean for whoever sees them: what, where, what to do, in one line."""

from __future__ import annotations

import errno
import os

AGAIN = "what is finished is safe, and the same command goes on from there"
ADVICE = {
    errno.ENOSPC: f"the disk is full: make room; {AGAIN}",
    errno.EDQUOT: f"your quota is used up: make room or ask for more; {AGAIN}",
    errno.EFBIG: "the file system (or `ulimit -f`) takes no file of this size: write to another disk",
    errno.EROFS: "this file system is read-only: give a path that can be written",
    errno.EACCES: "permission is missing: change it, or give another path; nothing there is damaged for that",
    errno.EPERM: "this is not permitted here: check owner and mount options, or give another path",
    errno.ENOLCK: "this file system has no locks to give: mount it with locks, or write to another disk",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files: close something, and run it again",
    errno.ESTALE: f"the file server has changed under us: wait until it is back; {AGAIN}",
    errno.EIO: f"the disk or the network failed: check it; {AGAIN}",
}


def explain(error: OSError) -> str:
    """One line: what happened, where, what to do."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    if error.errno not in ADVICE:
        return str(error)
    return f"{where}{error.strerror or os.strerror(error.errno)}; {ADVICE[error.errno]}"
