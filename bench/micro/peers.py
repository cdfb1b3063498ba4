# SPDX-License-Identifier: Apache-2.0
"""The contenders: each gives, for one cell, a callable of no arguments, or None.

A cell is one query (shape (d,)), or several, against rows (n, d) of one type under one
metric.
Each callable computes all n distances in one call of its package, into memory that was
allocated before where the package allows it. Peers that are not installed are left out.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import warnings

import ml_dtypes
import numpy as np

import annx
from annx import _core

NONE = np.zeros(0, np.uint8)
NO_SLOTS = np.zeros(0, np.uint32)


def flat_bytes(array):
    """The array's memory as uint8."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def optional(name):
    """A module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Annx:
    """This package's own kernels."""

    name = "annx"

    def __init__(self):
        #: Repeats within one call: the probe checks its arguments at length, which is
        #: no part of a kernel. The caller divides by it.
        self.repeat = 1

    def version(self):
        """Version and instruction set."""
        return f"{annx.__version__} ({_core.isa()})"

    def prepare(self, cell):
        """One probe of the kernel, its arguments ready."""
        n, d = cell.rows.shape
        kernel = "gather" if cell.slots is not None else cell.shape
        op = {"ip": "dot", "cosine": ""}.get(cell.metric, cell.metric)
        query = cell.query
        floats = cell.dtype in ("float32", "float16", "bfloat16")
        if floats:
            query = query.astype(np.float32)
        count = n if cell.slots is None else len(cell.slots)
        first, second = np.zeros(cell.results * 4, np.uint8), NONE
        several = {}
        if cell.shape == "block":
            several = {"queries": len(query), "query_stride": query.strides[0]}
        if cell.metric == "cosine":
            kernel, second = f"cosine_{kernel}", np.zeros(count * 4, np.uint8)
        data = flat_bytes(cell.rows)
        arguments = (
            "", kernel, op, cell.dtype, flat_bytes(query), data,
            NO_SLOTS if cell.slots is None else cell.slots, first, second,
        )  # fmt: skip
        stride = cell.rows.strides[0]

        repeat = self.repeat

        def call():
            _core.probe_kernel(
                *arguments, dim=d, count=n, stride=stride, repeat=repeat, **several
            )

        if cell.metric != "cosine":
            return call
        # The two sums are not yet distances: the last step belongs to the time. It
        # takes the dots with the query's square behind them; the kernel writes there.
        kind = np.float32 if floats else np.int32
        square = np.square(query.astype(np.float64)).sum().astype(kind)
        dots = np.append(first, flat_bytes(square))
        arguments = (*arguments[:7], dots, second)
        finished = ("", "cosine_finish", "", cell.dtype, dots, second, NO_SLOTS)
        out = np.zeros(count * 4, np.uint8)

        def call_both():
            call()
            _core.probe_kernel(
                *finished, out, NONE, dim=0, count=count, stride=0, repeat=repeat
            )

        return call_both


class Simd:
    """SimSIMD and its successor NumKong, which share an interface."""

    def __init__(self, module, names):
        # SimSIMD 6.5 returns None without owning it when given `out`: after enough
        # calls CPython stops with "deallocating None". Spare references prevent it.
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 28
        self.name = module
        self._module = importlib.import_module(module)
        self._names = names

    def version(self):
        """Version."""
        return importlib.metadata.version(self.name)

    def prepare(self, cell):
        """One cdist of the queries against the rows."""
        metric = self._names.get(cell.metric)
        if metric is None or cell.slots is not None:
            return None
        rows, query, extra = cell.rows, np.atleast_2d(cell.query), {}
        if cell.dtype == "bfloat16":
            rows, query = rows.view(np.uint16), query.view(np.uint16)
            extra["dtype"] = "bfloat16"
        if cell.dtype == "bits":
            extra["dtype"] = self._names["bits"]
        function = self._module.cdist
        for out in (np.zeros((len(query), len(rows))), None):
            given = extra if out is None else {**extra, "out": out}
            try:
                function(query, rows, metric, **given)
            except (TypeError, ValueError, LookupError):
                continue
            return lambda given=given: function(query, rows, metric, **given)
        return None


