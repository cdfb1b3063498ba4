# SPDX-License-Identifier: Apache-2.0
"""What a result must say of the machine and the software it came from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["describe"]

ROOT = Path(__file__).resolve().parents[2]

# The instruction sets that decide which kernels a library runs.
_FLAGS = (
    "sse4_2",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_vpopcntdq",
    "amx_tile",
    "asimd",
    "sve",
)


def describe() -> dict[str, Any]:
    """CPU model, instruction sets, caches, memory, load, and versions."""
    model, flags = _cpu()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": model,
        "isa": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": _commit(),
        "load_average_at_start": load,
    }


def _cpu() -> tuple[str, set[str]]:
    info = Path("/proc/cpuinfo")
    model, flags = platform.processor() or platform.machine(), set()
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    elif sys.platform == "darwin":
        model = _run(["sysctl", "-n", "machdep.cpu.brand_string"]) or model
        flags = {"asimd"} if platform.machine() == "arm64" else set()
    return model, flags


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(total / 2**30, 1)


def _commit() -> str:
    name = _run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = _run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"])
    return f"{name}+changes" if name and changed else name


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
