"""Refused job files: kept whole in rejected/, with the reason beside them."""

from __future__ import annotations

import contextlib
import os
import time
from urllib.parse import quote_from_bytes

from orchestrator.job import JOB_SUFFIX, ascii_line
from orchestrator.spool.directory import SpoolDirectory

_NAME_BYTES = 220  # of a file name's 255, so that ~, the time of keeping and the suffixes fit


def keep_rejected(spool: SpoolDirectory, folder: int, file: str, name: str, reason: str) -> None:
    """Move `file` of the open `folder` into rejected/ as NAME.job; an older one of that name moves aside.

    Nothing happens where the file is gone: it was kept before.
    """
    kept = printable_name(name)
    with spool.rejected() as rejected:
        with contextlib.suppress(FileNotFoundError):
            os.stat(kept + JOB_SUFFIX, dir_fd=rejected, follow_symlinks=False)
            now = time.time_ns()
            for suffix in (JOB_SUFFIX, ".reason"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(kept + suffix, f"{kept}~{now}{suffix}", src_dir_fd=rejected, dst_dir_fd=rejected)
        fd = os.open(".reason", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644, dir_fd=rejected)
        with open(fd, "w", encoding="ascii") as out:
            out.write(ascii_line(reason) + "\n")
        # The reason first: whoever crashes between the two still has the file, and comes here again.
        os.rename(".reason", kept + ".reason", src_dir_fd=rejected, dst_dir_fd=rejected)
        with contextlib.suppress(FileNotFoundError):
            os.rename(file, kept + JOB_SUFFIX, src_dir_fd=folder, dst_dir_fd=rejected)


def printable_name(name: str) -> str:
    """Give a file's name without anything that could hurt a terminal: other bytes as %XX."""
    return quote_from_bytes(os.fsencode(name), safe="@+ ~")[:_NAME_BYTES]
