"""`python -m benchmarks [NAME ...]`: all of them, which also writes BENCHMARKS.md, or those named."""

from __future__ import annotations

import sys
import time

from benchmarks import report
from benchmarks.callers import callers
from benchmarks.growth import growth
from benchmarks.idle import idle
from benchmarks.intake import intake
from benchmarks.latency import drop_to_post, drop_to_start, drop_to_start_among_lights, end_to_light
from benchmarks.machine import facts
from benchmarks.masking import masking_throughput, requests
from benchmarks.placing import placing
from benchmarks.starting import commands, daemons
from benchmarks.throughput import throughput

ALL = {
    each.__name__: each
    for each in (
        drop_to_start, drop_to_post, end_to_light, throughput, masking_throughput, requests, placing, intake,
        drop_to_start_among_lights, callers, idle, commands, daemons,
    )
}  # fmt: skip
BY_NAME_ONLY = {"growth": growth}


def main(names: list[str]) -> None:
    """Run benchmarks, and print each row as it comes."""
    unknown = [name for name in names if name not in ALL and name not in BY_NAME_ONLY]
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are: {', '.join([*ALL, *BY_NAME_ONLY])}")
    began = time.monotonic()
    rows = []
    for name in names or ALL:
        if name in BY_NAME_ONLY:
            BY_NAME_ONLY[name]()
            continue
        for row in ALL[name]():
            print(row.line(), flush=True)
            rows.append(row)
    if not names:
        report.write(rows, facts(), time.monotonic() - began)
        print(f"written to {report.FILE}")


main(sys.argv[1:])
