# SPDX-License-Identifier: Apache-2.0
# Written by .ci/stubs.sh; do not edit.
"""
Compiled core of annx; the public API is in the annx package.
"""
from __future__ import annotations
import numpy
import numpy.typing
import typing
__all__: list[str] = ['check_rows', 'file_checksum', 'file_kind', 'isa', 'isas', 'probe_kernel']
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
def probe_kernel(isa: str, kernel: str, op: str, dtype: str, query: numpy.typing.NDArray[numpy.uint8], rows: numpy.typing.NDArray[numpy.uint8], slots: numpy.typing.NDArray[numpy.uint32], first: numpy.typing.NDArray[numpy.uint8], second: numpy.typing.NDArray[numpy.uint8], *, dim: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex, stride: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex = 0, queries: typing.SupportsInt | typing.SupportsIndex = 1, query_stride: typing.SupportsInt | typing.SupportsIndex = 0, repeat: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
    """
    Run one kernel of one instruction set on arrays of bytes, for tests and micro-benchmarks; the results go to first and second (as uint8).
    """
__version__: str
