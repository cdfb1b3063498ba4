# SPDX-License-Identifier: Apache-2.0
"""Every algorithm of annx again, in plain NumPy, to read and to test against."""

from __future__ import annotations

from annx.reference.bands import connected_components, search_band
from annx.reference.codec import KMeans, ProductQuantizer
from annx.reference.flat import FlatIndex, exact_search, pairwise_distances
from annx.reference.graph import GraphIndex
from annx.reference.ivf import IVFIndex, PieceCodec
from annx.reference.kd_forest import KDForestIndex
from annx.reference.knn import knn_graph
from annx.reference.links import LinkCodec, RandomRotation
from annx.reference.lsh import LSHIndex
from annx.reference.pq_flat import PQFlatIndex
from annx.reference.random import Random
from annx.reference.row_grid import RowGrid
from annx.reference.transforms import TransformedIndex

__all__ = [
    "FlatIndex",
    "GraphIndex",
    "IVFIndex",
    "KDForestIndex",
    "KMeans",
    "LSHIndex",
    "LinkCodec",
    "PQFlatIndex",
    "PieceCodec",
    "ProductQuantizer",
    "Random",
    "RandomRotation",
    "RowGrid",
    "TransformedIndex",
    "connected_components",
    "exact_search",
    "knn_graph",
    "pairwise_distances",
    "search_band",
]
