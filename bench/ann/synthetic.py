# SPDX-License-Identifier: Apache-2.0
"""Large synthetic sets that are about as hard as real ones.

Uniform or Gaussian noise is no stand-in for data: its intrinsic dimension is the full
one and every method fails alike. Here latent points are drawn from a mixture of
Gaussians with unequal weights and widths and go through a fixed random one-layer
network, so that the rows lie on a curved manifold of ``latent`` dimensions, with dense
and sparse regions, off the origin, and a little noise on top:

    x = W2 tanh(W1 z + b) + c + noise,    z ~ sum_j w_j N(m_j, s_j^2 I)

The latent dimension is set so that the median local intrinsic dimension (maximum
likelihood, 100 neighbours: Levina and Bickel, 2004) comes near that of real sets of
this kind, which is 14 for pictures and 18 to 22 for local descriptors and embeddings
of words and sentences: 19.1 for ``synthetic-1m-128``, 21.3 for ``synthetic-1m-384``.
``python -m bench list --lid NAME`` prints the figure of any set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["generate", "local_intrinsic_dimension"]

Array = np.ndarray[Any, Any]


def generate(
    rows: int,
    dim: int,
    *,
    queries: int = 1000,
    latent: int | None = None,
    clusters: int = 256,
    noise: float = 0.02,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Draw base rows and held-out queries from one distribution.

    Parameters
    ----------
    rows, dim : int
        Shape of the base.
    queries : int
        How many queries; they are drawn alike and are not in the base.
    latent : int, optional
        Dimension of the manifold; by default 48, or 40 from 256 dimensions up.
    clusters : int
        Components of the mixture.
    noise : float
        Standard deviation of the noise relative to that of the signal.
    seed : int
        Same seed, same set.

    Returns
    -------
    base : ndarray of shape (rows, dim), float32
    queries : ndarray of shape (queries, dim), float32
    """
    rng = np.random.default_rng(seed)
    if latent is None:
        latent = 48 if dim < 256 else 40
    hidden = max(2 * latent, dim // 2)
    first = rng.standard_normal((latent, hidden)) / np.sqrt(latent)
    bias = rng.standard_normal(hidden) * 0.3
    second = rng.standard_normal((hidden, dim)) / np.sqrt(hidden)
    shift = rng.standard_normal(dim) * 0.5
    centres = rng.standard_normal((clusters, latent)) * 1.2
    widths = rng.uniform(0.3, 0.9, clusters)
    weights = rng.dirichlet(np.full(clusters, 0.7))
    total = rows + queries
    out = np.empty((total, dim), dtype=np.float32)
    # Blocks keep the float64 temporaries small; the order of draws is part of the
    # definition of a set, so the block length must not change.
    block = 65536
    for low in range(0, total, block):
        count = min(block, total - low)
        which = rng.choice(clusters, size=count, p=weights)
        point = centres[which] + widths[which, None] * rng.standard_normal(
            (count, latent)
        )
        signal = np.tanh(point @ first + bias) @ second
        signal += noise * rng.standard_normal((count, dim))
        out[low : low + count] = signal + shift
    order = rng.permutation(total)
    return out[order[:rows]], out[order[rows:]]


def local_intrinsic_dimension(neighbor_distances: Array) -> float:
    """Median maximum-likelihood estimate from Euclidean distances to k neighbours.

    Parameters
    ----------
    neighbor_distances : ndarray of shape (nq, k)
        Euclidean (not squared) distances, ascending.

    Returns
    -------
    float
        ``median over queries of -1 / mean_i log(r_i / r_k)``.
    """
    radius = np.maximum(neighbor_distances, 1e-12)
    logs = np.log(radius[:, :-1] / radius[:, -1:])
    return float(np.median(-1.0 / np.minimum(logs.mean(axis=1), -1e-12)))
