# SPDX-License-Identifier: Apache-2.0
"""Memory of this process: what is held now, and the highest point since a reset.

Linux only in full: /proc tells anonymous memory apart from file pages (so that a
library's code, paged in as it runs, is not counted as index) and lets the high-water
mark be reset. Elsewhere psutil gives the resident size and the peak is unknown.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

__all__ = ["held", "peak", "reset_peak", "resident", "settle"]

_STATUS = Path("/proc/self/status")


def _field(*names: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    total = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in names:
            total += int(value.split()[0]) * 1024
    return total


def _psutil() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def held() -> int | None:
    """Bytes of anonymous and shared memory that are resident now."""
    found = _field("RssAnon", "RssShmem")
    return _psutil() if found is None else found


def resident() -> int | None:
    """Bytes that are resident now, file pages included."""
    found = _field("VmRSS")
    return _psutil() if found is None else found


def peak() -> int | None:
    """Most bytes resident at once since :func:`reset_peak`; None where unknown."""
    return _field("VmHWM")


def reset_peak() -> bool:
    """Forget the high-water mark; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def settle() -> None:
    """Give freed memory back, so that what remains is what is used."""
    gc.collect()
    # Only glibc has the call; elsewhere the figure is a little too high.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
