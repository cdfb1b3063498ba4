# SPDX-License-Identifier: Apache-2.0
"""Running a script once with each instruction set that this processor has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import annx
from annx import _core

SUPPORTED = [name for name, here in _core.isas().items() if here]


def outputs_by_isa(script: str) -> set[str]:
    """What `script` prints: one string if every instruction set gives the same."""
    head = f"import sys; sys.path.insert(0, {str(Path(annx.__file__).parents[1])!r})\n"
    return {
        subprocess.run(
            [sys.executable, "-c", head + script],
            env={**os.environ, "ANNX_ISA": isa},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for isa in SUPPORTED
    }
