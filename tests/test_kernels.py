# SPDX-License-Identifier: Apache-2.0
"""Every kernel of every instruction set that this processor has.

Native kernels must equal the plain NumPy reference bit for bit; the reference is held
to float64 within its stated bound. Rows lie unaligned among garbage.
"""

from __future__ import annotations

import numpy as np
import pytest

from annx import _core
from annx.reference import kernels as reference
from kernel_probe import (
    BYTES,
    DIMS,
    DTYPES,
    FLOATS,
    SUPPORTED,
    finish,
    fixed_reference,
    narrow,
    packed_fixed,
    probe,
    random_query,
    random_rows,
    widen,
)

COUNT = 11
OPS = {"l2": reference.l2, "dot": reference.dot, "l1": reference.l1}
BIT_OPS = {"hamming": reference.hamming, "jaccard": reference.jaccard}


def same_bits(a, b):
    return a.dtype == b.dtype and np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.fixture(params=SUPPORTED)
def isa(request):
    return request.param


def cases(seed, names):
    rng = np.random.default_rng(seed)
    for dtype in names:
        for dim in DIMS:
            rows = random_rows(rng, dtype, COUNT, dim)
            yield rng, dtype, random_query(rng, dtype, dim), rows


@pytest.mark.parametrize("op", OPS)
def test_rows_equal_reference_bit_for_bit(isa, op):
    for _, dtype, query, rows in cases(1, [*FLOATS, *BYTES]):
        want = OPS[op](query, rows)
        got = probe(isa, "rows", op, dtype, query, rows, gap=3, offset=1)
        assert same_bits(got, want), (dtype, rows.shape)


def from_memory(rng, dtype, dim):
    """More rows than are taken to lie in a cache, and some that make no whole group."""
    each = random_rows(rng, dtype, 40, dim)
    count = 400_000 // max(each.strides[0], 1) + 7
    return each[rng.integers(0, len(each), count)]


@pytest.mark.parametrize("dtype", [*FLOATS, *BYTES])
def test_rows_from_memory_equal_rows_one_by_one(isa, dtype):
    rng = np.random.default_rng(3)
    for dim in (50, 129, 800):
        rows = from_memory(rng, dtype, dim)
        query = random_query(rng, dtype, dim)
        slots = np.arange(len(rows))[::-1]
        for op in OPS:
            got = probe(isa, "rows", op, dtype, query, rows)
            one = probe(isa, "gather", op, dtype, query, rows, slots=slots)
            assert same_bits(got, one[::-1].copy()), (op, dim)
        dots, squares = probe(isa, "cosine_rows", "", dtype, query, rows)
        apart = probe(isa, "cosine_gather", "", dtype, query, rows, slots=slots)
        assert same_bits(dots, apart[0][::-1].copy()), dim
        assert same_bits(squares, apart[1][::-1].copy()), dim
        assert same_bits(dots, probe(isa, "rows", "dot", dtype, query, rows))
        assert same_bits(squares, probe(isa, "squares", "", dtype, None, rows))


@pytest.mark.parametrize("op", BIT_OPS)
def test_bits_from_memory_equal_gathered_bits(isa, op):
    rng = np.random.default_rng(4)
    for dim in (7, 16, 98, 192):
        rows = from_memory(rng, "bits", dim)
        query = random_query(rng, "bits", dim)
        slots = np.arange(len(rows))
        got = probe(isa, "rows", op, "bits", query, rows)
        one = probe(isa, "gather", op, "bits", query, rows, slots=slots)
        assert same_bits(got, one)


@pytest.mark.parametrize("op", OPS)
def test_gather_equals_rows(isa, op):
    for rng, dtype, query, rows in cases(2, [*FLOATS, *BYTES]):
        for n in (0, 1, 2, 3, 4, 5, 40):
            slots = rng.integers(0, COUNT, n)
            want = OPS[op](query, rows)[slots]
            got = probe(isa, "gather", op, dtype, query, rows, slots=slots, gap=5)
            assert same_bits(got, want), (dtype, rows.shape, n)


