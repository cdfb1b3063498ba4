# SPDX-License-Identifier: Apache-2.0
"""Hold a clean build to its budget of processor time: 300 s in all, 15 s a unit.

On two cores 300 s are two and a half minutes, where an install may take three.

As a compiler launcher (`CMAKE_CXX_COMPILER_LAUNCHER="python3;.ci/build_times.py;LOG"`,
with absolute paths) it runs the compiler and appends what it took to LOG. Called with
LOG alone it prints the table and fails if a limit is passed. Processor time, because
wall time would fail on any machine that does something else as well. Compilers that
run side by side still slow one another (shared cores and caches), by a quarter and
more; so where a limit is passed, the slowest units are compiled once more, one at a
time, and the lesser figure counts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

UNIT_LIMIT = 15.0
TOTAL_LIMIT = 300.0
REPEATS = 12


def timed(
    command: list[str], *, cwd: str | None = None, quiet: bool = False
) -> tuple[float, int]:
    """Run a command; return its processor seconds and its exit status."""
    before = os.times()
    errors = subprocess.DEVNULL if quiet else None
    status = subprocess.run(command, check=False, cwd=cwd, stderr=errors).returncode
    after = os.times()
    seconds = after.children_user + after.children_system
    return seconds - before.children_user - before.children_system, status


def launch(log: Path, command: list[str]) -> int:
    """Run one compiler command and append its seconds, its object and itself."""
    seconds, status = timed(command)
    unit = command[command.index("-o") + 1] if "-o" in command else ""
    # Of annx's own targets alone: CMake also compiles to get to know the compiler.
    if "-c" in command and re.search(r"(^|/)(_core|annx_\w+)\.dir/", unit):
        entry = [seconds, unit.partition(".dir/")[2], command, str(Path.cwd())]
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    return status


def with_headers(command: list[str], folder: str) -> list[str]:
    """Return the command with pybind11's headers from a folder that is there.

    Pip takes the environment of a build away, and the headers in it.
    """
    found = Path(folder, "pybind11", "include")
    if not found.exists():
        install = ["-m", "pip", "install", "--quiet", "--target", folder, "pybind11>=3"]
        subprocess.run([sys.executable, *install], check=False)
    return [
        str(found) if part.endswith("/pybind11/include") else part for part in command
    ]


def report(log: Path) -> int:
    """Print the table; return the exit status."""
    units = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    units.sort(reverse=True)

    def above() -> bool:
        seconds = [unit[0] for unit in units]
        return max(seconds, default=0) > UNIT_LIMIT or sum(seconds) > TOTAL_LIMIT

    for unit in units[:REPEATS]:
        if not above():
            break
        command = with_headers(unit[2], f"{log}.headers")
        again, status = timed(command, cwd=unit[3], quiet=True)
        if status == 0:
            print(f"{unit[1]}: {unit[0]:.1f} s beside others, {again:.1f} s alone")
            unit[0] = min(unit[0], again)
    units.sort(reverse=True)
    for seconds, name, *_ in units:
        print(f"{seconds:7.1f} s  {name}{'  ABOVE 15 s' * (seconds > UNIT_LIMIT)}")
    total = sum(unit[0] for unit in units)
    print(f"{total:7.1f} s  all {len(units)} units (limit {TOTAL_LIMIT:g})")
    return int(not units or above())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.exit(launch(path, sys.argv[2:]) if len(sys.argv) > 2 else report(path))
