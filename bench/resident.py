# SPDX-License-Identifier: Apache-2.0
"""Whether `memory_usage` tells what an index takes of a process.

    python -m bench.resident [--dim 384] [--mib 220] [--storages small,plain,fast]

For each storage of `GraphIndex` a fresh process makes an index of so many normal
vectors that it takes about so many MiB, and tells by how much its resident memory has
grown once the input is gone; its peak while it built, beside 1.3 times index and input;
and another fresh process the same for the index as loaded from its file. Linked with
`ef_construction` 4, which changes no size, so its searches would find little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import annx
from bench.ann import memory

MIB = 1 << 20
BYTES = {"small": 1.35, "plain": 4.4, "float32": 8.5, "fast": 6.5}  # a dimension, about


def rows(count: int, dim: int) -> np.ndarray:
    """Rows in portions, so that making them takes no memory to speak of."""
    out = np.empty((count, dim), np.float32)
    rng = np.random.default_rng(0)
    for at in range(0, count, 4096):
        part = out[at : at + 4096]
        rng.standard_normal(out=part, dtype=np.float32)
    return out


def tell(what: str, index: annx.GraphIndex, before: int) -> None:
    memory.settle()
    total = index.memory_usage()["total"]
    grown = (memory.held() or 0) - before
    sys.stdout.write(
        f"{what}: {len(index)} vectors, memory_usage {total / MIB:.1f} MiB, resident "
        f"{grown / MIB:.1f} MiB, {grown / total - 1:+.2%}\n"
    )


def warm(dim: int, storage: str) -> None:
    """Have everything loaded that a search or a build loads."""
    small = rows(3000, dim)
    index = annx.GraphIndex.build(small, storage=storage, ef_construction=4, threads=1)
    index.search(small[:3], 2, threads=1)


def child(step: str, storage: str, dim: int, count: int, path: Path) -> None:
    """Build and save, or load."""
    warm(dim, storage)
    memory.settle()
    before = memory.held() or 0
    if step == "load":
        tell(f"{storage}, loaded", annx.load(path), before)
        return
    base = rows(count, dim)
    memory.reset_peak()
    index = annx.GraphIndex(dim, storage=storage, ef_construction=4)
    index.add(base, threads=1)
    peak = (memory.peak() or 0) - before
    given = base.nbytes
    del base
    tell(f"{storage}, built", index, before)
    total = index.memory_usage()["total"]
    sys.stdout.write(
        f"    peak {peak / MIB:.0f} MiB, {peak / (total + given):.2f} of index and "
        "input\n"
    )
    index.save(path)


def main() -> None:
    """Start a process for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--mib", type=int, default=220)
    parser.add_argument("--storages", default="small,plain,fast")
    parser.add_argument("--child", nargs=4)
    options = parser.parse_args()
    if options.child:
        step, storage, count, path = options.child
        child(step, storage, options.dim, int(count), Path(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        for storage in options.storages.split(","):
            path = Path(folder) / f"{storage}.annx"
            count = int(options.mib * MIB / (BYTES[storage] * options.dim))
            for step in ("build", "load"):
                command = [sys.executable, "-m", "bench.resident"]
                command += ["--dim", str(options.dim)]
                command += ["--child", step, storage, str(count), str(path)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
