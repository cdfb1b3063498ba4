# SPDX-License-Identifier: Apache-2.0
"""Calls of any kernel on NumPy arrays, and the rows to call them with."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from annx import _core
from annx.reference import kernels as reference

FLOATS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
BYTES = {"int8": np.dtype(np.int8), "uint8": np.dtype(np.uint8)}
DTYPES = {**FLOATS, **BYTES, "bits": np.dtype(np.uint8)}
SUPPORTED = [name for name, here in _core.isas().items() if here]
DIMS = [0, 1, 2, 3, 7, 8, 9, 13, 16, 31, 32, 33, 50, 63, 65, 127, 128, 129, 384]
NONE = np.zeros(0, np.uint8)
FIXED_HEAD = 16
NO_SLOTS = np.zeros(0, np.uint32)


def as_bytes(array):
    """The array's memory as a flat uint8 array."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def scatter_rows(rows, *, gap=0, offset=0):
    """Rows `gap` bytes apart from byte `offset` on, in a buffer of garbage.

    The garbage is all ones, a NaN in every float type, so that a kernel which lets a
    byte from outside a row into its result is seen to do so.
    """
    rows = np.ascontiguousarray(rows)
    count, dim = rows.shape
    width = dim * rows.dtype.itemsize
    stride = width + gap
    buffer = np.full(offset + count * stride + 64, 0xFF, np.uint8)
    flat = rows.view(np.uint8).reshape(count, width) if width else None
    for i in range(count if width else 0):
        buffer[offset + i * stride : offset + i * stride + width] = flat[i]
    return buffer, stride


def probe(
    isa,
    kernel,
    op,
    dtype,
    query,
    rows,
    *,
    slots=None,
    gap=0,
    offset=0,
    repeat=1,
):
    """Run one kernel and return its results (two arrays for the cosine kernels)."""
    rows = np.asarray(rows)
    count, dim = rows.shape
    if dtype == "fixed":
        dim = (dim - FIXED_HEAD) // 2
    buffer, stride = scatter_rows(rows, gap=gap, offset=offset)
    whole = dtype in BYTES or op == "hamming"
    out_type = np.int32 if whole else np.float32
    queries = 1 if query is None or query.ndim == 1 else len(query)
    n = len(slots) if slots is not None else count * queries
    first = np.full(n * 4, 0xAA, np.uint8)
    second = np.full(n * 4, 0xAA, np.uint8)
    _core.probe_kernel(
        isa,
        kernel,
        op,
        dtype,
        NONE if query is None else as_bytes(query),
        buffer,
        NO_SLOTS if slots is None else np.asarray(slots, np.uint32),
        first,
        second,
        dim=dim,
        count=count,
        stride=stride,
        offset=offset,
        queries=queries,
        query_stride=0 if query is None else query.shape[-1] * query.itemsize,
        repeat=repeat,
    )
    out = first.view(out_type)
    if kernel == "block":
        return out.reshape(queries, count)
    if kernel.startswith("cosine"):
        return out, second.view(out_type)
    return out


def finish(isa, square, dots, norms):
    """Run cosine_finish on float32 or int32 sums."""
    out = np.zeros(len(dots) * 4, np.uint8)
    dtype = "int8" if dots.dtype == np.int32 else "float32"
    query = np.append(dots, dots.dtype.type(square)).astype(dots.dtype)
    _core.probe_kernel(
        isa, "cosine_finish", "", dtype, as_bytes(query), as_bytes(norms), NO_SLOTS,
        out, NONE, dim=0, count=len(dots), stride=0,
    )  # fmt: skip
    return out.view(np.float32)


def narrow(isa, dtype, x):
    """Round float32 to a narrow type, as words."""
    out = np.zeros(len(x) * DTYPES[dtype].itemsize, np.uint8)
    _core.probe_kernel(
        isa, "narrow", "", dtype, NONE, as_bytes(x), NO_SLOTS, out, NONE,
        dim=len(x), count=1, stride=0,
    )  # fmt: skip
    return out


def widen(isa, dtype, words):
    """Widen a flat array of a type to float32."""
    out = np.zeros(len(words) * 4, np.uint8)
    _core.probe_kernel(
        isa, "widen", "", dtype, NONE, as_bytes(words), NO_SLOTS, out, NONE,
        dim=len(words), count=1, stride=0,
    )  # fmt: skip
    return out.view(np.float32)


def random_rows(rng, dtype, count, dim):
    """Rows with a spread of sizes; for 8-bit types the whole range."""
    if dtype in FLOATS:
        x = rng.standard_normal((count, dim)) * np.exp(rng.uniform(-2, 2, (count, 1)))
        return x.astype(FLOATS[dtype])
    info = np.iinfo(DTYPES[dtype])
    return rng.integers(info.min, info.max + 1, (count, dim)).astype(DTYPES[dtype])


def packed_fixed(numbers, steps):
    """Rows of `to_fixed` as the kernels read them, one beside another, as bytes."""
    head = np.full((len(steps), FIXED_HEAD), 0xFF, np.uint8)
    head[:, :4] = steps.astype("<f4").view(np.uint8).reshape(-1, 4)
    tail = np.ascontiguousarray(numbers.astype("<i2")).view(np.uint8)
    return np.concatenate(
        [head, tail.reshape(len(steps), 2 * numbers.shape[1])], axis=1
    )


def fixed_reference(op, query, numbers, steps):
    """Of such rows: l2 of what they stand for, or the step times a dot of numbers."""
    if op == "l2":
        return reference.l2(query, reference.from_fixed(numbers, steps))
    return steps * reference.dot(query, numbers.astype(np.float32))


def random_query(rng, dtype, dim):
    """A query that goes with such rows."""
    return random_rows(rng, "float32" if dtype in FLOATS else dtype, 1, dim)[0]