@pytest.mark.parametrize("op", ["l2", "dot"])
def test_fixed_rows_equal_reference(isa, op):
    for rng, _, query, rows in cases(9, ["float32"]):
        numbers, steps = reference.to_fixed(rows)
        packed = packed_fixed(numbers, steps)
        want = fixed_reference(op, query, numbers, steps)
        got = probe(isa, "rows", op, "fixed", query, packed, gap=3, offset=1)
        assert same_bits(got, want), rows.shape
        for n in (0, 1, 2, 3, 4, 5, 40):
            slots = rng.integers(0, COUNT, n)
            got = probe(isa, "gather", op, "fixed", query, packed, slots=slots, gap=5)
            assert same_bits(got, want[slots]), (rows.shape, n)


@pytest.mark.parametrize("op", ["l2", "dot"])
def test_fixed_rows_from_memory_equal_rows_one_by_one(isa, op):
    rng = np.random.default_rng(3)
    for dim in (50, 129, 800):
        rows = from_memory(rng, "float32", dim)
        packed = packed_fixed(*reference.to_fixed(rows))
        query = random_query(rng, "float32", dim)
        slots = np.arange(len(rows))[::-1]
        got = probe(isa, "rows", op, "fixed", query, packed)
        one = probe(isa, "gather", op, "fixed", query, packed, slots=slots)
        assert same_bits(got, one[::-1].copy()), dim


@pytest.mark.parametrize("scale", [0.0, 2.0**-149, 1e-42, 1e-36, 1.0, 1e17, 1e30])
def test_fixed_point_is_off_by_half_a_step(scale):
    rng = np.random.default_rng(5)
    rows = (scale * rng.standard_normal((200, 30))).astype(np.float32)
    numbers, steps = reference.to_fixed(rows)
    kept = reference.from_fixed(numbers, steps)
    exact = numbers.astype(np.float64) * steps[:, None].astype(np.float64)
    assert (kept == exact).all()
    off = np.abs(kept.astype(np.float64) - rows)
    bound = np.maximum(0.5001 * steps.astype(np.float64), 2.0**-135)
    assert (off <= bound[:, None]).all()
    most = np.abs(rows).max(axis=1).astype(np.float64)
    narrow = most / 32767 * (1 + 2.0**-8) + 2.0**-134
    assert ((steps <= narrow) | (kept == rows).all(axis=1)).all()


@pytest.mark.parametrize("unit", [2.0**-20, 1.0, 2.0**40])
def test_fixed_point_keeps_whole_numbers(unit):
    rng = np.random.default_rng(6)
    most = 2 ** rng.integers(1, 15, 100) + rng.integers(-1, 2, 100)
    rows = unit * rng.integers(-most[:, None], most[:, None] + 1, (100, 30))
    rows = rows.astype(np.float32)
    assert (reference.from_fixed(*reference.to_fixed(rows)) == rows).all()


@pytest.mark.parametrize("op", BIT_OPS)
def test_bits_equal_reference(isa, op):
    rng = np.random.default_rng(3)
    for size in (*DIMS, 192, 255, 257):
        rows = random_rows(rng, "bits", COUNT, size)
        queries = random_rows(rng, "bits", 3, size)
        slots = rng.integers(0, COUNT, 17)
        want = np.stack([BIT_OPS[op](q, rows) for q in queries])
        got = probe(isa, "rows", op, "bits", queries[0], rows, gap=1, offset=1)
        assert same_bits(got, want[0]), size
        got = probe(isa, "gather", op, "bits", queries[0], rows, slots=slots)
        assert same_bits(got, want[0][slots]), size
        got = probe(isa, "block", op, "bits", queries, rows, gap=7)
        assert same_bits(got, want), size


def test_bits_empty_sets_have_distance_zero(isa):
    rows = np.zeros((2, 5), np.uint8)
    rows[1, 4] = 1
    got = probe(isa, "rows", "jaccard", "bits", rows[0], rows)
    assert got.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", BYTES)
