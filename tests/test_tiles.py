# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annx import _core
from strategies import dims, make_rows, seeds

ISAS = [name for name, supported in _core.isas().items() if supported]


@pytest.mark.parametrize("isa", ISAS)
@given(seed=seeds, n=st.integers(1, 40), m=st.integers(1, 70), dim=dims)
def test_tile_sums_are_exact_on_integers(isa, seed, n, m, dim):
    queries = make_rows(seed, n, dim, kind="integer")
    rows = make_rows(seed + 1, m, dim, kind="integer")
    bias = make_rows(seed + 2, 1, m, kind="integer")[0]
    sums = _core.tile_products(queries, rows, bias, isa)
    expected = queries @ rows.T + bias
    np.testing.assert_array_equal(sums[:n, :m], expected)
    np.testing.assert_array_equal(
        sums[n:, :m], np.broadcast_to(bias, sums[n:, :m].shape)
    )


@pytest.mark.parametrize("isa", ISAS)
@given(seed=seeds, dim=dims)
def test_tile_sums_keep_their_stated_bound(isa, seed, dim):
    queries = make_rows(seed, 7, dim, kind="norms")
    rows = make_rows(seed + 1, 35, dim, kind="offset")
    bias = make_rows(seed + 2, 1, 35)[0]
    sums = _core.tile_products(queries, rows, bias, isa)
    q, x, b = (a.astype(np.float64) for a in (queries, rows, bias))
    bound = (dim + 1) * 2.0**-24 * 1.01 * (np.abs(b) + np.abs(q) @ np.abs(x).T)
    assert (np.abs(sums[:7, :35] - (q @ x.T + b)) <= bound).all()
