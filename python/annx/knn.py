# SPDX-License-Identifier: Apache-2.0
"""All-pairs search: the nearest neighbours of every vector among the others."""

from __future__ import annotations

from typing import Any

from annx import _core
from annx._index import Progress
from annx._validate import (
    as_set,
    check_int,
    check_k,
    check_progress,
    check_real,
    check_threads,
)
from annx.results import KnnGraph

__all__ = ["knn_graph"]


def knn_graph(
    vectors: Any,
    k: int = 15,
    *,
    metric: str = "l2",
    dtype: str | None = None,
    recall: float = 0.95,
    exact: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> KnnGraph:
    """Find the k nearest neighbours of every vector among the others.

    Parameters
    ----------
    vectors : array_like, shape (n, dim)
        Read where they lie, if they are C-contiguous and of `dtype`.
    k : int, default 15
        More than there are is no error.
    metric : {"l2", "ip", "cosine", "l1", "hamming", "jaccard"}
        As for `FlatIndex`.
    dtype : str, optional
        How to take `vectors`; as for `exact_search`.
    recall : float, default 0.95
        In (0, 1]: the share of the true edges to find. The work stops where a sample of
        400 vectors, whose true neighbours are known, has that many; of another sample
        it may be about a hundredth off. 1 is exact.
    exact : bool, default False
        The same as ``recall=1``.
    seed : int, default 0
        Of the sample and of the cells.
    threads : int, optional
        All cores unless given. The result does not depend on it.
    progress : callable, optional
        Called with (done, total) of each stage now and then. Ctrl-C stops the search.

    Returns
    -------
    KnnGraph
        Ids and distances, (n, k), a vector itself left out; nearest first, ties by id;
        padded with -1 and +inf. ``.recall`` is the estimate from the sample, ``1.0`` if
        exact; ``.to_csr()`` is a SciPy matrix.

    Notes
    -----
    Distances returned are the canonical ones, of `exact_search`.

    With ``"l2"`` and ``"cosine"`` vectors are put into cells of about 256 by two levels
    of k-means; those of a cell are compared with one another, and then each vector
    visits the cells whose mean is hardly farther from it than that of its own. How much
    farther is worth it is read off the sample: its true edges say which share of all
    edges each further visit brings, so the work to be done is known before it is done.
    Comparisons are register tiles that judge a product from both sides. Long vectors
    are compared by a sketch: their coordinates along the axes that hold 95 % of the
    variance, if those are at most half as many, and the length of the rest. It
    estimates distances; two and a half times as many neighbours as are wanted are kept
    by it and settled at the end. O(n (n / 256 + visits * 256) dim) time; beside the
    result and `vectors` at most about ``8 dim + 40 k + 300`` bytes a vector.

    The exact graph comes of all pairs of cells in the same way, half of the products of
    ``exact_search(vectors, vectors)``, and with sketches, which then bound distances
    from below, less; vectors whose k-th neighbour is in doubt by rounding are searched
    for by themselves. Other metrics, ``k > n / 8`` and fewer than 1024 vectors are
    always exact: O(n^2 dim).

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011
    (visiting the nearest cells). Dong, Charikar and Li, "Efficient k-nearest neighbor
    graph construction for generic similarity measures", 2011 (the problem, and the
    descent that this was measured against). Seidl and Kriegel, "Optimal multi-step
    k-nearest neighbor search", 1998 (bounds first, then distances).

    Examples
    --------
    >>> import annx
    >>> graph = annx.knn_graph([[0.0], [1.0], [3.0], [7.0]], k=2)
    >>> graph.ids.tolist()
    [[1, 2], [0, 2], [1, 0], [2, 1]]
    >>> graph.distances.tolist()
    [[1.0, 9.0], [1.0, 4.0], [4.0, 9.0], [16.0, 36.0]]
    """
    rows, dim, dtype, metric = as_set(vectors, "vectors", metric, dtype)
    share = check_real(recall, name="recall")
    if not 0 < share <= 1:
        raise ValueError(f"recall is {share}; it must be above 0 and at most 1")
    ids, distances, reached = _core.knn_graph(
        rows,
        dim,
        check_k(k),
        metric,
        dtype,
        1.0 if exact else share,
        check_int(seed, name="seed", low=0, high=(1 << 64) - 1),
        check_threads(threads),
        check_progress(progress),
    )
    return KnnGraph(ids, distances, metric, reached)
