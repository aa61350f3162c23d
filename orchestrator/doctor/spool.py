"""A spool directory: who may do what there, and on which file system it is."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, account, fail, listed, ok, shell, user, warn
from orchestrator.job import JOB_SUFFIX
from orchestrator.settings import SpoolSettings
from orchestrator.spool.directory import PRIVATE, REJECTED
from orchestrator.spool.filesystem import file_system_of, is_shared


def check_spool(spool: SpoolSettings, serving: int | None) -> Iterator[Finding]:
    """See to the modes and the file system of a spool; `serving` is the uid that the programs run as."""
    subject, path = f"spool {spool.name}", spool.path
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield fail(subject, f"{path}: there is none", f"mount it, or make it: install -d -m 2770 {shell(path)}")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield fail(subject, f"{path}: is no directory", "remove it, or change the key `path`")
        return
    bad = [*_directory(subject, path, status, serving), *_folders(subject, path, status, serving)]
    bad += _unreadable(subject, path, status.st_uid if serving is None else serving)
    bad += _own_umask(subject, status, serving)
    bad += _file_system(subject, spool)
    yield from bad
    if not bad:
        mode = f"mode {stat.S_IMODE(status.st_mode):04o} of {user(status.st_uid)}"
        yield ok(subject, f"{path}: {mode}, {file_system_of(path) or 'unknown file system'}")


def _directory(subject: str, path: Path, status: os.stat_result, serving: int | None) -> Iterator[Finding]:
    mode, owner = status.st_mode, user(status.st_uid)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        found = f"{path}: everybody may remove a light, and so make any caller green (mode {stat.S_IMODE(mode):04o})"
        yield fail(subject, found, f"chmod o-w {shell(path)}, or chmod +t {shell(path)}")
    elif not mode & (stat.S_IWGRP | stat.S_IWOTH):
        found = f"{path}: nobody but {owner} can submit a job (mode {stat.S_IMODE(mode):04o})"
        yield warn(subject, found, f"chmod 2770 {shell(path)}, unless that is meant")
    if mode & stat.S_IWGRP and not mode & stat.S_ISGID and serving != 0:
        found = f"{path}: job files have their callers' own group, which {owner} may not be in"
        yield warn(subject, found, f"chmod g+s {shell(path)}")
    if serving is not None and serving not in (status.st_uid, 0):
        found = f"{path}: belongs to {owner}, and the programs run as {user(serving)}"
        yield warn(subject, found, f"chown {account(serving)} {shell(path)}")


def _folders(subject: str, path: Path, status: os.stat_result, serving: int | None) -> Iterator[Finding]:
    owner = status.st_uid if serving is None else serving
    for name, must_be_ours in ((PRIVATE, True), (REJECTED, False)):
        folder = path / name
        try:
            found = os.lstat(folder)
        except FileNotFoundError:  # it is made when it is needed
            continue
        if not stat.S_ISDIR(found.st_mode):
            yield fail(subject, f"{folder}: is no directory of its own", "remove it: the programs make it anew")
        elif must_be_ours and (found.st_mode & 0o022 or (serving is not None and found.st_uid != owner)):
            whose = f"belongs to {user(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):03o}"
            advice = f"stop the programs, chown -R {account(owner)} {shell(folder)}, chmod 700 {shell(folder)}"
            yield fail(subject, f"{folder}: {whose}: it must be {user(owner)}'s alone, or nothing is taken", advice)


def _unreadable(subject: str, path: Path, reader: int) -> Iterator[Finding]:
    """Find job files that the programs cannot read: their callers' umask is too strict."""
    if reader == 0:
        return
    groups = _groups(reader)
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith(JOB_SUFFIX) and not entry.name.startswith(".") and entry.is_file():
                status = entry.stat(follow_symlinks=False)
                by_group = status.st_mode & stat.S_IRGRP and status.st_gid in groups
                if status.st_uid != reader and not by_group and not status.st_mode & stat.S_IROTH:
                    found.append(entry.name)
    if found:
        told = f"{user(reader)} cannot read {listed(sorted(found))}: they will be REJECTED"
        yield warn(subject, told, "umask 027 in the scripts that write them")


def _own_umask(subject: str, status: os.stat_result, serving: int | None) -> Iterator[Finding]:
    """Tell whoever runs this as a caller what would become of their own job files."""
    reader = status.st_uid if serving is None else serving
    umask = _umask()
    if os.geteuid() == reader or reader == 0 or umask is None or umask & 0o044 != 0o044:
        return
    found = f"umask {umask:03o}: {user(reader)} cannot read a job file that is dropped from here"
    yield warn(subject, found, "umask 027")


def _umask() -> int | None:
    # os.umask tells it only by changing it.
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return None


def _groups(uid: int) -> set[int]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return set()
    return set(os.getgrouplist(entry.pw_name, entry.pw_gid))


def _file_system(subject: str, spool: SpoolSettings) -> Iterator[Finding]:
    if not is_shared(spool.path):
        return
    kind = file_system_of(spool.path)
    if spool.observer == "inotify":
        found = f"{spool.path}: is on {kind}, where inotify does not see what other hosts drop"
        yield fail(subject, found, 'observer = "auto"')
    else:
        found = f"{spool.path}: is on {kind}, which other hosts write to: it is polled, and no caller is signalled"
        yield warn(subject, found, "put the spool on a local disk")
