# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies that all test files share: add, do not change.

Values are drawn as a seed and a shape, and made by NumPy from those: thousands of
elements cost Hypothesis one draw, and a failing case still shrinks (to a smaller shape,
to fewer distinct values).
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

AWKWARD_DIMS = (1, 3, 7, 13, 16, 31, 32, 33, 127, 128, 129)
FLOAT_DTYPES = ("float32", "float16", "bfloat16")
BYTE_DTYPES = ("int8", "uint8")
VECTOR_DTYPES = FLOAT_DTYPES + BYTE_DTYPES
VECTOR_METRICS = ("l2", "ip", "cosine", "l1")
BIT_METRICS = ("hamming", "jaccard")

dims = st.sampled_from(AWKWARD_DIMS)
small_dims = st.integers(1, 17)
seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 60)
ks = st.integers(1, 70)
vector_dtypes = st.sampled_from(VECTOR_DTYPES)
vector_metrics = st.sampled_from(VECTOR_METRICS)
bit_metrics = st.sampled_from(BIT_METRICS)
# How rows are laid out when they reach annx.
layouts = st.sampled_from(("c", "fortran", "strided", "reversed"))
# The kinds of data that break searches.
kinds = st.sampled_from(
    ("normal", "integer", "ties", "duplicates", "zeros", "offset", "norms")
)


def make_rows(seed, n, dim, *, kind="normal", dtype="float32"):
    """Rows of a kind, (n, dim); integers small enough to be exact in every dtype."""
    rng = np.random.default_rng(seed)
    if dtype in BYTE_DTYPES:
        info = np.iinfo(dtype)
        low, high = (info.min, info.max + 1) if kind == "norms" else (0, 8)
        rows = rng.integers(low, high, (n, dim)).astype(dtype)
    elif kind in ("integer", "ties"):
        rows = rng.integers(-3, 4, (n, dim)).astype(np.float32)
    else:
        rows = rng.standard_normal((n, dim)).astype(np.float32)
    if kind == "ties" and n:
        rows = rows[rng.integers(0, max(1, n // 4), n)]
    elif kind == "duplicates" and n:
        rows[:] = rows[0]
    elif kind == "zeros":
        rows[rng.random(n) < 0.5] = 0
    elif kind == "offset" and dtype not in BYTE_DTYPES:
        rows += 100.0
    elif kind == "norms" and dtype not in BYTE_DTYPES:
        rows *= (10.0 ** rng.uniform(-2, 2, (n, 1))).astype(np.float32)
    if dtype == "float16":
        return rows.astype(np.float16)
    if dtype == "bfloat16":
        ml_dtypes = __import__("ml_dtypes")
        return rows.astype(ml_dtypes.bfloat16)
    return rows


def make_bits(seed, n, dim, *, density=0.5):
    """Packed bits, (n, ceil(dim / 8)), bit 0 first."""
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random((n, dim)) < density, axis=1, bitorder="little")


def lay_out(rows, layout):
    """The same values, differently laid out in memory."""
    if layout == "fortran":
        return np.asfortranarray(rows)
    if layout == "strided":
        wide = np.zeros((rows.shape[0], rows.shape[1] * 2), rows.dtype)
        wide[:, ::2] = rows
        return wide[:, ::2]
    if layout == "reversed":
        return np.ascontiguousarray(rows[::-1])[::-1]
    return rows


@st.composite
def row_sets(draw, dtypes=vector_dtypes, dims=dims, counts=counts):
    """Rows, and the dtype they are of."""
    dtype = draw(dtypes)
    rows = make_rows(
        draw(seeds), draw(counts), draw(dims), kind=draw(kinds), dtype=dtype
    )
    return rows, dtype


# Where in the unit ball: near its centre, everywhere, near its edge, and awkward ones.
ball_kinds = st.sampled_from(("centre", "even", "edge", "tree", "duplicates", "zeros"))


def make_ball(seed, n, dim, *, kind="even"):
    """Rows of length below 1, (n, dim) float32, of a kind."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    if kind == "centre":
        radius = 1e-3 * rng.random((n, 1))
    elif kind == "edge":
        radius = 1 - 10.0 ** rng.uniform(-6, -1, (n, 1))
    else:
        radius = 0.999 * rng.random((n, 1)) ** (1 / dim)
    rows *= radius
    if kind == "tree":
        rows = tree_in_ball(seed, n, dim)
    elif kind == "duplicates" and n:
        rows[:] = rows[rng.integers(0, max(1, n // 8), n)]
    elif kind == "zeros":
        rows[rng.random(n) < 0.3] = 0
    return rows.astype(np.float32)


def tree_in_ball(seed, n, dim, *, step=0.9, children=3):
    """A tree laid out in hyperbolic space: every node about `step` from its parent."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, dim))
    for i in range(1, n):
        parent = rows[(i - 1) // children]
        move = rng.standard_normal(dim)
        length = np.linalg.norm(parent)
        if length > 0:
            move += 1.5 * np.sqrt(dim) * parent / length  # away from the root
        move *= np.tanh(step * rng.uniform(0.5, 1.5) / 2) / np.linalg.norm(move)
        # Moebius addition: `move` seen from the parent.
        inner, low, high = parent @ move, parent @ parent, move @ move
        rows[i] = (1 + 2 * inner + high) * parent + (1 - low) * move
        rows[i] /= 1 + 2 * inner + low * high
        beyond = np.linalg.norm(rows[i])
        if beyond > 1 - 1e-5:
            rows[i] *= (1 - 1e-5) / beyond
    return rows
