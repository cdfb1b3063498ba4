# SPDX-License-Identifier: Apache-2.0
"""Hold a clean build to its budget of processor time: 180 s in all, 15 s a unit.

As a compiler launcher (`CMAKE_CXX_COMPILER_LAUNCHER="python3;.ci/build_times.py;LOG"`,
with absolute paths) it runs the compiler and appends what it took to LOG. Called with
LOG alone it prints the table and fails if a limit is passed. Processor time, because
wall time would fail on any machine that does something else as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

UNIT_LIMIT = 15.0
TOTAL_LIMIT = 180.0


def launch(log: Path, command: list[str]) -> int:
    """Run one compiler command and append its seconds and its object's name."""
    status = subprocess.run(command, check=False).returncode
    times = os.times()
    unit = command[command.index("-o") + 1] if "-o" in command else ""
    # Of annx's own targets alone: CMake also compiles to get to know the compiler.
    if "-c" in command and re.search(r"(^|/)(_core|annx_\w+)\.dir/", unit):
        unit = unit.partition(".dir/")[2]
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{times.children_user + times.children_system:.2f} {unit}\n")
    return status


def report(log: Path) -> int:
    """Print the table; return the exit status."""
    units = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = sorted(((float(t), unit) for t, unit in units), reverse=True)
    for t, unit in seconds:
        print(f"{t:7.1f} s  {unit}{'  ABOVE 15 s' if t > UNIT_LIMIT else ''}")
    total = sum(t for t, _ in seconds)
    print(f"{total:7.1f} s  all {len(seconds)} units (limit {TOTAL_LIMIT:g})")
    return int(not seconds or seconds[0][0] > UNIT_LIMIT or total > TOTAL_LIMIT)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.exit(launch(path, sys.argv[2:]) if len(sys.argv) > 2 else report(path))
