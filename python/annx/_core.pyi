# SPDX-License-Identifier: Apache-2.0
# Written by .ci/stubs.sh; do not edit.
"""
Compiled core of annx; the public API is in the annx package.
"""
from __future__ import annotations
__all__: list[str] = ['isa', 'isas']
def isa() -> str:
    """
    Name of the instruction set in use.
    """
def isas() -> dict:
    """
    Compiled instruction sets, worst first, and whether this processor has them.
    """
__version__: str
