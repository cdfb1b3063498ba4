# SPDX-License-Identifier: Apache-2.0
# Written by .ci/stubs.sh; do not edit.
"""
Compiled core of annx; the public API is in the annx package.
"""
from __future__ import annotations
import numpy
import typing
__all__: list[str] = ['check_rows', 'file_checksum', 'file_kind', 'isa', 'isas']
def check_rows(rows: numpy.ndarray, dtype: str, dim: typing.SupportsInt | typing.SupportsIndex, name: str) -> None:
    """
    Raise ValueError at NaN, infinity, a squared norm beyond float32 or stray bits.
    """
def file_checksum(data: bytes) -> int:
    """
    The checksum of the file format, for tests.
    """
def file_kind(path: str | bytes) -> str:
    """
    The kind of object that a file holds, from its header.
    """
def isa() -> str:
    """
    Name of the instruction set in use.
    """
def isas() -> dict:
    """
    Compiled instruction sets, worst first, and whether this processor has them.
    """
__version__: str
