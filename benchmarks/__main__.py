"""`python -m benchmarks [NAME ...]`: all, or those named."""

from __future__ import annotations

import sys

from benchmarks.idle import idle
from benchmarks.latency import drop_to_start, end_to_light
from benchmarks.throughput import throughput

ALL = {each.__name__: each for each in (drop_to_start, end_to_light, throughput, idle)}

for name in sys.argv[1:] or ALL:
    ALL[name]()
