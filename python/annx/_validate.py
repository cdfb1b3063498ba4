# SPDX-License-Identifier: Apache-2.0
"""Turn what callers pass into what the core takes, or say what is wrong with it.

Nothing here changes an argument. Arrays come back C-contiguous and of the exact element
type; they share memory with the input wherever that was already so, and a copy is made
otherwise. The element types and their NumPy form:

========== ============ ==========================================================
dtype      stored as    also taken, by a copy
========== ============ ==========================================================
float32    ``float32``  other floats (float64 is rounded), integers, booleans,
                        ``ml_dtypes.bfloat16``
float16    ``float16``  the same, rounded to nearest
bfloat16   ``uint16``   the same, rounded to nearest; ``ml_dtypes.bfloat16`` is a view
int8       ``int8``     integers, and floats that are whole numbers, in range
uint8      ``uint8``    the same
bits       ``uint8``    booleans, one a bit; packed bytes are taken as they are
========== ============ ==========================================================
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core

__all__ = [
    "DTYPES",
    "METRICS",
    "as_ids",
    "as_queries",
    "as_rows",
    "as_set",
    "check_choice",
    "check_dim",
    "check_int",
    "check_k",
    "check_metric",
    "check_progress",
    "check_radius",
    "check_real",
    "check_threads",
    "from_stored",
    "query_dtype",
    "row_width",
    "stored_dtype",
]

METRICS = ("l2", "ip", "cosine", "l1", "hamming", "jaccard")
DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8", "bits")

# The largest dimension for which an 8-bit sum cannot overflow int32.
MAX_DIM_8 = 33025
MAX_DIM = 1 << 20
_INT64_MAX = (1 << 63) - 1

_FLOAT32: np.dtype[Any] = np.dtype(np.float32)
_STORED: dict[str, np.dtype[Any]] = {
    "float32": _FLOAT32,
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bits": np.dtype(np.uint8),
}


def check_choice(value: str, *, name: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(c) for c in choices)
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name} is {value!r}; it must be one of {listed}")


def check_int(value: Any, *, name: str, low: int, high: int = _INT64_MAX) -> int:
    """Return `value` as an int within [low, high]; floats and booleans are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} is of type {type(value).__name__}; it must be an integer"
        ) from None
    if number < low:
        raise ValueError(f"{name} is {number}; it must be at least {low}")
    if number > high:
        raise ValueError(f"{name} is {number}; it must be at most {high}")
    return number


def check_real(value: Any, *, name: str, low: float = -math.inf) -> float:
    """Return `value` as a finite float that is at least `low`."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is of type {type(value).__name__}; it must be a number"
        ) from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; it must be finite")
    if number < low:
        raise ValueError(f"{name} is {number}; it must be at least {low}")
    return number


def check_k(k: Any) -> int:
    """Return the number of neighbours asked for, at least 1."""
    if type(k) is int and 0 < k < 1 << 31:
        return k
    return check_int(k, name="k", low=1, high=(1 << 31) - 1)


def check_threads(threads: Any, n_queries: int = 0) -> int:
    """Return how many threads to use; 0 stands for every core.

    Without a choice a single query takes one thread, because waking a second costs more
    than most searches, and anything else takes every core.
    """
    if threads is None:
        return 1 if n_queries == 1 else 0
    return check_int(threads, name="threads", low=1, high=1024)


def check_dim(dim: Any, dtype: str = "float32") -> int:
    """Return the number of dimensions; 8-bit sums must fit int32."""
    high = MAX_DIM_8 if dtype in ("int8", "uint8") else MAX_DIM
    return check_int(dim, name="dim", low=1, high=high)


def check_metric(metric: Any, dtype: str, *, hyperbolic: bool = False) -> str:
    """Return the metric if it is one that is defined over `dtype`.

    ``"poincare"``, which is of floats, only where the caller is `hyperbolic`.
    """
    choices = (*METRICS, "poincare") if hyperbolic else METRICS
    check_choice(metric, name="metric", choices=choices)
    if metric == "poincare":
        check_choice(dtype, name="dtype", choices=DTYPES[:3])
    elif (dtype == "bits") != (metric in ("hamming", "jaccard")):
        wanted = METRICS[4:] if dtype == "bits" else METRICS[:4]
        raise ValueError(
            f"metric is {metric!r}, which {dtype} vectors do not have; "
            f"it must be one of {', '.join(repr(m) for m in wanted)}"
        )
    return str(metric)


def check_progress(progress: Any) -> Any:
    """Return a callable ``(done, total)`` or None."""
    if progress is None or callable(progress):
        return progress
    raise TypeError(
        f"progress is of type {type(progress).__name__}; it must be a callable that "
        "takes (done, total), or None"
    )


def row_width(dim: int, dtype: str) -> int:
    """Columns of the stored form: `dim`, or bytes for bits."""
    return (dim + 7) // 8 if dtype == "bits" else dim


def query_dtype(dtype: str) -> str:
    """Return the type of queries against `dtype`: float32 against any floats."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's type of the stored form."""
    return _STORED[dtype]


