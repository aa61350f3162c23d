"""Job files of any content: each becomes a row or is refused with a reason, and the daemon lives on."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.faults.points import WHOLE
from tests.house import House, wait_for

FILES = 100_000 if WHOLE else 300
BATCH = 2_000

SEEDS = [
    b"",
    b"job=MASK_CRM\n",
    b"job=MASK_CRM\nenvironment=DEMO\npriority=70\ntimeout=30m\nretries=2\n",
    b"# a comment\r\njob = MASK_CRM\r\nengine=local\r\n",
    b"command=true\nparam.x=1\nparam.y=two words\n",
    b"job=MASK\nsource_connector=1\ntarget_connector=2\non_unknown=retry\non_warning=finish\non_caller_exit=keep\n",
    b"job=MASK\npid=1234\non_caller_exit=cancel\n",
]
SPICE = [
    b"\0", b"\n", b"=", b"==", b"\xff", b"\xc3\x28", "\u2028".encode(), "\u202e".encode(), b"\x1b[2J", b"'", b'"',
    b"$(id)", b"`id`", b"-1", b"1e309", b"9" * 5000, b"nan", b"0x10", "\u0661".encode(), b"job", b"job=", b"pid=0",
    b"pid=1", b"priority=101", b"timeout=1e-400", b"retries=99999999999999999999", b"param.=x", b"param..=x",
    b"../../etc/passwd", b"x" * 70_000, b"\r", b"\t", b" " * 300, b"\xef\xbb\xbf", b"%s%n", b"{param.x}",
    b"on_caller_exit=cancel\n", b"engine=,,,", b"engine=nowhere", "\ud800".encode("utf-8", "surrogatepass"), b"\x85",
    b"\x0b\x0c", b"job=a\njob=b\n",
]  # fmt: skip
NAMES = [
    b"N",
    b"N@x",
    b"N.a",
    b"_N",
    b"N+",
    b"-N",
    b"N n",
    b"N\n",
    b"\xffN",
    "Nü".encode(),
    b"N" * 190,
    b"N" * 205,
    b"N'$(id)",
]


def mutated(chance: random.Random) -> bytes:
    """Give a job file that was spoilt in a few places, or not at all."""
    content = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0:
                content[place:place] = chance.choice(SPICE)
            case 1:
                del content[place : place + chance.randrange(1, 9)]
            case 2 if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
            case 3:
                content[place:place] = chance.choice(SEEDS)
            case _:
                content[place:place] = chance.randbytes(chance.randrange(1, 9))
    return bytes(content)


def put(spool: Path, number: int, chance: random.Random) -> str:
    """Drop a mutated job file under a name of its own, as a touch-only caller would; the name."""
    name = chance.choice(NAMES) + b"%d" % number if chance.random() < 0.2 else b"J%d" % number
    draft = os.fsencode(spool / f".{number}")
    with open(draft, "wb") as file:
        file.write(mutated(chance))
    os.rename(draft, os.path.join(os.fsencode(spool), name + b".job"))
    return os.fsdecode(name)


def test_each_mutated_job_file_is_taken_or_refused_with_a_reason(house: House) -> None:
    house.add_engine("engine1", "http://127.0.0.1:9")  # only `watch` runs: nobody asks it
    program = house.start("watch")
    chance = random.Random("job files")
    queued = refused = 0
    for first in range(0, FILES, BATCH):
        names = [put(house.spool, number, chance) for number in range(first, min(first + BATCH, FILES))]
        wait_for(
            lambda: not list(house.spool.glob("*.job")), 120, lambda: f"left: {list(house.spool.glob('*.job'))[:5]}"
        )
        before = queued + refused
        wait_for(lambda: house.query("SELECT count(*) FROM QUEUE") == [(before + len(names),)], 60)  # noqa: B023
        wait_for(lambda: os.listdir(house.spool / ".orchestrator") == ["lock"], 60)
        counts = dict(house.query("SELECT status, count(*) FROM QUEUE WHERE id > ? GROUP BY status", before))
        assert set(counts) <= {"QUEUED", "REJECTED"}
        queued, refused = queued + counts.get("QUEUED", 0), refused + counts.get("REJECTED", 0)
        reasons = house.query("SELECT reason FROM QUEUE WHERE status = 'REJECTED' AND id > ?", before)
        assert all(reason for (reason,) in reasons)
        assert not [reason for (reason,) in reasons if "a fault of" in reason]
        kept = list((house.spool / "rejected").glob("*.job"))
        assert len(kept) == counts.get("REJECTED", 0)
        for file in kept:
            reason = file.with_suffix(".reason").read_text()
            assert reason.strip() and reason.isascii() and reason.count("\n") == 1
            file.unlink()
            file.with_suffix(".reason").unlink()
        assert program.poll() is None
        for light in os.scandir(house.spool):
            if light.name.endswith(".trafficlight"):
                os.unlink(light.path)
    log = house.log.read_text()
    assert "Traceback" not in log and "a fault of" not in log and " ERROR " not in log
    assert log.isascii() and all(line[:2] == "20" for line in log.splitlines())
    assert queued > FILES // 20 and refused > FILES // 20
    print(f"\n{FILES} mutated job files: {queued} taken, {refused} refused, each with its reason")


def test_a_job_file_whose_name_is_too_long_for_a_light_is_left_with_one_line(house: House) -> None:
    house.start("watch")
    name = "N" * 251  # .job fits, .trafficlight does not
    (house.spool / f"{name}.job").write_text("job=MASK\n")
    wait_for(lambda: "it stays" in house.log.read_text())
    house.drop("AFTER", "command=true")
    house.wait_for_status("AFTER", "QUEUED")
    assert (house.spool / f"{name}.job").exists()
    assert house.log.read_text().count("it stays") == 1
