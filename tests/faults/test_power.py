"""The host loses its power, or all programs are killed at once, at a moment of chance."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.faults.points import JOBS, WHOLE, Ground

ROUNDS = 40 if WHOLE else 3


class Disk:
    """A file system in a file. What was not synced to it is lost with the power."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = folder / "image"
        with self._image.open("wb") as image:
            image.truncate(48 * 2**20)
        _run("mkfs.ext4", "-q", str(self._image))
        self._mount()

    def lose_power(self, programs: list[subprocess.Popen[bytes]]) -> None:
        """Stop the programs for ever, and go back to what had reached the disk at that moment."""
        for program in programs:
            program.send_signal(signal.SIGSTOP)
        kept = self._image.with_name("kept")
        shutil.copyfile(self._image, kept)
        for program in programs:
            program.kill()
            program.wait()
        self.close()
        kept.rename(self._image)
        self._mount()

    def close(self) -> None:
        """Unmount; commands that still write end in a moment."""
        for _ in range(200):
            if subprocess.run(["umount", str(self.path)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.02)
        _run("umount", "--lazy", str(self.path))

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give a disk; only root can mount one, and only where the kernel has loop devices."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, mkfs.ext4 and loop devices")
    try:
        made = Disk(tmp_path)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no file system can be mounted: {exc.stderr!r}")
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.close()


def test_after_a_loss_of_power_every_job_ends_and_is_started_once(disk: Disk, engine: Simulator) -> None:
    chance = random.Random("power")
    for round_ in range(ROUNDS):
        ground = Ground(disk.path / f"house{round_}", engine, "watch", "schedule")
        try:
            for kind in ("succeeds", "fails", "leaks"):
                name = ground.drop(kind)
                os.sync()  # the caller's own files are the caller's to sync
                time.sleep(chance.uniform(0.0, 0.15))
                disk.lose_power(list(ground.running.values()))
                ground.mend()
                ground.check(name, kind)
            ground.check_all()
        finally:
            ground.close()


def test_after_all_programs_were_killed_at_once_every_job_ends_and_is_started_once(
    tmp_path: Path, engine: Simulator
) -> None:
    chance = random.Random("killed")
    ground = Ground(tmp_path / "house", engine, "watch", "schedule")
    try:
        for _ in range(ROUNDS):
            for kind in JOBS:
                if kind == "cancelled":
                    continue
                name = ground.drop(kind)
                time.sleep(chance.uniform(0.0, 0.1))
                for program in ground.running.values():
                    program.kill()
                for program in ground.running.values():
                    program.wait()
                ground.mend()
                ground.check(name, kind)
        ground.check_all()
    finally:
        ground.close()
