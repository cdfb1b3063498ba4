# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given

from annx import _validate as v
from strategies import lay_out, layouts, make_rows, row_sets, seeds, small_dims

ml_dtypes = pytest.importorskip("ml_dtypes")


def widen(rows):
    return np.asarray(rows).astype(np.float32)


@given(row_sets(), layouts)
def test_as_rows_keeps_values(case, layout):
    rows, dtype = case
    stored = v.as_rows(lay_out(rows, layout), name="x", dim=rows.shape[1], dtype=dtype)
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(widen(v.from_stored(stored, dtype)), widen(rows))


@pytest.mark.parametrize("dtype", v.DTYPES)
def test_as_rows_shares_memory_when_the_form_is_right(dtype):
    rows = np.zeros(
        (4, 16), {"bfloat16": ml_dtypes.bfloat16, "bits": "u1"}.get(dtype, dtype)
    )
    stored = v.as_rows(rows, name="x", dim=128 if dtype == "bits" else 16, dtype=dtype)
    assert np.shares_memory(stored, rows)


@given(seeds, small_dims)
def test_as_rows_rounds_to_bfloat16_as_ml_dtypes_does(seed, dim):
    rows = make_rows(seed, 9, dim, kind="norms")
    stored = v.as_rows(rows, name="x", dim=dim, dtype="bfloat16")
    np.testing.assert_array_equal(
        stored, rows.astype(ml_dtypes.bfloat16).view(np.uint16)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.tolist(),
        lambda a: a.astype(np.float64),
        lambda a: a.astype(">f4"),
        lambda a: a.astype(np.int32),
        lambda a: a.astype(np.uint64),
        lambda a: a.astype(np.float16),
        lambda a: a.astype(ml_dtypes.bfloat16),
        memoryview,
        lambda a: type("ArrayLike", (), {"__array__": lambda self, *_, **__: a})(),
        lambda a: type(
            "DLPackOnly",
            (),
            {
                "__dlpack__": lambda self, **kw: a.__dlpack__(**kw),
                "__dlpack_device__": lambda self: a.__dlpack_device__(),
            },
        )(),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8"])
def test_as_rows_takes_every_array_like(make, dtype):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    stored = v.as_rows(make(rows), name="x", dim=4, dtype=dtype)
    np.testing.assert_array_equal(widen(v.from_stored(stored, dtype)), rows)


def test_as_rows_packs_booleans():
    bits = np.random.default_rng(0).random((5, 13)) < 0.5
    stored = v.as_rows(bits, name="x", dim=13, dtype="bits")
    np.testing.assert_array_equal(stored, np.packbits(bits, axis=1, bitorder="little"))


@pytest.mark.parametrize(
    ("rows", "dtype", "error", "match"),
    [
        ([[1.0, np.nan]], "float32", ValueError, "x row 0 holds NaN or infinity"),
        (
            [[1.0, 0], [np.inf, 0]],
            "float32",
            ValueError,
            "x row 1 holds NaN or infinity",
        ),
        ([[1.0, -np.inf]], "float16", ValueError, "NaN or infinity"),
        ([[1.0, np.nan]], "bfloat16", ValueError, "NaN or infinity"),
        ([[1.0, np.nan]], "int8", ValueError, "holds values"),
        ([[1e300, 0]], "float32", ValueError, "too large for float32"),
        ([[1e6, 0]], "float16", ValueError, "too large for float16"),
        ([[3.4e38, 0]], "bfloat16", ValueError, "too large for bfloat16"),
        ([[3e19, 0]], "float32", ValueError, "squared norm"),
        ([[3e19, 0]], "bfloat16", ValueError, "squared norm"),
        ([[128, 0]], "int8", ValueError, "-128 to 127"),
        ([[-1, 0]], "uint8", ValueError, "0 to 255"),
        ([[0.5, 0]], "uint8", ValueError, "fractions"),
        ([[1.0, 2.0, 3.0]], "float32", ValueError, "3 columns; it must have 2"),
        ([1.0, 2.0], "float32", ValueError, "1 dimensions"),
        (np.zeros((1, 1, 2)), "float32", ValueError, "3 dimensions"),
        ([["a", "b"]], "float32", TypeError, "must be numbers"),
        ([[1j, 2j]], "float32", TypeError, "must be numbers"),
        ([[1.0], [1.0, 2.0]], "float32", ValueError, "cannot be read as an array"),
        (object(), "float32", TypeError, "must be an array of numbers"),
        (None, "float32", TypeError, "must be an array of numbers"),
        (np.zeros((2, 2), np.uint16), "bfloat16", TypeError, "uint16"),
        (np.full((1, 1), 0xFF, np.uint8), "bits", ValueError, "bits after the last"),
        (np.zeros((1, 2), np.uint8), "bits", ValueError, "2 bits take 1"),
        (np.zeros((1, 2), np.float32), "bits", TypeError, "uint8"),
        (
            np.ma.masked_array([[1.0, 2.0]], [[True, False]]),
            "float32",
            TypeError,
            "masked",
        ),
    ],
)
def test_as_rows_refuses(rows, dtype, error, match):
    with pytest.raises(error, match=match):
        v.as_rows(rows, name="x", dim=2, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("at", [0, 31, 32, 100, 128])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_rows_finds_bad_values_anywhere(dtype, at, value):
    rows = make_rows(1, 3, 129, dtype=dtype)
    rows[2, at] = value
    with pytest.raises(ValueError, match="row 2"):
        v.as_rows(rows, name="x", dim=129, dtype=dtype)


def test_as_rows_takes_no_rows():
    assert v.as_rows([], name="x", dim=5).shape == (0, 5)
    assert v.as_rows(np.zeros((0, 5)), name="x", dim=5).shape == (0, 5)


def test_as_queries_tells_one_from_many():
    one, single = v.as_queries(np.ones(3, np.float32), dim=3)
    assert one.shape == (1, 3)
    assert single
    many, single = v.as_queries([[1, 2, 3]], dim=3)
    assert many.dtype == np.float32
    assert not single
    with pytest.raises(ValueError, match="queries has 2 columns; it must have 3"):
        v.as_queries(np.ones(2), dim=3)
    with pytest.raises(ValueError, match="queries row 0 holds NaN"):
        v.as_queries(np.full(3, np.nan, np.float32), dim=3)
    with pytest.raises(ValueError, match="3 dimensions"):
        v.as_queries(np.ones((1, 1, 3)), dim=3)


def test_as_ids_converts_and_refuses():
    assert v.as_ids([3, 1], count=2).dtype == np.int64
    assert v.as_ids(7).tolist() == [7]
    assert v.as_ids([]).shape == (0,)
    with pytest.raises(TypeError, match="integers"):
        v.as_ids([1.0])
    with pytest.raises(TypeError, match="integers"):
        v.as_ids([True])
    with pytest.raises(ValueError, match="holds -1"):
        v.as_ids([2, -1])
    with pytest.raises(ValueError, match="fit int64"):
        v.as_ids(np.array([2**63], np.uint64))
    with pytest.raises(ValueError, match="holds 4 more than once"):
        v.as_ids([4, 5, 4], unique=True)
    with pytest.raises(ValueError, match="must have 3"):
        v.as_ids([4, 5], count=3)
    with pytest.raises(ValueError, match="2 dimensions"):
        v.as_ids([[4]])


@pytest.mark.parametrize(
    ("k", "error"),
    [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_check_k_refuses(k, error):
    with pytest.raises(error, match="k is"):
        v.check_k(k)


def test_options_are_checked():
    assert v.check_k(np.int64(4)) == 4
    assert v.check_threads(None, 1) == 1
    assert v.check_threads(None, 2) == 0
    assert v.check_threads(3) == 3
    with pytest.raises(ValueError, match="threads is 0; it must be at least 1"):
        v.check_threads(0)
    with pytest.raises(ValueError, match="metric is 'euclid'; it must be one of 'l2'"):
        v.check_metric("euclid", "float32")
    with pytest.raises(ValueError, match="which bits vectors do not have"):
        v.check_metric("l2", "bits")
    with pytest.raises(TypeError, match="metric is 3"):
        v.check_metric(3, "float32")
    with pytest.raises(ValueError, match="dim is 0"):
        v.check_dim(0)
    with pytest.raises(ValueError, match="at most 33025"):
        v.check_dim(40000, "int8")
    with pytest.raises(ValueError, match="radius is nan"):
        v.check_real(float("nan"), name="radius")
    with pytest.raises(TypeError, match="radius is 'a'"):
        v.check_real("a", name="radius")
    with pytest.raises(TypeError, match="progress"):
        v.check_progress(3)
