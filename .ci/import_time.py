# SPDX-License-Identifier: Apache-2.0
"""Measure what `import annx` adds to `import numpy`, in processor time.

Usage: python .ci/import_time.py [LIMIT_MS]. Each import runs in a fresh interpreter
that has NumPy already; the least of ten is taken, since what
else the machine does can only add. Above the limit (default 50 ms) it fails.
"""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 10
CODE = """
import time, numpy
start = time.process_time()
{0}
print(time.process_time() - start)
"""


def seconds(statement: str) -> float:
    """Processor time of a statement in a fresh interpreter that has NumPy."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return float(subprocess.check_output(command, text=True))


def main() -> int:
    """Print the figure; return the exit status."""
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else 50.0
    added = 1000 * min(seconds("import annx") for _ in range(ROUNDS))
    print(f"import annx adds {added:.1f} ms to import numpy (limit {limit:g})")
    return int(added > limit)


if __name__ == "__main__":
    sys.exit(main())
