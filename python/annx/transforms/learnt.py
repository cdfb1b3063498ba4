# SPDX-License-Identifier: Apache-2.0
"""Transforms that are learnt from vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx._validate import MAX_DIM, as_rows, check_dim, check_int, check_real
from annx.transforms.base import Floats, Transform, native_step, step

__all__ = ["PCA", "Bilinear", "Centre"]

Doubles = NDArray[np.float64]

# Rows that are taken to float64 at once: 32 MiB at 1,024 dimensions.
_BLOCK = 4096
# Variance across a direction, in parts of the mean squared length, below which there is
# only the rounding of float32: a standard deviation of 2^-23 of a length.
_NOISE = 2.0**-46


@step("centre")
class Centre(Transform):
    """Take a mean from every vector.

    Parameters
    ----------
    mean : array_like, shape (dim,)

    Notes
    -----
    ``x - mean``, rounded once. l2 and l1 distances stay as they are; angles and inner
    products become those about the mean.

    Examples
    --------
    >>> from annx.transforms import Centre
    >>> Centre.fit([[1.0, 2.0], [3.0, 2.0]]).transform([[2.0, 5.0]]).tolist()
    [[0.0, 3.0]]
    """

    def __init__(self, mean: Any) -> None:
        shift = _vector(mean, "mean")
        self._native = native_step("centre", shift.size, shift=shift)

    @classmethod
    def fit(cls, vectors: Any) -> Centre:
        """Centre about the mean of vectors, (n, dim), summed in float64; n >= 1."""
        return cls(_mean(_sample(vectors)))

    @property
    def mean(self) -> Floats:
        """What is taken away, shape (dim,): a copy."""
        mean: Floats = self._native.shift
        return mean


@step("pca")
class PCA(Transform):
    """Principal components: the directions in which vectors differ most.

    Made by `PCA.fit` from data; the class itself takes components that are known.

    Parameters
    ----------
    components : array_like, shape (dim, input_dim)
        Orthonormal rows.
    mean : array_like, shape (input_dim,), optional
        Taken away first; zeros unless given.
    variances : array_like, shape (dim,), optional
        Of each component in the data; needed to whiten.
    whiten : bool, default False
        Divide every component by its standard deviation: all directions then count
        alike (l2 becomes Mahalanobis's distance, if no component is left out). A
        component whose variance is 0 becomes 0.

    Notes
    -----
    ``scales * (components @ (x - mean))``. Without whitening and with all components
    l2 distances stay; with fewer of them they become at most smaller, and the mean loss
    over pairs is twice the variances left out.

    References
    ----------
    Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
    Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the
    benefit of PCA and whitening", 2012.

    Examples
    --------
    >>> from annx.transforms import PCA
    >>> pca = PCA.fit([[0.0, 1.0], [4.0, 1.0], [2.0, 1.0]], dim=1)
    >>> pca.transform([[3.0, 5.0]]).tolist(), pca.variances.round(3).tolist()
    ([[1.0]], [2.667])
    """

    def __init__(
        self,
        components: Any,
        mean: Any = None,
        variances: Any = None,
        *,
        whiten: bool = False,
    ) -> None:
        matrix = as_rows(components, name="components", dim=None)
        dim, input_dim = matrix.shape
        check_dim(dim)
        shift = np.zeros(input_dim, np.float32)
        if mean is not None:
            shift = _vector(mean, "mean", input_dim)
        spread = np.ones(dim)
        if variances is not None:
            spread = np.array(variances, np.float64)
            if spread.shape != (dim,):
                raise ValueError(
                    f"variances has shape {spread.shape}; it must have ({dim},)"
                )
            if not (np.isfinite(spread) & (spread >= 0)).all():
                raise ValueError("variances must be finite and not negative")
        elif whiten:
            raise ValueError("variances is None; to whiten they must be given")
        scales = np.ones(dim)
        if whiten:
            positive = spread > 0
            scales = np.where(positive, spread, 1) ** -0.5 * positive
        self._native = native_step(
            "pca",
            input_dim,
            dim,
            shift=shift,
            matrix=matrix,
            scales=_vector(scales, "variances"),
            variances=spread,
        )

    @classmethod
    def fit(cls, vectors: Any, dim: int | None = None, *, whiten: bool = False) -> PCA:
        """Find the components of vectors.

        Parameters
        ----------
        vectors : array_like, shape (n, input_dim)
            n >= 1. A sample serves, of about 50 for each dimension.
        dim : int or None
            Components to keep, strongest first; None: all.
        whiten : bool, default False
            As for the class.

        Returns
        -------
        PCA

        Notes
        -----
        Mean and covariance (divided by n) are summed in float64 over centred rows, then
        LAPACK's eigenvectors: O(n d^2 + d^3), by NumPy, on as many threads as its BLAS
        takes. Of each component the largest element is positive. Variances below
        ``2**-46`` of the vectors' mean squared length are rounding, and are set to 0:
        whitening does not blow up what constant or dependent dimensions leave.
        """
        rows = _sample(vectors)
        n, width = rows.shape
        if dim is not None:
            check_int(dim, name="dim", low=1, high=width)
        mean = _mean(rows)
        covariance = np.zeros((width, width))
        for begin in range(0, n, _BLOCK):
            block = rows[begin : begin + _BLOCK] - mean
            covariance += block.T @ block
        covariance /= n
        length = float(np.trace(covariance) + mean @ mean)
        variances, axes = np.linalg.eigh(covariance)
        order = np.argsort(-variances, kind="stable")[:dim]
        variances = variances[order]
        components = axes.T[order]
        largest = np.abs(components).argmax(axis=1)
        components *= np.sign(components[np.arange(order.size), largest])[:, None]
        variances[variances <= length * _NOISE] = 0
        return cls(components, mean, variances, whiten=whiten)

    @property
    def components(self) -> Floats:
        """The directions, shape (dim, input_dim): a copy."""
        components: Floats = self._native.matrix
        return components

    @property
    def mean(self) -> Floats:
        """What is taken away first, shape (input_dim,): a copy."""
        mean: Floats = self._native.shift
        return mean

    @property
    def variances(self) -> Doubles:
        """Of each component in the data, shape (dim,): a copy."""
        variances: Doubles = self._native.variances
        return variances

    @property
    def scales(self) -> Floats:
        """By what each component is multiplied, shape (dim,): ones, or whitening."""
        scales: Floats = self._native.scales
        return scales


@step("bilinear")
class Bilinear(Transform):
    """Multiply queries, and only queries, by a matrix: scores ``q^T A x``.

    Parameters
    ----------
    matrix : array_like, shape (query_dim, dim)
        A. Queries may have other dimensions than vectors.

    Notes
    -----
    Queries become ``A^T q``, vectors stay. With ``metric="ip"`` distances are
    ``- q^T A x``; other metrics compare ``A^T q`` with x.

    Examples
    --------
    >>> import annx
    >>> form = annx.transforms.Bilinear([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    >>> index = annx.TransformedIndex(annx.FlatIndex(2, "ip"), form)
    >>> index.add([[1.0, 0.0], [0.0, 1.0]]).tolist()
    [0, 1]
    >>> index.search([1.0, 0.0, 5.0], k=2).distances.tolist()
    [-2.0, 0.0]
    """

    def __init__(self, matrix: Any) -> None:
        rows = as_rows(matrix, name="matrix", dim=None)
        query_dim, dim = rows.shape
        check_dim(query_dim)
        check_dim(dim)
        self._native = native_step(
            "bilinear",
            dim,
            query_input=query_dim,
            matrix=np.ascontiguousarray(rows.T),
        )

    @classmethod
    def fit(cls, queries: Any, positives: Any, *, ridge: float = 1e-3) -> Bilinear:
        """Learn the matrix from queries and what they should find.

        Parameters
        ----------
        queries : array_like, shape (n, query_dim)
        positives : array_like, shape (n, dim)
            Of each query a vector that is right for it; repeat queries that have more.
        ridge : float, default 1e-3
            How far the matrix is drawn towards zero, in parts of the queries' mean
            squared element. 0: least squares, the shortest solution where there are
            many.

        Returns
        -------
        Bilinear

        Notes
        -----
        Ridge regression from queries to positives: A minimises

            sum_i |A^T q_i - x_i|^2 + n ridge m |A|^2,  m = mean of all q_ij^2,

        by the eigenvectors of ``Q^T Q``, all in float64: O(n query_dim (query_dim +
        dim) + query_dim^3). Meant for queries of another kind than the vectors (short
        terms against texts, one language against another); use as many pairs as
        dimensions at the least.

        References
        ----------
        Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal
        problems", 1970.
        Artetxe, Labaka and Agirre, "Learning principled bilingual mappings of word
        embeddings while preserving monolingual invariance", 2016.

        Examples
        --------
        >>> import numpy as np
        >>> from annx.transforms import Bilinear
        >>> rng = np.random.default_rng(0)
        >>> a, q = rng.standard_normal((3, 2)), rng.standard_normal((50, 3))
        >>> found = Bilinear.fit(q, q @ a, ridge=0).matrix
        >>> bool(np.allclose(found, a, atol=1e-5))
        True
        """
        left = _sample(queries, "queries")
        right = _sample(positives, "positives")
        if left.shape[0] != right.shape[0]:
            raise ValueError(
                f"positives has {right.shape[0]} rows; it must have one for each of "
                f"the {left.shape[0]} queries"
            )
        weight = check_real(ridge, name="ridge", low=0.0)
        n, query_dim = left.shape
        gram = np.zeros((query_dim, query_dim))
        cross = np.zeros((query_dim, right.shape[1]))
        for begin in range(0, n, _BLOCK):
            block = left[begin : begin + _BLOCK].astype(np.float64)
            gram += block.T @ block
            cross += block.T @ right[begin : begin + _BLOCK].astype(np.float64)
        squares, axes = np.linalg.eigh(gram)
        # Directions in which queries have nothing but the rounding of float32.
        known = squares > np.trace(gram) * _NOISE
        divisors = np.where(known, squares + weight * np.trace(gram) / query_dim, 1)
        matrix = axes @ ((axes.T @ cross) * (known / divisors)[:, None])
        return cls(matrix)

    @property
    def matrix(self) -> Floats:
        """A, shape (query_dim, dim): a copy."""
        matrix: Floats = np.ascontiguousarray(self._native.matrix.T)
        return matrix


def _vector(values: Any, name: str, size: int | None = None) -> Floats:
    """Return a float32 vector of finite numbers."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has {array.ndim} dimensions; it must have 1")
    rows: Floats = as_rows(array.reshape(1, -1), name=name, dim=size)
    check_int(rows.shape[1], name=f"{name}.size", low=1, high=MAX_DIM)
    first: Floats = rows[0]
    return first


def _sample(vectors: Any, name: str = "vectors") -> Floats:
    """Return at least one row."""
    rows = as_rows(vectors, name=name, dim=None)
    if rows.shape[0] == 0:
        raise ValueError(f"{name} has no rows; it must have at least 1")
    check_dim(rows.shape[1])
    return rows


def _mean(rows: Floats) -> Doubles:
    mean: Doubles = rows.mean(axis=0, dtype=np.float64)
    return mean
