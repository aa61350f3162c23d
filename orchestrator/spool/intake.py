"""Step intake: job files become rows of QUEUE, cancel files end them.

It acts on what it finds in the directory, never on what an event said. Run it again after any crash: it goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from orchestrator.errors import JobRefused
from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX, LIGHT_SUFFIX, JobRequest, is_name, parse_job_file
from orchestrator.process import identify_caller
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.claim import (
    SETTLED,
    Claim,
    StillWritten,
    claim,
    claimed_names,
    claims_left_over,
    forget,
    give_back,
)
from orchestrator.spool.directory import REJECTED, SpoolDirectory
from orchestrator.spool.filesystem import is_shared
from orchestrator.spool.light import refusal, write_light
from orchestrator.spool.policy import allowed_engines, check_command
from orchestrator.spool.rejected import keep_rejected, printable_name
from orchestrator.state import JobStatus
from orchestrator.store.database import StoreBusy
from orchestrator.store.taking import Arrival, Taken, active_job, ask_end, take

log = logging.getLogger(__name__)

BATCH = 200  # job files that share one transaction
RETRY = 5.0  # seconds until a file that could not be taken, or put away, is tried again


class IntakeDelayed(Exception):  # noqa: N818 - not an error: what is there stays there
    """Nothing can be taken now; what is in the spool stays there and is tried again."""


class Intake:
    """Takes what lies in one spool directory."""

    def __init__(self, settings: Settings, spool: SpoolSettings, host: str) -> None:
        self._settings = settings
        self._spool = spool
        self._host = host
        self._shared = is_shared(spool.path)
        self._too_long: set[str] = set()
        self.look_again: float | None = None  # seconds after which what the last look left is to be looked at again
        self.left: list[str] = []  # files that the last turn was too short for
        self._told: set[tuple[str, str]] = set()  # what could not be taken, and why

    def take_all(self, turn: float | None = None) -> int:
        """Take whatever is there, also what a crashed intake left; how many job files became rows.

        After `turn` seconds the rest is `left`: a later look lets those go before it who came meanwhile and asked for
        less. Raises IntakeDelayed, or SpoolGone.
        """
        self.look_again = None
        with SpoolDirectory(self._spool.path) as spool:
            self._shared = is_shared(self._spool.path)
            with spool.locked():
                left_over = claims_left_over(spool, shared=self._shared)
                self._record(spool, left_over)
            return len(left_over) + self._take(spool, _rounds(spool, _files(spool)), certain=False, turn=turn)

    def take_files(self, files: Collection[str], *, certain: bool, turn: float | None = None) -> int:
        """Take those of the named files that are there; `certain` where the kernel told that each is whole.

        Few in their order, many by turns; otherwise as `take_all`.
        """
        with SpoolDirectory(self._spool.path) as spool:
            rounds = [list(files)] if len(files) <= BATCH else _rounds(spool, files)
            return self._take(spool, rounds, certain=certain, turn=turn)

    def _take(
        self, spool: SpoolDirectory, rounds: Sequence[Sequence[str]], *, certain: bool, turn: float | None
    ) -> int:
        deadline = None if turn is None else time.monotonic() + turn
        self.left = []
        taken = 0
        for number, files in enumerate(rounds):
            # The first round is always gone through: else the oldest files of a flood would be all that is ever taken.
            if number and deadline is not None and time.monotonic() > deadline:
                self.left += files
                continue
            for batch in _batches(files, JOB_SUFFIX):
                with spool.locked():
                    taken += self._record(spool, self._claims(spool, batch, certain=certain))
            for batch in _batches(files, CANCEL_SUFFIX):
                with spool.locked():  # else a job that another intake is taking would not be seen
                    self._cancel_all(spool, batch)
        return taken

    def _cancel_all(self, spool: SpoolDirectory, names: Iterable[str]) -> None:
        claimed = claimed_names(spool)
        for name in names:
            try:
                self._cancel(spool, name, claimed)
            except OSError as exc:  # one that cannot be removed must not keep the others waiting
                file = printable_name(name + CANCEL_SUFFIX)
                log.error("%s in spool %s: %s: remove it", file, self._spool.name, exc.strerror)

    def _claims(self, spool: SpoolDirectory, names: Iterable[str], *, certain: bool) -> list[Claim]:
        claims = []
        for name in names:
            try:
                if not is_name(name):
                    self._refuse_name(spool, name)
                elif claimed := claim(spool, name, certain=certain, shared=self._shared):
                    claims.append(claimed)
            except StillWritten:
                self._look_again(SETTLED)
            except OSError as exc:  # one file that cannot be taken (a full disk, a fault) keeps no other waiting
                self._leave(name, f"cannot be taken now: {exc}")
            except StoreBusy as exc:
                raise _delayed(spool, claims, exc) from exc
            except Exception as exc:  # noqa: BLE001 - nor must a fault of ours that one file brings out
                self._leave(name, f"brings out a fault of this program: {exc!r}")
        return claims

    def _leave(self, name: str, why: str) -> None:
        """Leave a job file where it is, for another look; the log is told once."""
        self._look_again(RETRY)
        if (name, why) not in self._told:
            self._told.add((name, why))
            log.error(
                "%s.job in spool %s %s: it stays, and is tried again", printable_name(name), self._spool.name, why
            )

    def _look_again(self, seconds: float) -> None:
        self.look_again = seconds if self.look_again is None else min(seconds, self.look_again)

    def _record(self, spool: SpoolDirectory, claims: Collection[Claim]) -> int:
        if not claims:
            return 0
        try:
            spool.sync()
            outcomes = take([self._arrival(claimed, owners_apart=spool.sticky) for claimed in claims])
        except (StoreBusy, OSError) as exc:
            raise _delayed(spool, claims, exc) from exc
        for claimed, (outcome, why) in zip(claims, outcomes, strict=True):
            try:
                if outcome is Taken.REFUSED:
                    log.warning("%s.job in spool %s was refused: %s", claimed.name, self._spool.name, why)
                    keep_rejected(spool, spool.private, claimed.file, claimed.name, why or "")
                else:
                    forget(spool, claimed)
            except OSError as exc:  # the next look through the spool finds the claim, and tries again
                log.error("%s.job in spool %s cannot be put away now: %s", claimed.name, self._spool.name, exc)
                self._look_again(RETRY)
        return len(claims)

    def _arrival(self, claimed: Claim, *, owners_apart: bool) -> Arrival:
        request, refused, caller = None, claimed.refused, None
        engines: tuple[str, ...] = ()
        shell = False
        if refused is None:
            try:
                request = parse_job_file(claimed.content or b"", claimed.name)
                engines = allowed_engines(self._settings, self._spool, request)
                shell = check_command(self._settings, self._spool, request, claimed.owner, claimed.mode)
                if self._shared and request.on_caller_exit == "cancel":
                    raise JobRefused("on_caller_exit=cancel: other hosts write to this spool: no pid proves a caller")
                caller = None if self._shared else _caller(request, claimed)
            except JobRefused as exc:
                refused = str(exc)
            except OSError:
                raise
            except Exception as exc:  # noqa: BLE001 - one file must not keep the others waiting for ever
                refused = f"a fault of the orchestrator, not of the job file: {exc!r}"
        return Arrival(
            host=self._host,
            spool=self._spool.name,
            name=claimed.name,
            claim=claimed.token,
            request=request,
            refused=refused,
            owner=claimed.owner,
            owners_apart=owners_apart,
            max_waiting=self._spool.max_waiting,
            caller=caller,
            light=claimed.light,
            light_is_new=claimed.light_is_new,
            engines=engines,
            priority=self._spool.priority if request is None or request.priority is None else request.priority,
            timeout=self._spool.timeout if request is None or request.timeout is None else request.timeout,
            shell=shell,
        )

    def _refuse_name(self, spool: SpoolDirectory, name: str) -> None:
        """Refuse a file whose very name breaks the protocol; its light is written at once, before it goes."""
        reason = "the name is not 1 to 200 of A-Za-z0-9._@+- that begin with a letter, a digit or _"
        file = name + JOB_SUFFIX
        if len(os.fsencode(name + LIGHT_SUFFIX)) > 255:
            if name not in self._too_long:  # no light of that name can be: taking it away would look like green
                self._too_long.add(name)
                log.error("%s... in spool %s: %s: it stays", printable_name(name)[:40], self._spool.name, reason)
            return
        try:
            found = os.stat(file, dir_fd=spool.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        try:
            write_light(spool, name + LIGHT_SUFFIX, "refused", refusal(reason), found.st_uid)
        except IsADirectoryError:
            log.error("%s%s is a directory: remove it", printable_name(name), LIGHT_SUFFIX)
            return
        take(
            [
                Arrival(
                    host=self._host,
                    spool=self._spool.name,
                    name=printable_name(name),
                    claim=f"{found.st_dev}:{found.st_ino}:{found.st_ctime_ns}",
                    request=None,
                    refused=reason,
                    owner=found.st_uid,
                )
            ]
        )
        keep_rejected(spool, spool.fd, file, name, reason)
        log.warning("%s.job in spool %s was refused: %s", printable_name(name), self._spool.name, reason)

    def _cancel(self, spool: SpoolDirectory, name: str, claimed: Collection[str]) -> None:
        file = name + CANCEL_SUFFIX
        try:
            asked = os.stat(file, dir_fd=spool.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        try:
            job = active_job(self._host, self._spool.name, name) if is_name(name) else None
            if job is None:
                if name in claimed or _exists(spool, name + JOB_SUFFIX):
                    return  # its job file is not a row yet: the next look finds both
                log.warning("%s.cancel in spool %s: no such job waits or runs", printable_name(name), self._spool.name)
            elif asked.st_nlink > 1 and not stat.S_ISDIR(asked.st_mode):
                # Who linked it is not known: a link to any file of the job's owner would speak for the owner.
                log.warning(
                    "%s.cancel in spool %s: a hard link to a file of uid %d cancels nothing",
                    name, self._spool.name, asked.st_uid,
                )  # fmt: skip
            elif asked.st_uid not in (job.owner, 0, os.geteuid()):
                log.warning(
                    "%s.cancel in spool %s: uid %d may not cancel a job of uid %s",
                    name, self._spool.name, asked.st_uid, job.owner,
                )  # fmt: skip
            elif ask_end(job.id, JobStatus.CANCELLED, f"cancelled by {name}.cancel"):
                log.info("job %d (%s) is to be cancelled: %s.cancel", job.id, name, name)
        except StoreBusy as exc:
            raise IntakeDelayed(f"the database cannot take a cancel file now: {exc}") from exc
        if stat.S_ISDIR(asked.st_mode):
            os.rename(file, f"{asked.st_ino}.cancelled", src_dir_fd=spool.fd, dst_dir_fd=spool.private)
        else:
            os.unlink(file, dir_fd=spool.fd)


def _files(spool: SpoolDirectory) -> list[str]:
    with os.scandir(spool.fd) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.name != REJECTED]


def _rounds(spool: SpoolDirectory, files: Iterable[str]) -> list[list[str]]:
    """Put requests into the order in which they are taken: oldest first, at most BATCH of each owner in a round.

    Who drops thousands of files keeps another waiting for a few hundred of them. Age is the time of the last change of
    the inode, as a rename makes it: nobody can set that one back.
    """
    own: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for file in files:
        if file.endswith((JOB_SUFFIX, CANCEL_SUFFIX)):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(file, dir_fd=spool.fd, follow_symlinks=False)
                own[status.st_uid].append((status.st_ctime_ns, file))
    rounds: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for of_one in own.values():
        for number, each in enumerate(sorted(of_one)):
            rounds[number // BATCH].append(each)
    return [[file for _, file in sorted(rounds[number])] for number in sorted(rounds)]


def _batches(files: Iterable[str], suffix: str) -> list[list[str]]:
    """Give the NAMEs of the files of one kind, as many at once as share a transaction."""
    names = [file.removesuffix(suffix) for file in files if file.endswith(suffix)]
    return [names[start : start + BATCH] for start in range(0, len(names), BATCH)]


def _delayed(spool: SpoolDirectory, claims: Iterable[Claim], why: Exception) -> IntakeDelayed:
    for claimed in claims:
        give_back(spool, claimed)
    return IntakeDelayed(f"the database cannot take jobs now: {why}")


def _caller(request: JobRequest, claimed: Claim) -> str | None:
    if request.pid is None:
        return None
    caller = identify_caller(request.pid, claimed.owner, claimed.written_at)
    return None if caller is None else str(caller)


def _exists(spool: SpoolDirectory, file: str) -> bool:
    try:
        os.stat(file, dir_fd=spool.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
