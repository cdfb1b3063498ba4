// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/knn_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "annx/graph/knn.h"
#include "annx/kernels/dispatch.h"
#include "annx/search/exact.h"
#include "annx/search/topk.h"
#include "annx/storage/id_map.h"

namespace annx::graph {
namespace {

using search::Canonical;
using search::Hit;
using search::RowSet;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Fewer rows than this are not worth sorting into cells.
constexpr std::size_t kFewRows = 1024;
// Neighbours kept beyond those asked for, so that canonical distances can reorder them.
constexpr std::size_t kSpare = 2;
// Rows that are searched for at once, for the memory that their answers take.
constexpr std::size_t kRowsAtOnce = 8192;

// Rows as vectors whose squared distances order them: under cosine scaled to length 1,
// and zero rows, which are at distance 1 from everything, as unit vectors along a
// dimension that no other has. (Between zero rows that is wrong; their neighbours are
// written down separately.)
class RowVectors final : public KnnSource {
 public:
  explicit RowVectors(const RowSet& set) : set_(set), dim_(set.dim) {
    if (set.norms == nullptr) return;
    if (std::find(set.norms, set.norms + set.count, 0.0f) != set.norms + set.count) {
      ++dim_;
    }
  }
  std::size_t count() const override { return set_.count; }
  std::size_t dim() const override { return dim_; }
  bool has_zeros() const { return dim_ != set_.dim; }
  void vector(std::uint32_t slot, float* out) const override {
    kernels::active().widen[static_cast<std::size_t>(set_.dtype)](set_.row(slot),
                                                                  set_.dim, out);
    if (set_.norms == nullptr) return;
    const float norm = set_.norms[slot];
    if (has_zeros()) out[set_.dim] = norm > 0 ? 0.0f : 1.0f;
    for (std::size_t k = 0; k < set_.dim; ++k) out[k] = norm > 0 ? out[k] / norm : 0.0f;
  }
  MatrixView<float> plain() const override {
    if (set_.norms != nullptr || set_.dtype != DType::kFloat32) return {};
    return {reinterpret_cast<const float*>(set_.rows), set_.count, set_.dim,
            set_.stride / sizeof(float)};
  }

 private:
  const RowSet& set_;
  std::size_t dim_;
};

// The row as a query.
const std::byte* query_of(const RowSet& set, std::size_t row,
                          std::vector<float>& wide) {
  if (!search::is_float(set.dtype)) return set.row(row);
  wide.resize(set.dim);
  kernels::active().widen[static_cast<std::size_t>(set.dtype)](set.row(row), set.dim,
                                                               wide.data());
  return reinterpret_cast<const std::byte*>(wide.data());
}

// Searches for rows by themselves.
void search_rows(const RowSet& set, const std::vector<std::uint32_t>& rows,
                 std::size_t k, std::size_t threads, Monitor* monitor,
                 std::int64_t* ids, float* distances) {
  const std::size_t width = row_bytes(search::query_dtype(set.dtype), set.dim);
  std::vector<std::byte> queries;
  std::vector<float> wide;
  std::vector<std::int64_t> found;
  std::vector<float> far;
  for (std::size_t begin = 0; begin < rows.size(); begin += kRowsAtOnce) {
    const std::size_t count = std::min(kRowsAtOnce, rows.size() - begin);
    queries.resize(count * width);
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(query_of(set, rows[begin + i], wide), width,
                  queries.data() + i * width);
    }
    found.resize(count * (k + 1));
    far.resize(count * (k + 1));
    search::search_topk(set, {queries.data(), count, width}, k + 1, threads, monitor,
                        found.data(), far.data());
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t* from = found.data() + i * (k + 1);
      const std::size_t row = rows[begin + i];
      std::int64_t* to = ids + row * k;
      float* to_far = distances + row * k;
      // Where it is not among them, it is the last one that is too many.
      for (std::size_t j = 0, at = 0; j < k + 1 && at < k; ++j) {
        if (from[j] == static_cast<std::int64_t>(row)) continue;
        to[at] = from[j];
        to_far[at++] = far[i * (k + 1) + j];
      }
    }
  }
}

