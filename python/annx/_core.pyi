# SPDX-License-Identifier: Apache-2.0
# Written by .ci/stubs.sh; do not edit.
"""
Compiled core of annx; the public API is in the annx package.
"""
from __future__ import annotations
import numpy
import numpy.typing
import typing
__all__: list[str] = ['FlatIndex', 'KMeans', 'ProductQuantizer', 'SlotSet', 'check_rows', 'exact_search', 'file_checksum', 'file_kind', 'isa', 'isas', 'move_centroids', 'pairwise_distances', 'probe_kernel', 'random_bits', 'tile_products']
class KMeans:
    @staticmethod
    def from_bytes(data: bytes) -> KMeans:
        ...
    @staticmethod
    def load(path: str | bytes, mmap: bool = False, verify: bool = True) -> KMeans:
        ...
    def __init__(self, *, n_clusters: typing.SupportsInt | typing.SupportsIndex, n_iterations: typing.SupportsInt | typing.SupportsIndex, n_restarts: typing.SupportsInt | typing.SupportsIndex, sample_limit: typing.SupportsInt | typing.SupportsIndex, start: str, spherical: bool, tolerance: typing.SupportsFloat | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def assign(self, vectors: numpy.typing.NDArray[numpy.float32], threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float32]]:
        ...
    def save(self, path: str | bytes) -> None:
        ...
    def to_bytes(self) -> bytes:
        ...
    def train(self, vectors: numpy.typing.NDArray[numpy.float32], start: numpy.typing.NDArray[numpy.float32], threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> None:
        ...
    @property
    def centroids(self) -> numpy.typing.NDArray[numpy.float32]:
        ...
    @property
    def dim(self) -> int:
        ...
    @property
    def n_clusters(self) -> int:
        ...
    @property
    def n_iterations(self) -> int:
        ...
    @property
    def n_restarts(self) -> int:
        ...
    @property
    def n_trained(self) -> int:
        ...
    @property
    def objectives(self) -> numpy.typing.NDArray[numpy.float64]:
        ...
    @property
    def restart(self) -> int:
        ...
    @property
    def sample_limit(self) -> int:
        ...
    @property
    def seed(self) -> int:
        ...
    @property
    def spherical(self) -> bool:
        ...
    @property
    def start(self) -> str:
        ...
    @property
    def tolerance(self) -> float:
        ...
    @property
    def trained(self) -> bool:
        ...
class ProductQuantizer:
    @staticmethod
    def from_bytes(data: bytes) -> ProductQuantizer:
        ...
    @staticmethod
    def load(path: str | bytes, mmap: bool = False, verify: bool = True) -> ProductQuantizer:
        ...
    def __init__(self, *, dim: typing.SupportsInt | typing.SupportsIndex, n_segments: typing.SupportsInt | typing.SupportsIndex, n_bits: typing.SupportsInt | typing.SupportsIndex, metric: str, n_iterations: typing.SupportsInt | typing.SupportsIndex, sample_limit: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def asymmetric_distances(self, queries: numpy.typing.NDArray[numpy.float32], codes: numpy.typing.NDArray[numpy.uint8], threads: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def asymmetric_tables(self, queries: numpy.typing.NDArray[numpy.float32], threads: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def codebook(self, segment: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def decode(self, codes: numpy.typing.NDArray[numpy.uint8], threads: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def encode(self, vectors: numpy.typing.NDArray[numpy.float32], threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> numpy.typing.NDArray[numpy.uint8]:
        ...
    def save(self, path: str | bytes) -> None:
        ...
    def starts(self) -> numpy.typing.NDArray[numpy.uint64]:
        ...
    def symmetric_distances(self, a: numpy.typing.NDArray[numpy.uint8], b: numpy.typing.NDArray[numpy.uint8], threads: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def symmetric_tables(self) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def to_bytes(self) -> bytes:
        ...
    def train(self, vectors: numpy.typing.NDArray[numpy.float32], threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> None:
        ...
    @property
    def code_bytes(self) -> int:
        ...
    @property
    def dim(self) -> int:
        ...
    @property
    def metric(self) -> str:
        ...
    @property
    def n_bits(self) -> int:
        ...
    @property
    def n_segments(self) -> int:
        ...
    @property
    def trained(self) -> bool:
        ...
class SlotSet:
    @property
    def count(self) -> int:
        ...
    @property
    def version(self) -> int:
        ...
class FlatIndex:
    @staticmethod
    def from_bytes(data: bytes) -> FlatIndex:
        ...
    @staticmethod
    def load(path: str | bytes, mmap: bool = False, verify: bool = True) -> FlatIndex:
        ...
    def __init__(self, dim: typing.SupportsInt | typing.SupportsIndex, metric: str, dtype: str) -> None:
        ...
    def __len__(self) -> int:
        ...
    def add(self, vectors: numpy.ndarray, ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def contains(self, id: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    def get(self, ids: numpy.typing.NDArray[numpy.int64]) -> numpy.typing.NDArray[numpy.uint8]:
        """
        Rows as bytes.
        """
    def ids(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def memory(self) -> dict:
        ...
    def remove(self, ids: numpy.typing.NDArray[numpy.int64]) -> None:
        ...
    def save(self, path: str | bytes) -> None:
        ...
    def search(self, queries: numpy.ndarray, k: typing.SupportsInt | typing.SupportsIndex, filter: SlotSet, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple:
        ...
    def search_radius(self, queries: numpy.ndarray, radius: typing.SupportsFloat | typing.SupportsIndex, filter: SlotSet, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple:
        ...
    def slot_set(self, ids: numpy.typing.NDArray[numpy.int64]) -> SlotSet:
        ...
    def to_bytes(self) -> bytes:
        ...
    def upsert(self, vectors: numpy.ndarray, ids: numpy.typing.NDArray[numpy.int64]) -> None:
        ...
    @property
    def dim(self) -> int:
        ...
    @property
    def dtype(self) -> str:
        ...
    @property
    def metric(self) -> str:
        ...
    @property
    def version(self) -> int:
        ...
def check_rows(rows: numpy.ndarray, dtype: str, dim: typing.SupportsInt | typing.SupportsIndex, name: str) -> None:
    """
    Raise ValueError at NaN, infinity, a squared norm beyond float32 or stray bits.
    """
def exact_search(queries: numpy.ndarray, vectors: numpy.ndarray, dim: typing.SupportsInt | typing.SupportsIndex, k: typing.SupportsInt | typing.SupportsIndex, metric: str, dtype: str, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple:
    ...
def file_checksum(data: bytes) -> int:
    """
    The checksum of the file format, for tests.
    """
def file_kind(path: str | bytes) -> str:
    """
    The kind of object that a file holds, from its header.
    """
def isa() -> str:
    """
    Name of the instruction set in use.
    """
def isas() -> dict:
    """
    Compiled instruction sets, worst first, and whether this processor has them.
    """
def move_centroids(vectors: numpy.typing.NDArray[numpy.float32], cells: numpy.typing.NDArray[numpy.uint32], centroids: numpy.typing.NDArray[numpy.float32], spherical: bool) -> numpy.typing.NDArray[numpy.float32]:
    """
    One centroid update of k-means, for tests; cells must be below the count.
    """
def pairwise_distances(a: numpy.ndarray, b: numpy.ndarray, dim: typing.SupportsInt | typing.SupportsIndex, metric: str, dtype: str, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> numpy.typing.NDArray[numpy.float32]:
    ...
def probe_kernel(isa: str, kernel: str, op: str, dtype: str, query: numpy.typing.NDArray[numpy.uint8], rows: numpy.typing.NDArray[numpy.uint8], slots: numpy.typing.NDArray[numpy.uint32], first: numpy.typing.NDArray[numpy.uint8], second: numpy.typing.NDArray[numpy.uint8], *, dim: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex, stride: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex = 0, queries: typing.SupportsInt | typing.SupportsIndex = 1, query_stride: typing.SupportsInt | typing.SupportsIndex = 0, repeat: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
    """
    Run one kernel of one instruction set on arrays of bytes, for tests and micro-benchmarks; the results go to first and second (as uint8).
    """
def random_bits(seed: typing.SupportsInt | typing.SupportsIndex, stream: typing.SupportsInt | typing.SupportsIndex, at: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.uint64]:
    """
    Random(seed, stream).bits(at), for tests.
    """
def tile_products(queries: numpy.typing.NDArray[numpy.float32], rows: numpy.typing.NDArray[numpy.float32], bias: numpy.typing.NDArray[numpy.float32], isa: str) -> tuple:
    """
    Sums bias + <q, x> by register tiles, padded, and the least of each query.
    """
__version__: str
