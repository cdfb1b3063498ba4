# SPDX-License-Identifier: Apache-2.0
"""Approximate nearest neighbour search: exact, graph and quantized indexes."""

from __future__ import annotations

from annx import transforms
from annx._core import __version__
from annx.bands import connected_components, search_band
from annx.errors import FormatError, NotCalibratedError, NotTrainedError
from annx.exact import exact_search, pairwise_distances
from annx.filters import IdSet
from annx.flat import FlatIndex
from annx.graph import GraphIndex
from annx.io import load
from annx.ivf import IVFIndex
from annx.kd_forest import KDForestIndex
from annx.kmeans import KMeans
from annx.knn import knn_graph
from annx.lsh import LSHIndex
from annx.pq import ProductQuantizer
from annx.pq_flat import PQFlatIndex
from annx.results import KnnGraph, RadiusResult, SearchResult
from annx.transformed import TransformedIndex

__all__ = [
    "FlatIndex",
    "FormatError",
    "GraphIndex",
    "IVFIndex",
    "IdSet",
    "KDForestIndex",
    "KMeans",
    "KnnGraph",
    "LSHIndex",
    "NotCalibratedError",
    "NotTrainedError",
    "PQFlatIndex",
    "ProductQuantizer",
    "RadiusResult",
    "SearchResult",
    "TransformedIndex",
    "__version__",
    "connected_components",
    "exact_search",
    "knn_graph",
    "load",
    "pairwise_distances",
    "search_band",
    "transforms",
]
