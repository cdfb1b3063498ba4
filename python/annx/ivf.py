# SPDX-License-Identifier: Apache-2.0
"""Inverted lists, of vectors or of short codes ranked again with the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress, ScannedIndex
from annx._validate import (
    DTYPES,
    as_queries,
    as_rows,
    check_choice,
    check_dim,
    check_int,
    check_k,
    check_metric,
    check_progress,
    check_real,
    check_threads,
    query_dtype,
)
from annx.io import register
from annx.results import SearchResult, result_of

__all__ = ["IVFIndex"]

# In the order of the native codec's numbers.
_CODECS = ("rabitq", "pq4", "flat", "pq8")
_PRODUCTS = ("pq4", "pq8")
_ROTATIONS = (None, "random", "opq")
_SCALAR_BITS = {"sq8": 8, "sq4": 4}
# What is kept in place of vectors.
_CODED = (*_SCALAR_BITS, "codes")


@register("ivf")
class IVFIndex(ScannedIndex):
    """Vectors in lists around centroids; a query looks at the nearest lists only.

    Parameters
    ----------
    dim : int
        Dimensions; bits for ``dtype="bits"``.
    metric : {"l2", "ip", "cosine", "l1", "hamming", "jaccard"}, default "l2"
        ``"l1"`` and, for bits, ``"hamming"`` and ``"jaccard"`` need ``codec="flat"``.
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        What goes in. Queries are float32 over float vectors, and otherwise of the same
        type.
    storage : {None, "float32", "float16", "bfloat16", "sq8", "sq4", "codes"}
        What is kept beside the codes, to rank the best candidates by. None: the vectors
        as they are. A 16-bit type (for float32 vectors): half the bytes, and `get` and
        distances are of the rounded vectors. ``"sq8"``, ``"sq4"``: 8 or 4 bits a
        dimension, even steps between two ends for each dimension, of the difference of
        a vector and its list's centroid; distances and `get` are of the vectors that
        these stand for. ``"codes"``: nothing else, so distances are estimates and `get`
        returns what the codes stand for. The last three are not for ``"flat"``.
    codec : {"rabitq", "pq4", "pq8", "flat"}, default "rabitq"
        What lists are made of. ``"flat"``: of the vectors as `storage` says, so that
        everything in a list that is looked at is ranked exactly; for every metric and
        type. Otherwise of codes for the difference of a vector and its list's
        centroid. ``"rabitq"``: a bit a dimension after a random rotation. ``"pq4"``: 4
        bits a segment, by trained codebooks; quicker for the same recall where it was
        measured at 50 and 128 dimensions, and slower at 384 and 784. ``"pq8"``: 8 bits
        a segment, looked up in memory and not in registers, so a code is read several
        times as slowly; estimates are the best of a given length, which counts where
        vectors are not kept.
    bits : int, default 1
        Bits a dimension, 1 to 8, of ``codec="rabitq"`` with ``storage="codes"``. From 2
        on a list is still scanned by one bit a dimension, which is kept apart, and the
        best candidates are ranked by codes of so many bits, in place of vectors.
    spill : float or None, default None
        Not for ``"flat"``. From 0 on, the code of a vector goes into a second list too,
        which is chosen so that its centroid is near and, the more the larger `spill`
        is, in another direction than the first's (0.5 to 1.5 did best). Half as many
        lists need to be looked at, for twice the codes; searches were 5 to 25 % slower
        where it was measured, so try before use.
    n_lists : int or None
        None: twice the square root of the number of vectors that `train` gets, but no
        more than one for 39 of them.
    n_segments : int or None
        Of ``"pq4"`` and ``"pq8"``, from 1 to `dim`; None: one for every 2 dimensions,
        of ``"pq8"`` for every 4.
    rotation : {None, "random", "opq"}, default None
        Of ``"pq4"`` and ``"pq8"``: rotate differences before they are cut into
        segments. ``"random"``, as ``"rabitq"`` always does: estimates are better where
        some dimensions vary more than others, or go together in other ways than with
        their neighbours; it costs O(dim log dim) a vector and a query. ``"opq"``: the
        rotation is learnt with the codebooks (optimised product quantization), for
        estimates that are better yet; O(dim^2) a vector and a query, and training takes
        O(dim^3). At most 4,096 dimensions.
    residual : bool, default True
        Whether codes are of the difference of a vector and its list's centroid. False:
        of its difference from the mean of all vectors. Estimates are worse where lists
        are many; of use where one code of a vector is to serve any list.
    n_iterations : int, default 10
        Of k-means, for the centroids.
    max_points_per_list : int or None, default 256
        Train on at most so many vectors for each list.
    n_probe : int, default 16
        Lists that a search looks at unless told otherwise.
    seed : int, default 0
        Of everything drawn at random; the index depends on nothing else but the data.

    Notes
    -----
    Memory: ``dim / 8`` bytes a vector for ``"rabitq"``, ``n_segments / 2`` for
    ``"pq4"``, `n_segments` for ``"pq8"`` and none for ``"flat"``, 8 more a vector, the
    vectors themselves as `storage` says (``"sq8"``: `dim` and 4 bytes, ``"sq4"``: half
    of `dim` and 4, codes of 2 `bits` or more: ``dim * bits / 8`` and 8), 16 bytes a
    dimension and list, and ``4 dim**2`` for ``rotation="opq"``. A list wastes less than
    32 codes (of ``"flat"``: vectors).

    Lists are made by k-means under l2: of vectors of length 1 for ``"cosine"`` and
    ``"jaccard"``, of bits as numbers 0 and 1. They are visited in order of their
    centroids' distance from the query, for ``"ip"`` of the inner product. With `spill`
    a vector x of list c, r = x - c, has its second in the list c' of the least ``|x -
    c'|^2 + spill <r / |r|, x - c'>^2``; `add` then compares it with every centroid.

    An estimated distance uses one table a query, rounded to 7 bits an entry, and is
    unbiased over the random rotation: its error is below ``epsilon |q - c| f t /
    sqrt(dim - 1)`` (f t being what is left of the vector across its code) but for a
    share of about ``exp(-epsilon**2 / 2)``, and below half a table's step for every 4
    dimensions from rounding. Candidates are the best ``k * rerank`` estimates; those
    whose estimate less the bound is nearer than the k-th best so far are measured with
    the canonical distance, or by their longer codes. Codes of more `bits` have the same
    bound with a t that halves with every bit, and no rounding to speak of.

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.
    Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough", 2015.
    Ge, He, Ke and Sun, "Optimized product quantization", 2013.
    Gao and Long, "RaBitQ", 2024.
    Sun, Simcha, Dopson, Guo and Kumar, "SOAR: improved indexing for approximate nearest
    neighbor search", 2023.
    Gao et al., "Practical and asymptotically optimal quantization of high-dimensional
    vectors in Euclidean space for approximate nearest neighbor search", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((2000, 16)).astype("f4")
    >>> index = annx.IVFIndex(16, n_lists=20).train(vectors)
    >>> ids = index.add(vectors)
    >>> found = index.search(vectors[:3], k=5, n_probe=4)
    >>> found.ids[:, 0].tolist(), found.distances[:, 0].tolist()
    ([0, 1, 2], [0.0, 0.0, 0.0])
    """

    _native_type = _core.IVFIndex

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        storage: str | None = None,
        codec: str = "rabitq",
        bits: int = 1,
        spill: float | None = None,
        n_lists: int | None = None,
        n_segments: int | None = None,
        rotation: str | None = None,
        residual: bool = True,
        n_iterations: int = 10,
        max_points_per_list: int | None = 256,
        n_probe: int = 16,
        seed: int = 0,
    ) -> None:
        check_choice(dtype, name="dtype", choices=DTYPES)
        dim = check_dim(dim, dtype)
        check_choice(codec, name="codec", choices=_CODECS)
        if codec == "flat":
            check_metric(metric, dtype)
        else:
            check_choice(dtype, name=f"dtype (of codec={codec!r})", choices=DTYPES[:-1])
            check_choice(
                metric,
                name=f"metric (of codec={codec!r})",
                choices=("l2", "ip", "cosine"),
            )
        if storage is None:
            storage = dtype
        kept: tuple[str, ...] = (dtype,)
        if dtype == "float32":
            kept = ("float32", "float16", "bfloat16")
        if codec != "flat":
            kept = (*kept, *_CODED)
        check_choice(storage, name="storage", choices=kept)
        grid_bits = _SCALAR_BITS.get(storage, 0)
        if check_int(bits, name="bits", low=1, high=8) > 1:
            if codec != "rabitq" or storage != "codes":
                raise ValueError(
                    f"bits is {bits}; more than 1 are of codec='rabitq' with "
                    f"storage='codes', and these are {codec!r} and {storage!r}"
                )
            grid_bits = bits
        if n_segments is None:
            n_segments = (dim + 3) // 4 if codec == "pq8" else (dim + 1) // 2
        elif codec not in _PRODUCTS:
            raise ValueError(
                f"n_segments is {n_segments}; only codecs 'pq4' and 'pq8' have "
                f"segments, and codec is {codec!r}"
            )
        if rotation is not None:
            check_choice(rotation, name="rotation", choices=("random", "opq"))
            if codec not in _PRODUCTS:
                raise ValueError(
                    f"rotation is {rotation!r}; only codecs 'pq4' and 'pq8' have the "
                    f"choice, and codec is {codec!r}"
                )
        if not isinstance(residual, bool):
            raise TypeError(f"residual is {residual!r}; it must be True or False")
        limit = 0
        if max_points_per_list is not None:
            limit = check_int(
                max_points_per_list, name="max_points_per_list", low=1, high=2**31
            )
        lists = 0
        if n_lists is not None:
            lists = check_int(n_lists, name="n_lists", low=1, high=2**24)
        self._native = _core.IVFIndex(
            {
                "dim": dim,
                "metric": metric,
                "dtype": dtype,
                "storage": dtype if storage in _CODED else storage,
                "keep_rows": storage not in _CODED,
                "grid_bits": grid_bits,
                "scalar": storage in _SCALAR_BITS,
                "turn": _ROTATIONS.index(rotation),
                "residual": residual,
                "spill": -1.0
                if spill is None
                else check_real(spill, name="spill", low=0),
                "codec": _CODECS.index(codec),
                "n_segments": check_int(n_segments, name="n_segments", low=1, high=dim),
                "n_lists": lists,
                "n_iterations": check_int(
                    n_iterations, name="n_iterations", low=0, high=2**31
                ),
                "sample_limit": limit,
                "n_probe": check_int(n_probe, name="n_probe", low=1, high=2**24),
                "seed": check_int(seed, name="seed", low=0, high=2**64 - 1),
            }
        )

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        ids: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> IVFIndex:
        """Train on vectors, (n, dim), and add them; `options` as for the class."""
        rows = as_rows(vectors, name="vectors", dim=None, dtype=dtype)
        dim = rows.shape[1] * (8 if dtype == "bits" else 1)
        if dtype == "bits" and np.asarray(vectors).dtype.kind == "b":
            dim = np.shape(vectors)[1]
        index = cls(dim, metric, dtype, **options)
        index._train(rows, threads, progress)
        index._add(rows, ids, threads, progress)
        return index

    # Of rows in their stored form, which need not be vectors as a caller gives them.
    def _train(
        self, rows: NDArray[Any], threads: int | None, progress: Progress | None
    ) -> None:
        self._native.train(rows, check_threads(threads), check_progress(progress))

    @property
    def trained(self) -> bool:
        """Whether there are centroids."""
        return bool(self._native.trained)

    @property
    def n_lists(self) -> int:
        """How many lists; 0 before `train`."""
        return int(self._native.n_lists)

    @property
    def n_probe(self) -> int:
        """Lists that a search looks at unless told otherwise."""
        return int(self._native.options["n_probe"])

    @property
    def codec(self) -> str:
        """What lists are made of."""
        return _CODECS[self._native.options["codec"]]

    @property
    def bits(self) -> int:
        """Bits a dimension of ``codec="rabitq"``; 0 for other codecs."""
        if self.codec != "rabitq":
            return 0
        options = self._native.options
        return 1 if options["scalar"] else max(1, int(options["grid_bits"]))

    @property
    def rotation(self) -> str | None:
        """How differences are rotated before they are coded."""
        if self.codec == "rabitq":
            return "random"
        return _ROTATIONS[self._native.options["turn"]]

    @property
    def residual(self) -> bool:
        """Whether codes are relative to the centroids of lists."""
        return bool(self._native.options["residual"])

    @property
    def spill(self) -> float | None:
        """How second lists are chosen; None without them."""
        spill = float(self._native.options["spill"])
        return None if spill < 0 else spill

    @property
    def storage(self) -> str:
        """What is kept beside the codes."""
        options = self._native.options
        for name, bits in _SCALAR_BITS.items():
            if options["scalar"] and options["grid_bits"] == bits:
                return name
        return str(options["storage"])

    @property
    def list_sizes(self) -> NDArray[np.int64]:
        """Vectors in each list, shape (n_lists,); with `spill` each is in two."""
        return np.array(self._native.list_sizes(), np.int64)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """The centroids of the lists, shape (n_lists, dim): a copy."""
        found: NDArray[np.float32] = self._native.centroids()
        return found

    def train(
        self,
        vectors: Any,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> IVFIndex:
        """Learn centroids and codes; vectors held already are coded anew.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
            At least one for each list, and for codes 16 (``"pq8"``: 256).
        threads : int, optional
            All cores unless given. The result does not depend on it.
        progress : callable, optional
            Called with (done, total) now and then, anew for each step. Whatever it
            raises, and Ctrl-C, stops the training and leaves the index as it was.

        Returns
        -------
        IVFIndex
            This index.

        Raises
        ------
        ValueError
            Too few vectors; or the index holds codes in place of vectors, which cannot
            be coded anew.
        """
        rows = as_rows(vectors, name="vectors", dim=self.dim, dtype=self.dtype)
        self._train(rows, threads, progress)
        return self

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        n_probe: int | None = None,
        rerank: float = 10,
        epsilon: float = 1.9,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find about the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like, shape (n, dim) or (dim,)
        k : int, default 10
            More than there are is no error.
        n_probe : int, optional
            Lists to look at; more than there are means all. With a filter more lists
            are looked at until k vectors are found.
        rerank : float, default 10
            The best ``k * rerank`` estimates are candidates. 0: the order and the
            distances are those of the estimates. Of no effect for ``codec="flat"``, as
            is `epsilon`.
        epsilon : float, default 1.9
            Candidates that are not near even if their estimate is too large by this
            many times its expected error are not measured. Larger: measure more.
        filter : IdSet or array_like of int, optional
            Search only among these ids; see `id_set`. Small sets are searched exactly.
        threads : int, optional
            One for a single query and all cores otherwise, unless given. The result
            does not depend on it.
        progress : callable, optional
            Called with (queries done, queries) now and then.

        Returns
        -------
        SearchResult
            Ids and distances, (n, k) or (k,), nearest first, ties by id; padded with
            -1 and +inf.
        """
        quick: SearchResult | None = self._native.search_single(
            queries,
            k,
            n_probe,
            threads,
            SearchResult,
            rerank,
            epsilon,
            filter,
            progress,
        )
        if quick is not None:
            return quick
        dim, metric, dtype = self._known()
        rows, single = as_queries(
            queries, dim=dim, dtype=query_dtype(dtype), check=False
        )
        if n_probe is None:
            n_probe = self.n_probe
        ids, distances = self._native.search(
            rows,
            check_k(k),
            check_int(n_probe, name="n_probe", low=1),
            check_real(rerank, name="rerank", low=0.0),
            check_real(epsilon, name="epsilon", low=0.0),
            self._filter(filter),
            check_threads(threads, rows.shape[0]),
            check_progress(progress),
        )
        return result_of(ids, distances, metric, single)

    def stats(self) -> dict[str, Any]:
        """Return facts about the index, by name."""
        sizes = self.list_sizes
        return {
            **super().stats(),
            "codec": self.codec,
            "bits": self.bits,
            "rotation": self.rotation,
            "residual": self.residual,
            "spill": self.spill,
            "storage": self.storage,
            "n_lists": self.n_lists,
            "longest_list": int(sizes.max(initial=0)),
        }