template <class Key>
void settle(const RowSet& set, const RowVectors& vectors, const KnnGraph& graph,
            bool exact, std::size_t k, std::size_t threads, std::int64_t* ids,
            float* distances, std::vector<char>& doubtful) {
  const bool cosine = set.metric == Metric::kCosine;
  const std::size_t kept = graph.k;
  const bool everything = kept >= set.count - 1;
  // The vectors are the rows, so their distances are the canonical ones already.
  const bool settled = !exact && vectors.plain().data != nullptr;
  parallel_for(
      set.count, threads, 256, [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<float> wide;
        std::vector<Key> keys(kept);
        std::vector<Hit<Key>> hits;
        for (std::size_t row = begin; row < end; ++row) {
          std::int64_t* to = ids + row * k;
          float* far = distances + row * k;
          std::fill_n(to, k, storage::IdMap::kNoId);
          std::fill_n(far, k, kInfinity);
          if (vectors.has_zeros() && set.norms[row] == 0) {
            // Everything is at distance 1.
            for (std::size_t at = 0, other = 0; at < k && other < set.count; ++other) {
              if (other == row) continue;
              to[at] = static_cast<std::int64_t>(other);
              far[at++] = 1.0f;
            }
            continue;
          }
          const std::uint32_t* slots = graph.list(row).data();
          if (settled) {
            for (std::size_t i = 0; i < k && slots[i] != kNoSlot; ++i) {
              to[i] = slots[i];
              far[i] = graph.keys[row * kept + i];
            }
            continue;
          }
          const auto count =
              static_cast<std::size_t>(std::find(slots, slots + kept, kNoSlot) - slots);
          const Canonical<Key> scorer(set, query_of(set, row, wide));
          hits.clear();
          for (std::size_t at = 0; at < count; at += Canonical<Key>::kBlock) {
            const std::size_t n = std::min(count - at, Canonical<Key>::kBlock);
            scorer.some(slots + at, n, keys.data());
            for (std::size_t i = 0; i < n; ++i)
              hits.push_back({keys[i], slots[at + i]});
          }
          std::sort(hits.begin(), hits.end());
          for (std::size_t i = 0; i < std::min(k, hits.size()); ++i) {
            to[i] = hits[i].id;
            far[i] = Canonical<Key>::distance(hits[i].key);
          }
          if (!exact || everything) continue;
          // Vectors differ from what the canonical kernel compares by the rounding of
          // their lengths (cosine), and either distance is rounded itself.
          const double last = graph.keys[row * kept + kept - 1];
          const double square = (cosine ? 2.0 : 1.0) * static_cast<double>(far[k - 1]);
          const double root = std::sqrt(square) + (cosine ? 0x1.0p-20 : 0.0);
          const double rounding =
              4 * (static_cast<double>(set.dim) / 32 + 20) * 0x1.0p-24;
          doubtful[row] = !(root * root * (1 + rounding) < last) ? 1 : 0;
        }
      });
}

}  // namespace

double knn_rows(const RowSet& set, std::size_t k, double recall, std::uint64_t seed,
                std::size_t threads, Monitor* monitor, std::int64_t* ids,
                float* distances) {
  threads = resolve_threads(threads);
  const bool exact = recall >= 1;
  std::vector<std::uint32_t> rows;
  double reached = 1;
  KnnGraph graph;
  const bool squares = set.metric == Metric::kL2 || set.metric == Metric::kCosine;
  if (squares && set.dtype != DType::kBits && set.count >= kFewRows &&
      k <= set.count / 8) {
    const RowVectors vectors(set);
    graph = build_knn(
        vectors, {.k = k + kSpare, .recall = recall, .seed = seed, .threads = threads},
        monitor);
    if (graph.k != 0) {
      std::vector<char> doubtful(set.count, 0);
      if (search::has_integer_key(set.metric, set.dtype)) {
        settle<std::int32_t>(set, vectors, graph, exact, k, threads, ids, distances,
                             doubtful);
      } else {
        settle<float>(set, vectors, graph, exact, k, threads, ids, distances, doubtful);
      }
      for (std::size_t i = 0; i < set.count; ++i) {
        if (doubtful[i] != 0) rows.push_back(static_cast<std::uint32_t>(i));
      }
      reached = graph.recall;
    }
  }
  if (graph.k == 0) {
    rows.resize(set.count);
    for (std::size_t i = 0; i < set.count; ++i) rows[i] = static_cast<std::uint32_t>(i);
  }
  graph = KnnGraph();
  search_rows(set, rows, k, threads, monitor, ids, distances);
  return reached;
}

}  // namespace annx::graph