class Faiss:
    """faiss's own distance functions, where its Python module exposes them."""

    name = "faiss"

    def __init__(self):
        self._faiss = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(1)

    def version(self):
        """Version."""
        return self._faiss.__version__

    def prepare(self, cell):
        """A call over all rows through SWIG, or a search of a flat coded index."""
        faiss = self._faiss
        p = faiss.swig_ptr
        n, d = cell.rows.shape
        rows, query = cell.rows, cell.query
        if cell.dtype == "float32" and cell.shape == "block":
            metric = faiss.METRIC_INNER_PRODUCT
            return lambda: faiss.pairwise_distances(query, rows, metric)
        if cell.dtype == "float32" and cell.metric in ("l2", "ip"):
            count = n if cell.slots is None else len(cell.slots)
            out = np.zeros(count, np.float32)
            if cell.slots is None:
                function = {
                    "l2": faiss.fvec_L2sqr_ny,
                    "ip": faiss.fvec_inner_products_ny,
                }[cell.metric]
                return lambda: function(p(out), p(query), p(rows), d, n)
            ids = cell.slots.astype(np.int64)
            function = {
                "l2": faiss.fvec_L2sqr_by_idx,
                "ip": faiss.fvec_inner_products_by_idx,
            }[cell.metric]
            return lambda: function(p(out), p(query), p(rows), p(ids), d, 1, count)
        if cell.slots is not None:
            return None
        if cell.dtype == "bits" and cell.metric == "hamming":
            queries = np.atleast_2d(query)
            m, out32 = len(queries), np.zeros(cell.results, np.int32)
            return lambda: faiss.hammings(p(queries), p(rows), m, n, d, p(out32))
        kinds = {
            "float16": faiss.ScalarQuantizer.QT_fp16,
            "bfloat16": faiss.ScalarQuantizer.QT_bf16,
            "uint8": faiss.ScalarQuantizer.QT_8bit_direct,
            "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed,
        }
        if cell.dtype not in kinds or cell.metric not in ("l2", "ip"):
            return None
        metric = faiss.METRIC_L2 if cell.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexScalarQuantizer(d, kinds[cell.dtype], metric)
        for begin in range(0, n, 65536):
            index.add(rows[begin : begin + 65536].astype(np.float32))
        queries = np.atleast_2d(query).astype(np.float32)
        return lambda: index.search(queries, 1)


class Numpy:
    """NumPy with its BLAS."""

    name = "numpy"

    def version(self):
        """Version."""
        return np.__version__

    def prepare(self, cell):
        """The shortest expression."""
        if cell.slots is not None:
            return None
        rows, query = cell.rows, cell.query
        if cell.dtype == "float32" and cell.metric == "ip":
            out = np.zeros((len(rows), *query.shape[:-1]), np.float32)
            return lambda: np.matmul(rows, query.T, out=out)
        if cell.shape == "block":
            return None
        if cell.dtype == "float32" and cell.metric == "l2":
            return lambda: np.square(rows - query).sum(axis=1)
        if cell.dtype == "float32" and cell.metric == "l1":
            return lambda: np.abs(rows - query).sum(axis=1)
        if cell.dtype == "bits" and cell.metric == "hamming":
            return lambda: np.bitwise_count(rows ^ query).sum(axis=1)
        return None


def contenders():
    """Everything that is installed."""
    found = [Annx()]
    if optional("simsimd"):
        names = {
            "l2": "sqeuclidean", "ip": "dot", "cosine": "cosine", "hamming": "hamming",
            "jaccard": "jaccard", "bits": "bin8",
        }  # fmt: skip
        found.append(Simd("simsimd", names))
    if optional("numkong"):
        names = {
            "l2": "sqeuclidean", "ip": "dot", "cosine": "angular", "hamming": "hamming",
            "jaccard": "jaccard", "bits": "uint1",
        }  # fmt: skip
        found.append(Simd("numkong", names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if optional("faiss"):
            found.append(Faiss())
    found.append(Numpy())
    return found


def draw(rng, dtype, count, dim):
    """Rows of a type."""
    if dtype == "bits":
        return rng.integers(0, 256, (count, dim), np.uint8)
    if dtype in ("int8", "uint8"):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, (count, dim), dtype)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return rng.random((count, dim), np.float32).astype(kind)
