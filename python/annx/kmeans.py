# SPDX-License-Identifier: Apache-2.0
"""k-means clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._validate import (
    as_queries,
    as_rows,
    check_choice,
    check_int,
    check_progress,
    check_real,
    check_threads,
)
from annx.io import Saved, register

__all__ = ["KMeans"]


@register("kmeans")
class KMeans(Saved):
    """k centroids that make the sum of squared distances to the nearest one small.

    Parameters
    ----------
    n_clusters : int
        How many centroids, at least 1.
    init : {"random", "k-means++"} or array_like of shape (n_clusters, dim)
        Where to start: distinct vectors drawn at random; vectors drawn one by one in
        proportion to their squared distance from those already drawn, which costs as
        much as one full assignment; or these centroids.
    n_iterations : int, default 25
        At most so many movements of the centroids; fewer if nothing changes any more.
    n_restarts : int, default 1
        Run so often, from different starts, and keep the run with the lowest objective.
    max_points_per_cluster : int or None, default 256
        Train on at most ``n_clusters`` times so many vectors, drawn at random without
        repetition; None: on all of them.
    spherical : bool, default False
        Scale vectors and centroids to length 1, which clusters by angle. A zero vector
        has no direction: it counts 1 in the objective wherever it is, and as a start it
        is replaced by the first axis.
    tolerance : float, default 0
        Stop once an iteration lowers the objective by less than this share of it.
    seed : int, default 0
        Same data, options and seed: the same centroids, bit for bit, whatever the
        number of threads and the instruction set.

    Notes
    -----
    Minimises ``sum_x min_c |x - c|**2`` by Lloyd's iteration: assign every vector to
    its nearest centroid (exactly: distances from the canonical kernel, ties to the
    lower number), move every centroid to the mean of its cell. The objective never
    rises (beyond the rounding of centroids to float32). A cell left empty takes over
    the vector farthest from its own centroid.

    O(n k d) an iteration at worst. Lower bounds kept from one iteration to the next
    leave most of that out once the centroids slow down; they take up to 256 bytes a
    vector, beside one copy of the vectors trained on.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", 1982. Arthur and Vassilvitskii,
    "k-means++: the advantages of careful seeding", 2007. Dhillon and Modha, "Concept
    decompositions for large sparse text data using clustering", 2001. Ding et al.,
    "Yinyang k-means", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.float32([[0, 0], [0, 1], [9, 9], [9, 8]])
    >>> kmeans = annx.KMeans(2, seed=1).train(vectors)
    >>> sorted(kmeans.centroids.tolist())
    [[0.0, 0.5], [9.0, 8.5]]
    >>> kmeans.objective
    1.0
    >>> ids, distances = kmeans.assign(vectors)
    >>> bool(ids[0] == ids[1] != ids[2]), distances.tolist()
    (True, [0.25, 0.25, 0.25, 0.25])
    """

    _native_type = _core.KMeans
    _native: _core.KMeans
    _start: NDArray[np.float32] | None

    def __init__(
        self,
        n_clusters: int,
        *,
        init: Any = "random",
        n_iterations: int = 25,
        n_restarts: int = 1,
        max_points_per_cluster: int | None = 256,
        spherical: bool = False,
        tolerance: float = 0.0,
        seed: int = 0,
    ) -> None:
        n_clusters = check_int(n_clusters, name="n_clusters", low=1, high=2**32 - 2)
        self._start = None
        start = "given"
        if isinstance(init, str):
            start = check_choice(init, name="init", choices=("random", "k-means++"))
        else:
            self._start = as_rows(init, name="init", dim=None).copy()
            if self._start.shape[0] != n_clusters:
                raise ValueError(
                    f"init has {self._start.shape[0]} rows; it must have n_clusters, "
                    f"{n_clusters}"
                )
        limit = 0
        if max_points_per_cluster is not None:
            limit = n_clusters * check_int(
                max_points_per_cluster, name="max_points_per_cluster", low=1, high=2**31
            )
        self._native = _core.KMeans(
            n_clusters=n_clusters,
            n_iterations=check_int(
                n_iterations, name="n_iterations", low=0, high=2**31
            ),
            n_restarts=check_int(n_restarts, name="n_restarts", low=1, high=2**31),
            sample_limit=limit,
            start=start,
            spherical=bool(spherical),
            tolerance=check_real(tolerance, name="tolerance", low=0.0),
            seed=check_int(seed, name="seed", low=0),
        )

    @classmethod
    def _from_native(cls, native: Any) -> KMeans:
        result = super()._from_native(native)
        result._start = None
        return result

    def train(
        self, vectors: Any, *, threads: int | None = None, progress: Any = None
    ) -> KMeans:
        """Learn the centroids, replacing those of an earlier call.

        Parameters
        ----------
        vectors : array_like of float32, shape (n, dim)
            At least ``n_clusters`` rows. Other float types and integers are converted,
            which copies.
        threads : int or None
            None: all cores. The result does not depend on it.
        progress : callable or None
            Called as ``progress(done, total)`` some 20 times a second. Whatever it
            raises, and Ctrl-C, stops the training and leaves this object as it was.

        Returns
        -------
        KMeans
            This object.

        Raises
        ------
        ValueError
            Too few vectors; NaN, infinity or overflow in them; another dimension than
            that of the starting centroids.
        """
        rows = as_rows(vectors, name="vectors", dim=None)
        start = self._start
        if start is None:
            if self._native.start == "given":
                raise ValueError(
                    "this KMeans was loaded without its starting centroids; make a new "
                    "one to train again"
                )
            start = np.zeros((0, 0), np.float32)
        self._native.train(
            rows, start, check_threads(threads), check_progress(progress)
        )
        return self

    def assign(
        self, vectors: Any, *, threads: int | None = None, progress: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the nearest centroid of every vector and the squared distance to it.

        Parameters
        ----------
        vectors : array_like of float32, shape (n, dim) or (dim,)
        threads : int or None
            None: all cores, or one for a single vector.
        progress : callable or None
            As for `train`.

        Returns
        -------
        ids : ndarray of int64, shape (n,)
            Rows of `centroids`, ties to the lower one. A number for a single vector.
        distances : ndarray of float32, shape (n,)
            Squared Euclidean; if `spherical`, from the vectors scaled to length 1,
            which is twice the cosine distance.

        Raises
        ------
        NotTrainedError
            Before `train`.
        ValueError
            Another dimension; NaN, infinity or overflow.
        """
        # Raises where there is nothing to assign to.
        dim = self.centroids.shape[1] if not self._native.trained else self._native.dim
        rows, single = as_queries(vectors, name="vectors", dim=dim)
        ids, distances = self._native.assign(
            rows, check_threads(threads, rows.shape[0]), check_progress(progress)
        )
        return (ids[0], distances[0]) if single else (ids, distances)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """A copy of the centroids, shape (n_clusters, dim)."""
        return self._native.centroids

    @property
    def objective(self) -> float:
        """The sum of squared distances of the vectors trained on to `centroids`."""
        return float(self.objectives[-1])

    @property
    def objectives(self) -> NDArray[np.float64]:
        """The objective at the start and after every movement of the centroids."""
        _ = self._native.centroids  # raises NotTrainedError
        return self._native.objectives

    @property
    def n_clusters(self) -> int:
        """How many centroids."""
        return int(self._native.n_clusters)

    @property
    def dim(self) -> int:
        """Their dimension; 0 before training."""
        return int(self._native.dim)

    @property
    def trained(self) -> bool:
        """Whether there are centroids."""
        return bool(self._native.trained)

    def __repr__(self) -> str:
        state = f"dim={self.dim}" if self.trained else "not trained"
        return f"KMeans({self.n_clusters}, {state})"
