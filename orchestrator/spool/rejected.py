"""Refused job files: kept whole in rejected/, with the reason beside them."""

from __future__ import annotations

import contextlib
import os
import time
from urllib.parse import quote_from_bytes

from orchestrator.job import JOB_SUFFIX, ascii_line
from orchestrator.spool.directory import WRITE_NEW, SpoolDirectory

_DRAFT = "reason"  # in the private folder, where no caller can lay a link in its way
_NAME_BYTES = 220  # of a file name's 255, so that ~, the time of keeping and the suffixes fit


def keep_rejected(spool: SpoolDirectory, folder: int, file: str, name: str, reason: str) -> None:
    """Move `file` of the open `folder` into rejected/ as NAME.job; an older one of that name moves aside.

    Nothing happens where the file is gone: it was kept before. The caller of this holds the spool's lock. What callers
    may have laid in rejected/ is replaced or moved, never written through.
    """
    kept = printable_name(name)
    with spool.rejected() as rejected:
        with contextlib.suppress(FileNotFoundError):
            os.stat(kept + JOB_SUFFIX, dir_fd=rejected, follow_symlinks=False)
            now = time.time_ns()
            for suffix in (JOB_SUFFIX, ".reason"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(kept + suffix, f"{kept}~{now}{suffix}", src_dir_fd=rejected, dst_dir_fd=rejected)
        _draft(spool, reason)
        # The reason first: whoever crashes between the two still has the file, and comes here again.
        try:
            os.rename(_DRAFT, kept + ".reason", src_dir_fd=spool.private, dst_dir_fd=rejected)
        except IsADirectoryError:
            os.rename(kept + ".reason", f"{kept}~{time.time_ns()}.reason", src_dir_fd=rejected, dst_dir_fd=rejected)
            os.rename(_DRAFT, kept + ".reason", src_dir_fd=spool.private, dst_dir_fd=rejected)
        with contextlib.suppress(FileNotFoundError):
            os.rename(file, kept + JOB_SUFFIX, src_dir_fd=folder, dst_dir_fd=rejected)


def _draft(spool: SpoolDirectory, reason: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_DRAFT, dir_fd=spool.private)  # half written by someone who crashed
    with open(os.open(_DRAFT, WRITE_NEW, 0o644, dir_fd=spool.private), "w", encoding="ascii") as out:
        os.fchmod(out.fileno(), 0o644)  # callers are to read it, whatever our umask is
        out.write(ascii_line(reason) + "\n")


def printable_name(name: str) -> str:
    """Give a file's name without anything that could hurt a terminal: other bytes as %XX."""
    return quote_from_bytes(os.fsencode(name), safe="@+ ~")[:_NAME_BYTES]