def as_rows(
    x: Any, *, name: str, dim: int | None, dtype: str = "float32", check: bool = True
) -> NDArray[Any]:
    """Return a matrix of vectors in its stored form, checked.

    Parameters
    ----------
    x : array_like, shape (n, dim)
        Anything with the buffer protocol, ``__array__`` or DLPack, or nested sequences.
    name : str
        What errors call it.
    dim : int or None
        Dimensions wanted (bits, for ``"bits"``); None takes any.
    dtype : str
        One of `DTYPES`.
    check : bool
        Whether to look at the values; if not, native code must.

    Returns
    -------
    ndarray, shape (n, row_width(dim, dtype))
        C-contiguous; a view of `x` where `x` had the stored form already.

    Raises
    ------
    TypeError
        The elements are no numbers, or of a kind that `dtype` does not take.
    ValueError
        Wrong shape; NaN or infinity; a squared norm beyond float32; integers out of
        range; bits set after the last.
    """
    if type(x) is np.ndarray and dtype == "float32" and x.dtype is _FLOAT32:
        array: NDArray[Any] = x
    else:
        array = _as_array(x, name)
    if array.ndim != 2:
        if array.ndim == 1 and array.shape[0] == 0 and not isinstance(x, np.ndarray):
            array = array.reshape(0, row_width(dim or 1, dtype))  # an empty list
        else:
            raise ValueError(
                f"{name} has {array.ndim} dimensions (shape {array.shape}); "
                "it must have 2, a vector a row"
            )
    stored = _to_stored(array, name, dim, dtype)
    if check:
        if dim is None:
            dim = stored.shape[1] * (8 if dtype == "bits" else 1)
        _core.check_rows(stored, dtype, dim, name)
    return stored


def as_queries(
    x: Any,
    *,
    name: str = "queries",
    dim: int,
    dtype: str = "float32",
    check: bool = True,
) -> tuple[NDArray[Any], bool]:
    """Return queries as a matrix, and whether there was one query of shape (dim,).

    As `as_rows`. Queries against float16 and bfloat16 rows are float32: give
    ``dtype="float32"``. With ``check=False`` values are left to the native search,
    which then must refuse NaN and infinity itself.
    """
    if (
        type(x) is np.ndarray
        and x.dtype is _FLOAT32
        and dtype == "float32"
        and x.flags.c_contiguous
    ):
        shape = x.shape
        if len(shape) == 1 and shape[0] == dim:
            rows = x.reshape(1, dim)
            if check:
                _core.check_rows(rows, dtype, dim, name)
            return rows, True
        if len(shape) == 2 and shape[1] == dim:
            if check:
                _core.check_rows(x, dtype, dim, name)
            return x, False
    array = _as_array(x, name)
    single = array.ndim == 1
    if single:
        array = array.reshape(1, -1)
    elif array.ndim != 2:
        raise ValueError(
            f"{name} has {array.ndim} dimensions (shape {array.shape}); "
            "it must have 1 (one query) or 2 (a query a row)"
        )
    stored = _to_stored(array, name, dim, dtype)
    if check:
        _core.check_rows(stored, dtype, dim, name)
    return stored, single


