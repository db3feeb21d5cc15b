"""What the benchmarks share: a process of its own for each contestant, and a plain table."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Of what the system counts a process's memory in.
_IN_A_MB = 1024 if sys.platform == "linux" else 2**20


def child(script: str, *arguments: str, python: str = sys.executable) -> dict[str, float]:
    """Run ``script arguments`` in a process of its own; add seconds and its peak memory.

    The child prints one JSON object as its last line, or none at all.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [python, script, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    wall = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed")
    last = (done.stdout.strip().splitlines() or ["{}"])[-1]
    return {"wall": wall, **(json.loads(last) if last.startswith("{") else {})}


def peak_of_programs() -> float:
    """Return the most memory that any program which this process has run ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _IN_A_MB


def report(**numbers: float) -> None:
    """Print a child's numbers, with the most memory that it ever held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _IN_A_MB
    if sys.platform == "linux":  # there the usage begins with what the parent held
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    print(json.dumps({**numbers, "peak_mb": peak}))


def rounds(
    contestants: dict[str, Callable[[], dict[str, float]]], count: int
) -> dict[str, dict[str, list[float]]]:
    """Let all contestants run in turn, `count` times, and collect their numbers."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in contestants}
    for number in range(count):
        for name, run in list(contestants.items()):
            print(f"round {number + 1}: {name} ...", end="\r", file=sys.stderr, flush=True)
            try:
                for key, value in run().items():
                    found[name].setdefault(key, []).append(value)
            except RuntimeError as error:
                print(f"{name} does not take part: {error}", file=sys.stderr)
                del contestants[name], found[name]
    print(" " * 60, end="\r", file=sys.stderr)
    return found


def median(values: Sequence[float]) -> float:
    """Return the median, or nan for no values."""
    return statistics.median(values) if values else float("nan")


def show(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table, numbers to the right."""
    text = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *text]) for i in range(len(header))]
    for row in [list(header), ["-" * width for width in widths], *text]:
        first, *rest = row
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        print("| " + " | ".join(cells) + " |")
