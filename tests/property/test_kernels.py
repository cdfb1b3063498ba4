# SPDX-License-Identifier: Apache-2.0
"""Kernels on arrays that Hypothesis chooses: always equal to the reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from annx.reference import kernels as reference
from kernel_probe import BYTES, SUPPORTED, fixed_reference, packed_fixed, probe

OPS = {"l2": reference.l2, "dot": reference.dot, "l1": reference.l1}
isas = st.sampled_from(SUPPORTED)
ops = st.sampled_from(list(OPS))
gaps = st.integers(0, 9)
shapes = st.tuples(st.integers(0, 9), st.integers(0, 140))


@given(st.data(), isas, ops, shapes, gaps)
def test_float_rows_equal_reference(data, isa, op, shape, gap):
    """Any finite values whose sums stay finite, denormals among them."""
    values = st.floats(-(2.0**50), 2.0**50, width=32)
    rows = data.draw(hnp.arrays(np.float32, shape, elements=values))
    query = data.draw(hnp.arrays(np.float32, shape[1], elements=values))
    got = probe(isa, "rows", op, "float32", query, rows, gap=gap, offset=gap)
    want = OPS[op](query, rows)
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@given(st.data(), isas, st.sampled_from(["l2", "dot"]), shapes, gaps)
def test_fixed_rows_equal_reference(data, isa, op, shape, gap):
    """Any finite values whose sums stay finite, rounded to fixed point."""
    values = st.floats(-(2.0**50), 2.0**50, width=32)
    rows = data.draw(hnp.arrays(np.float32, shape, elements=values))
    query = data.draw(hnp.arrays(np.float32, shape[1], elements=values))
    fixed = reference.to_fixed(rows)
    got = probe(isa, "rows", op, "fixed", query, packed_fixed(*fixed), gap=gap)
    want = fixed_reference(op, query, *fixed)
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@given(st.data(), isas, ops, st.sampled_from(list(BYTES)), shapes, gaps)
def test_byte_rows_equal_reference(data, isa, op, dtype, shape, gap):
    """Exact for every byte."""
    rows = data.draw(hnp.arrays(BYTES[dtype], shape))
    query = data.draw(hnp.arrays(BYTES[dtype], shape[1]))
    got = probe(isa, "rows", op, dtype, query, rows, gap=gap, offset=gap)
    assert np.array_equal(got, OPS[op](query, rows))


@given(st.data(), isas, shapes, gaps)
def test_bit_rows_equal_reference(data, isa, shape, gap):
    """Exact for every bit."""
    rows = data.draw(hnp.arrays(np.uint8, shape))
    query = data.draw(hnp.arrays(np.uint8, shape[1]))
    got = probe(isa, "rows", "hamming", "bits", query, rows, gap=gap)
    assert np.array_equal(got, reference.hamming(query, rows))
    got = probe(isa, "rows", "jaccard", "bits", query, rows, gap=gap)
    assert np.array_equal(got, reference.jaccard(query, rows))
