"""Which file systems other hosts write to: there the kernel here tells neither of files nor of their writers."""

from __future__ import annotations

import os
from pathlib import Path

# Written to by other hosts, or by the host outside a container.
_SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.glusterfs", "gfs2",
     "lustre", "afs", "beegfs", "virtiofs", "fuse.grpcfuse", "vboxsf", "prl_fs", "fuse.portal", "ocfs2", "gpfs"}
)  # fmt: skip


def is_shared(path: Path) -> bool:
    """Tell whether `path` is on a file system that others write to past this kernel; False where it is not there."""
    try:
        return file_system_of(path) in _SHARED
    except OSError:
        return False


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Name the type of the file system that holds `path` (proc(5), mountinfo); empty where nothing tells."""
    status = os.stat(path)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    real = os.path.realpath(path)
    best, found = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        mount = fields[4].replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best) and (fields[2] == device or not best):
            best, found = mount, fields[fields.index("-") + 1]
    return found