def test_block_equals_rows(isa, op, dtype):
    rng = np.random.default_rng(4)
    for dim in DIMS:
        for n_queries in (1, 2, 5):
            rows = random_rows(rng, dtype, COUNT, dim)
            queries = random_rows(rng, dtype, n_queries, dim)
            want = np.stack([OPS[op](q, rows) for q in queries])
            got = probe(isa, "block", op, dtype, queries, rows, gap=2)
            assert same_bits(got, want), (dim, n_queries)


def test_tiles_are_inner_products(isa):
    rng = np.random.default_rng(5)
    for dim in DIMS:
        for n_queries in (1, 7, 17):
            rows = rng.integers(-9, 10, (COUNT, dim)).astype(np.float32)
            queries = rng.integers(-9, 10, (n_queries, dim)).astype(np.float32)
            got = probe(isa, "block", "dot", "float32", queries, rows, gap=8, offset=4)
            assert (got == queries @ rows.T).all(), (dim, n_queries)


@pytest.mark.parametrize("dtype", BYTES)
def test_bytes_are_exact_at_the_extremes(isa, dtype):
    info = np.iinfo(BYTES[dtype])
    ends = np.array([info.min, info.max], BYTES[dtype])
    # The largest dim allowed, every pair of extremes: no 16- or 32-bit sum overflows.
    for dim in (1, 64, reference.MAX_DIM_8):
        rows = np.repeat(ends[:, None], dim, axis=1)
        for op, exact in OPS.items():
            for query in rows:
                want = exact(query, rows)
                assert (probe(isa, "rows", op, dtype, query, rows) == want).all()
                got = probe(isa, "block", op, dtype, rows, rows)
                assert (got[0] == exact(rows[0], rows)).all()


def test_cosine_sums_equal_dot_and_squares(isa):
    for rng, dtype, query, rows in cases(5, [*FLOATS, *BYTES]):
        dots = reference.dot(query, rows)
        norms = reference.squares(rows)
        got = probe(isa, "cosine_rows", "", dtype, query, rows, gap=3, offset=3)
        assert same_bits(got[0], dots), (dtype, rows.shape)
        assert same_bits(got[1], norms), (dtype, rows.shape)
        slots = rng.integers(0, COUNT, 9)
        got = probe(isa, "cosine_gather", "", dtype, query, rows, slots=slots)
        assert same_bits(got[0], dots[slots])
        assert same_bits(got[1], norms[slots])
        got = probe(isa, "squares", "", dtype, None, rows, gap=1)
        assert same_bits(got, norms)


def test_cosine_finish_equals_reference(isa):
    rng = np.random.default_rng(6)
    for n in (0, 1, 7, 8, 9, 100):
        dots = rng.standard_normal(n).astype(np.float32)
        norms = np.abs(rng.standard_normal(n)).astype(np.float32) + np.abs(dots)
        norms[::5] = 0
        for square in (np.float32(2.5), np.float32(0)):
            want = reference.cosine_finish(square, dots, norms)
            assert same_bits(finish(isa, square, dots, norms), want)
        whole = rng.integers(-(2**31), 2**31, n).astype(np.int32)
        positive = np.abs(rng.integers(0, 2**31, n)).astype(np.int32)
        want = reference.cosine_finish(
            np.float32(77), whole.astype(np.float32), positive.astype(np.float32)
        )
        assert same_bits(finish(isa, 77, whole, positive), want)


def test_cosine_of_huge_rows_does_not_overflow(isa):
    big = np.float32([1e38])
    assert abs(finish(isa, big[0], big, big)[0]) < 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
def test_reference_is_within_its_bound_of_float64(dtype):
    rng = np.random.default_rng(7)
    for dim in (*DIMS, 1536, 4097):
        rows = random_rows(rng, dtype, COUNT, dim)
        query = random_query(rng, dtype, dim)
        q, x = query.astype(np.float64), rows.astype(np.float64)
        exact = {
            "l2": ((q - x) ** 2).sum(1),
            "dot": (q * x).sum(1),
            "l1": np.abs(q - x).sum(1),
        }
        for op, of in OPS.items():
            terms = np.abs(q * x).sum(1) if op == "dot" else exact[op]
            bound = reference.error_bound(dim, terms)
            assert (np.abs(of(query, rows) - exact[op]) <= bound).all(), (op, dim)


