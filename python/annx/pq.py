# SPDX-License-Identifier: Apache-2.0
"""Product quantization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._validate import (
    as_queries,
    as_rows,
    check_choice,
    check_dim,
    check_int,
    check_progress,
    check_threads,
)
from annx.io import Saved, register

__all__ = ["ProductQuantizer"]


@register("pq")
class ProductQuantizer(Saved):
    """Vectors as a few bytes: a centroid number for each of several segments.

    Parameters
    ----------
    dim : int
        Of the vectors.
    n_segments : int
        From 1 to `dim`. Segments differ in length by one at most, the longer ones
        first, so `dim` need not be a multiple.
    n_bits : {8, 4}, default 8
        Bits a segment: codebooks of 256 or of 16 centroids.
    metric : {"l2", "ip", "cosine"}, default "l2"
        What the distances are. For "cosine" vectors are scaled to length 1 before they
        are coded.
    n_iterations : int, default 25
        Of k-means, for each codebook.
    max_points_per_centroid : int or None, default 256
        Train on at most so many vectors for each centroid of a codebook, drawn at
        random; None: on all.
    seed : int, default 0
        Same data, options and seed: same codebooks and codes, bit for bit, whatever the
        number of threads and the instruction set.

    Notes
    -----
    With ``c_l(x)`` the centroid of segment l, ``|x - decode(x)|**2`` is the sum over
    segments of ``|x_l - c_l(x)|**2``, and squared distances are estimated by sums of
    squares of segments: symmetric, ``sum_l |c_l(x) - c_l(y)|**2``, from tables between
    centroids, or asymmetric, ``sum_l |q_l - c_l(x)|**2``, from a table for each query,
    which is more accurate because the query is not quantized.

    Training costs O(n K dim) an iteration at worst, encoding O(K dim) a vector, a
    query's tables O(K dim), a distance O(n_segments), with K = 2**n_bits.

    A code is ``code_bytes`` bytes: one a segment with 8 bits; with 4 bits two segments
    share one, the first in its low half.

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((500, 10)).astype("f4")
    >>> pq = annx.ProductQuantizer(10, 3, n_bits=4).train(vectors)
    >>> codes = pq.encode(vectors)
    >>> codes.shape, codes.dtype
    ((500, 2), dtype('uint8'))
    >>> decoded = pq.decode(codes)
    >>> distances = pq.asymmetric_distances(vectors[0], codes)
    >>> exact = ((vectors[0] - decoded) ** 2).sum(axis=1)
    >>> bool(np.allclose(distances, exact, rtol=1e-4))
    True
    """

    _native_type = _core.ProductQuantizer
    _native: _core.ProductQuantizer

    def __init__(
        self,
        dim: int,
        n_segments: int,
        *,
        n_bits: int = 8,
        metric: str = "l2",
        n_iterations: int = 25,
        max_points_per_centroid: int | None = 256,
        seed: int = 0,
    ) -> None:
        n_bits = check_int(n_bits, name="n_bits", low=1)
        limit = 0
        if max_points_per_centroid is not None:
            limit = check_int(
                max_points_per_centroid,
                name="max_points_per_centroid",
                low=1,
                high=2**31,
            ) * (1 << min(n_bits, 8))
        self._native = _core.ProductQuantizer(
            dim=check_dim(dim),
            n_segments=check_int(n_segments, name="n_segments", low=1),
            n_bits=n_bits,
            metric=check_choice(metric, name="metric", choices=("l2", "ip", "cosine")),
            n_iterations=check_int(
                n_iterations, name="n_iterations", low=0, high=2**31
            ),
            sample_limit=limit,
            seed=check_int(seed, name="seed", low=0),
        )

    def train(
        self, vectors: Any, *, threads: int | None = None, progress: Any = None
    ) -> ProductQuantizer:
        """Learn the codebooks, replacing those of an earlier call.

        Parameters
        ----------
        vectors : array_like of float32, shape (n, dim)
            At least as many as a codebook has centroids.
        threads : int or None
            None: all cores. The result does not depend on it.
        progress : callable or None
            Called as ``progress(done, total)``. Whatever it raises, and Ctrl-C, stops
            the training and leaves this object as it was.

        Returns
        -------
        ProductQuantizer
            This object.

        Raises
        ------
        ValueError
            Too few vectors; another dimension; NaN, infinity or overflow.
        """
        rows = as_rows(vectors, name="vectors", dim=self.dim)
        self._native.train(rows, check_threads(threads), check_progress(progress))
        return self

    def encode(
        self, vectors: Any, *, threads: int | None = None, progress: Any = None
    ) -> NDArray[np.uint8]:
        """Return the codes of vectors.

        Parameters
        ----------
        vectors : array_like of float32, shape (n, dim) or (dim,)
        threads, progress
            As for `train`.

        Returns
        -------
        ndarray of uint8, shape (n, code_bytes) or (code_bytes,)
            Of each segment the nearest centroid, ties to the lower number.

        Raises
        ------
        NotTrainedError
            Before `train`.
        ValueError
            Another dimension; NaN, infinity or overflow.
        """
        rows, single = as_queries(vectors, name="vectors", dim=self.dim)
        codes = self._native.encode(
            rows, check_threads(threads, rows.shape[0]), check_progress(progress)
        )
        return codes[0] if single else codes

    def decode(self, codes: Any, *, threads: int | None = None) -> NDArray[np.float32]:
        """Return the vectors that codes stand for.

        Parameters
        ----------
        codes : array_like of uint8, shape (n, code_bytes) or (code_bytes,)
        threads : int or None
            None: all cores.

        Returns
        -------
        ndarray of float32, shape (n, dim) or (dim,)

        Raises
        ------
        NotTrainedError
            Before `train`.
        TypeError, ValueError
            No such codes.
        """
        rows, single = self._as_codes(codes, "codes")
        vectors = self._native.decode(rows, check_threads(threads, rows.shape[0]))
        return vectors[0] if single else vectors

    def symmetric_tables(self) -> NDArray[np.float32]:
        """Return the terms between the centroids of every segment.

        Returns
        -------
        ndarray of float32, shape (n_segments, n_centroids, n_centroids)
            Squared distances; for "ip" and "cosine" negated inner products.
        """
        return self._native.symmetric_tables()

    def asymmetric_tables(
        self, queries: Any, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return the terms between queries and the centroids of every segment.

        Parameters
        ----------
        queries : array_like of float32, shape (n, dim) or (dim,)
        threads : int or None
            None: all cores.

        Returns
        -------
        ndarray of float32, shape (n, n_segments, n_centroids) or without the n
            Squared distances; for "ip" and "cosine" negated inner products.
        """
        rows, single = as_queries(queries, dim=self.dim)
        tables = self._native.asymmetric_tables(
            rows, check_threads(threads, rows.shape[0])
        )
        return tables[0] if single else tables

    def symmetric_distances(
        self, a: Any, b: Any, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return the distances between coded vectors.

        Parameters
        ----------
        a : array_like of uint8, shape (n, code_bytes) or (code_bytes,)
        b : array_like of uint8, shape (m, code_bytes)
        threads : int or None
            None: all cores.

        Returns
        -------
        ndarray of float32, shape (n, m) or (m,)
            Of the decoded vectors in this quantizer's metric.
        """
        left, single = self._as_codes(a, "a")
        right, _ = self._as_codes(b, "b")
        distances = self._native.symmetric_distances(
            left, right, check_threads(threads, left.shape[0])
        )
        return distances[0] if single else distances

    def asymmetric_distances(
        self, queries: Any, codes: Any, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return the distances from queries to coded vectors.

        Parameters
        ----------
        queries : array_like of float32, shape (n, dim) or (dim,)
        codes : array_like of uint8, shape (m, code_bytes)
        threads : int or None
            None: all cores.

        Returns
        -------
        ndarray of float32, shape (n, m) or (m,)
            Between the queries as they are and the decoded vectors, in this
            quantizer's metric.
        """
        rows, single = as_queries(queries, dim=self.dim)
        right, _ = self._as_codes(codes, "codes")
        distances = self._native.asymmetric_distances(
            rows, right, check_threads(threads, rows.shape[0])
        )
        return distances[0] if single else distances

    def codebook(self, segment: int) -> NDArray[np.float32]:
        """Return a copy of a segment's centroids, shape (n_centroids, its length)."""
        return self._native.codebook(check_int(segment, name="segment", low=0))

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where segments begin, and `dim`: shape (n_segments + 1,)."""
        return self._native.starts().astype(np.int64)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self._native.dim)

    @property
    def n_segments(self) -> int:
        """How many segments."""
        return int(self._native.n_segments)

    @property
    def n_bits(self) -> int:
        """Bits a segment."""
        return int(self._native.n_bits)

    @property
    def n_centroids(self) -> int:
        """Centroids of each codebook."""
        return 1 << self.n_bits

    @property
    def code_bytes(self) -> int:
        """Bytes a vector."""
        return int(self._native.code_bytes)

    @property
    def metric(self) -> str:
        """What distances are."""
        return str(self._native.metric)

    @property
    def trained(self) -> bool:
        """Whether there are codebooks."""
        return bool(self._native.trained)

    def _as_codes(self, codes: Any, name: str) -> tuple[NDArray[np.uint8], bool]:
        array = np.asarray(codes)
        if array.dtype != np.uint8:
            raise TypeError(f"{name} has dtype {array.dtype}; it must be uint8")
        single = array.ndim == 1
        if single:
            array = array.reshape(1, -1)
        if array.ndim != 2 or array.shape[1] != self.code_bytes:
            raise ValueError(
                f"{name} has shape {np.shape(codes)}; it must have "
                f"(n, {self.code_bytes})"
            )
        return np.ascontiguousarray(array), single

    def __repr__(self) -> str:
        return (
            f"ProductQuantizer(dim={self.dim}, n_segments={self.n_segments}, "
            f"n_bits={self.n_bits}, metric={self.metric!r})"
        )