def as_ids(
    ids: Any, *, name: str = "ids", count: int | None = None, unique: bool = False
) -> NDArray[np.int64]:
    """Return ids as a C-contiguous int64 vector of values >= 0; one integer is one id.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Wrong shape or number; negative; beyond int64; repeated, if `unique`.
    """
    array = _as_array(ids, name)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has {array.ndim} dimensions (shape {array.shape}); it must have 1"
        )
    if array.shape[0] == 0 and not isinstance(ids, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; it must be integers (int64)")
    if count is not None and array.shape[0] != count:
        raise ValueError(f"{name} has {array.shape[0]} entries; it must have {count}")
    if array.shape[0] != 0:
        if array.dtype.kind == "i" and int(array.min()) < 0:
            raise ValueError(f"{name} holds {int(array.min())}; ids must be >= 0")
        if array.dtype.kind == "u" and int(array.max()) > _INT64_MAX:
            raise ValueError(f"{name} holds {int(array.max())}; ids must fit int64")
    result: NDArray[np.int64] = np.ascontiguousarray(array, dtype=np.int64)
    if unique and result.shape[0] > 1:
        ordered = np.sort(result)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.shape[0] != 0:
            raise ValueError(
                f"{name} holds {int(twice[0])} more than once; ids must be unique"
            )
    return result


def from_stored(rows: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return stored rows as callers know them: only bfloat16 differs.

    It becomes an ``ml_dtypes.bfloat16`` array if that package is installed, and
    float32, which holds every bfloat16 exactly, if not.
    """
    if dtype != "bfloat16":
        return rows
    try:
        import ml_dtypes
    except ImportError:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    view: NDArray[Any] = rows.view(ml_dtypes.bfloat16)
    return view


def _as_array(x: Any, name: str) -> NDArray[Any]:
    """Any array-like as an ndarray, without a copy where it has a buffer."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError(f"{name} is a masked array; fill the masked entries first")
    if type(x) is np.ndarray:
        return x
    if hasattr(x, "__dlpack__") and not (
        hasattr(x, "__array__") or hasattr(x, "__array_interface__")
    ):
        shared: NDArray[Any] = np.from_dlpack(x)
        return shared
    try:
        array: NDArray[Any] = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name} cannot be read as an array: {error}") from None
    if array.dtype.kind == "O" and array.ndim == 0:
        raise TypeError(
            f"{name} is of type {type(x).__name__}; it must be an array of numbers"
        )
    return array


def _to_stored(
    array: NDArray[Any], name: str, dim: int | None, dtype: str
) -> NDArray[Any]:
    """Check the width and convert to the stored element type."""
    if dtype == "bits":
        return _to_bits(array, name, dim)
    if dim is not None and array.shape[1] != dim:
        raise ValueError(f"{name} has {array.shape[1]} columns; it must have {dim}")
    if array.shape[1] == 0:
        raise ValueError(f"{name} has 0 columns; it must have at least 1")
    bfloat = array.dtype.name == "bfloat16"
    if array.dtype.kind not in "biuf" and not bfloat:
        raise TypeError(f"{name} has dtype {array.dtype}; it must be numbers ({dtype})")
    stored = _STORED[dtype]
    if bfloat:
        words = np.ascontiguousarray(array).view(np.uint16)
        if dtype == "bfloat16":
            return words
        array = (words.astype(np.uint32) << 16).view(np.float32)
    if dtype in ("int8", "uint8"):
        return _to_bytes(array, name, stored)
    if dtype == "bfloat16":
        if array.dtype == np.uint16:
            raise TypeError(
                f"{name} has dtype uint16, which could be numbers or the bits of "
                "bfloat16; view it as ml_dtypes.bfloat16 or convert it to float32"
            )
        return _round_to_bfloat(array, name)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result: NDArray[Any] = np.ascontiguousarray(array, dtype=stored)
    if result.dtype != array.dtype and array.dtype.itemsize > stored.itemsize:
        _refuse_overflow(array, result, name, dtype)
    return result


def _refuse_overflow(
    array: NDArray[Any], result: NDArray[Any], name: str, dtype: str
) -> None:
    """Say that a finite value became infinite, rather than that it was."""
    lost = np.isinf(result)
    if lost.any() and np.isfinite(array[lost]).any():
        raise ValueError(f"{name} holds values too large for {dtype}")


def _round_to_bfloat(array: NDArray[Any], name: str) -> NDArray[np.uint16]:
    """Round to nearest, ties to even, on the bits of float32."""
    with np.errstate(over="ignore", under="ignore"):
        wide = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(wide).all():
        _refuse_overflow(array, wide, name, "bfloat16")
        raise ValueError(f"{name} holds NaN or infinity; every value must be finite")
    bits = wide.view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    words: NDArray[np.uint16] = (rounded >> np.uint32(16)).astype(np.uint16)
    if ((words & np.uint16(0x7F80)) == np.uint16(0x7F80)).any():
        raise ValueError(f"{name} holds values too large for bfloat16")
    return words


def _to_bytes(array: NDArray[Any], name: str, stored: np.dtype[Any]) -> NDArray[Any]:
    """8-bit integers from integers, or from floats that are whole numbers."""
    if array.dtype == stored:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "b":
        return np.ascontiguousarray(array, dtype=stored)
    limits = np.iinfo(stored)
    if array.size != 0:
        low, high = array.min(), array.max()
        if not (low >= limits.min and high <= limits.max):  # also catches NaN
            raise ValueError(
                f"{name} holds values from {low} to {high}; "
                f"{stored} vectors hold {limits.min} to {limits.max}"
            )
    result: NDArray[Any] = np.ascontiguousarray(array, dtype=stored)
    if array.dtype.kind == "f" and not np.array_equal(result, array):
        raise ValueError(
            f"{name} holds fractions; {stored} vectors hold whole numbers "
            "(round or scale them first)"
        )
    return result


def _to_bits(array: NDArray[Any], name: str, dim: int | None) -> NDArray[np.uint8]:
    """Packed bytes, bit 0 first."""
    if array.dtype.kind == "b":
        if dim is not None and array.shape[1] != dim:
            raise ValueError(
                f"{name} has {array.shape[1]} columns of booleans; it must have {dim}"
            )
        packed: NDArray[np.uint8] = np.packbits(array, axis=1, bitorder="little")
        return packed
    if array.dtype != np.uint8:
        raise TypeError(
            f"{name} has dtype {array.dtype}; bit vectors are uint8 (packed, bit 0 "
            "first) or bool (one a bit)"
        )
    if dim is not None and array.shape[1] != (dim + 7) // 8:
        raise ValueError(
            f"{name} has {array.shape[1]} columns of bytes; "
            f"{dim} bits take {(dim + 7) // 8}"
        )
    return np.ascontiguousarray(array)


def as_set(
    vectors: Any,
    name: str,
    metric: str,
    dtype: str | None,
    *,
    check: bool = True,
    hyperbolic: bool = False,
) -> tuple[NDArray[Any], int, str, str]:
    """Return rows in stored form, their dim, their dtype and the metric, checked.

    Without `dtype` it is that of the vectors, if there is an index of that type, else
    float32, and bits for the metrics of bits.
    """
    if dtype is None:
        kind = getattr(getattr(vectors, "dtype", None), "name", None)
        dtype = kind if kind in DTYPES else "float32"
        if metric in ("hamming", "jaccard"):
            dtype = "bits"
    check_choice(dtype, name="dtype", choices=DTYPES)
    check_metric(metric, dtype, hyperbolic=hyperbolic)
    boolean = getattr(getattr(vectors, "dtype", None), "kind", None) == "b"
    if dtype == "bits" and boolean:
        dim = int(vectors.shape[-1])
        rows = as_rows(vectors, name=name, dim=dim, dtype=dtype, check=check)
        return rows, dim, dtype, metric
    rows = as_rows(vectors, name=name, dim=None, dtype=dtype, check=check)
    dim = int(rows.shape[1]) * (8 if dtype == "bits" else 1)
    check_dim(dim, dtype)
    assert row_width(dim, dtype) == rows.shape[1]
    return rows, dim, dtype, metric


def check_radius(radius: Any, metric: str) -> float:
    """Return a radius: any number for distances that can be negative, else >= 0."""
    low = -math.inf if metric in ("ip", "cosine") else 0.0
    return check_real(radius, name="radius", low=low)