def all_words():
    return np.arange(65536, dtype=np.uint16)


def test_widen_equals_numpy_for_every_word(isa):
    words = all_words()
    for dtype in ("float16", "bfloat16"):
        want = words.view(FLOATS[dtype]).astype(np.float32)
        got = widen(isa, dtype, words)
        nan = np.isnan(want)
        assert np.array_equal(np.isnan(got), nan)
        assert same_bits(got[~nan], want[~nan])
    for dtype in BYTES:
        every = all_words()[:256].astype(np.uint8).view(BYTES[dtype])
        assert np.array_equal(widen(isa, dtype, every), every.astype(np.float32))


def test_narrow_rounds_to_nearest_even(isa):
    # Every value, every midpoint between neighbours, and one unit to either side.
    rng = np.random.default_rng(8)
    for dtype in ("float16", "bfloat16"):
        exact = all_words().view(FLOATS[dtype]).astype(np.float32)
        exact = np.sort(exact[np.isfinite(exact)])
        with np.errstate(over="ignore"):
            middle = (exact[1:].astype(np.float64) + exact[:-1]) / 2
            middle = middle.astype(np.float32)
        special = np.float32([0, -0.0, np.inf, -np.inf, 65519.9, 65520, 3.4e38])
        any_bits = rng.integers(0, 2**32, 50001, dtype=np.uint32).view(np.float32)
        x = np.concatenate(
            [
                exact,
                middle,
                np.nextafter(middle, np.float32(np.inf)),
                np.nextafter(middle, np.float32(-np.inf)),
                special,
                any_bits[~np.isnan(any_bits)],
            ]
        )
        with np.errstate(over="ignore"):
            want = x.astype(FLOATS[dtype]).view(np.uint16)
        got = narrow(isa, dtype, x).view(np.uint16)
        wrong = got != want
        assert not wrong.any(), (dtype, x[wrong][:5], got[wrong][:5], want[wrong][:5])
        if dtype == "bfloat16":
            assert np.array_equal(reference.to_bfloat16(x), want)


def test_narrow_keeps_nan(isa):
    nan = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    for dtype in ("float16", "bfloat16"):
        words = narrow(isa, dtype, nan).view(FLOATS[dtype])
        assert np.isnan(words.astype(np.float32)).all()


def test_narrow_and_widen_every_length(isa):
    rng = np.random.default_rng(9)
    for n in range(70):
        x = rng.standard_normal(n).astype(np.float32)
        for dtype in FLOATS:
            words = narrow(isa, dtype, x).view(FLOATS[dtype])
            assert np.array_equal(words, x.astype(FLOATS[dtype]))
            assert np.array_equal(widen(isa, dtype, words), words.astype(np.float32))


def test_zero_results_are_never_negative(isa):
    # Products that underflow to -0 in every lane.
    query = np.full(40, -1e-30, np.float32)
    rows = np.full((3, 40), 1e-30, np.float32)
    for dim in (1, 8, 31, 32, 40):
        got = probe(isa, "rows", "dot", "float32", query[:dim], rows[:, :dim])
        assert not np.signbit(got).any()


def test_isas_lists_scalar_first_and_active_is_supported():
    names = list(_core.isas())
    assert names[0] == "scalar"
    assert _core.isas()[_core.isa()]


def test_probe_refuses_what_does_not_fit():
    query, rows = np.zeros(4, np.float32), np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="compiled here"):
        probe("sse9", "rows", "l2", "float32", query, rows)
    with pytest.raises(ValueError, match="no such kernel"):
        probe("scalar", "columns", "l2", "float32", query, rows)
    with pytest.raises(ValueError, match="op must be"):
        probe("scalar", "rows", "hamming", "float32", query, rows)
    with pytest.raises(ValueError, match="slot"):
        probe("scalar", "gather", "l2", "float32", query, rows, slots=[3])
    with pytest.raises(ValueError, match="outside query"):
        probe("scalar", "rows", "l2", "float32", query[:3], rows)


def test_every_dtype_is_covered():
    assert set(DTYPES) == {*FLOATS, *BYTES, "bits"}
