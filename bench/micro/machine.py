# SPDX-License-Identifier: Apache-2.0
"""What the machine can do: read bandwidth, random rows, multiply-adds."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("machine.c")


def cpu_flags():
    """Compiler flags for the widest vectors that this processor has."""
    try:
        flags = (
            Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split()
        )
    except (OSError, IndexError):
        return []
    if "avx512f" in flags:
        return ["-mavx512f", "-mprefer-vector-width=512"]
    if "avx2" in flags and "fma" in flags:
        return ["-mavx2", "-mfma"]
    return []


def cpu_name():
    """The processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
        return next(
            x.split(":")[1].strip() for x in lines if x.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Machine:
    """The loops of machine.c, built with the system's C compiler."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name) / "machine.so"
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [
                compiler,
                "-O3",
                *cpu_flags(),
                "-fPIC",
                "-shared",
                str(SOURCE),
                "-o",
                library,
            ],
            check=True,
        )
        code = ctypes.CDLL(str(library))
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        code.read_all.argtypes = [pointer, size, size]
        code.read_quarters.argtypes = [pointer, size]
        code.read_rows.argtypes = [pointer, size, pointer, size, size, size]
        code.multiply_add.argtypes = [size, ctypes.c_float]
        code.multiply_add.restype = ctypes.c_float
        self._code = code
        self.lanes = 16 if "-mavx512f" in cpu_flags() else 8 if cpu_flags() else 4

    def read(self, data, ahead):
        """Read a whole array, `ahead` bytes prefetched, or (None) in four streams."""
        if ahead is None:
            self._code.read_quarters(data.ctypes.data, data.nbytes)
            return
        self._code.read_all(data.ctypes.data, data.nbytes - 8192, ahead)

    def rows(self, data, stride, slots, width, ahead):
        """Read rows of `width` bytes, `ahead` rows prefetched."""
        self._code.read_rows(
            data.ctypes.data, stride, slots.ctypes.data, len(slots), width, ahead
        )

    def multiply_add(self, rounds):
        """Multiply and add in registers; returns the floating-point operations."""
        self._code.multiply_add(rounds, 0.5)
        return self.operations(rounds)

    def operations(self, rounds):
        """Floating-point operations of that."""
        return 2 * 12 * self.lanes * rounds


def huge(nbytes):
    """Zeroed memory that asks for huge pages (NumPy does so for large arrays)."""
    return np.zeros(nbytes, np.uint8)
