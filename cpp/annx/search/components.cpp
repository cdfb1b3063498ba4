// SPDX-License-Identifier: Apache-2.0
#include "annx/search/components.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "annx/base/disjoint_sets.h"
#include "annx/search/tiles.h"

namespace annx::search {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kPassBytes = std::size_t{32} << 20;
constexpr std::size_t kMostQueries = 4096;
constexpr std::size_t kPairs = std::size_t{1} << 17;

using Pair = std::pair<std::uint32_t, std::uint32_t>;

template <class Key>
void join_within(const RowSet& set, double radius, std::size_t threads,
                 Monitor* monitor, DisjointSets& sets) {
  const bool tiles = tiles_serve(set.metric, set.dtype);
  const std::vector<float> centre =
      tiles ? TilePass::centre_of(set) : std::vector<float>();
  const std::size_t width = row_bytes(query_dtype(set.dtype), set.dim);
  const std::size_t pass_rows = std::clamp<std::size_t>(
      kPassBytes / std::max(set.dim * sizeof(float), width), 1, kMostQueries);
  const std::size_t block = TileRows::block_rows(set.dim);
  std::vector<std::uint32_t> roots(set.count);
  std::mutex mutex;
  std::vector<std::byte> queries;
  for (std::size_t first = 0; first < set.count; first += pass_rows) {
    if (monitor != nullptr) monitor->poll(first, set.count);
    const std::size_t count = std::min(pass_rows, set.count - first);
    // What is joined by now; what this pass joins is seen by the next.
    for (std::uint32_t row = 0; row < set.count; ++row) roots[row] = sets.root(row);
    queries.resize(count * width);
    std::vector<Canonical<Key>> scorers;
    scorers.reserve(count);
    for (std::size_t q = 0; q < count; ++q) {
      write_query(set, first + q, queries.data() + q * width);
      scorers.emplace_back(set, queries.data() + q * width);
    }
    std::optional<TilePass> pass;
    std::vector<float> limits;
    if (tiles) {
      pass.emplace(set, RowsView{queries.data(), count, width}, centre);
      limits.assign(pass->padded(), -kInfinity);
      for (std::size_t q = 0; q < count; ++q) {
        if (!pass->direct(q)) limits[q] = pass->limit(q, radius);
      }
    }
    struct Worker {
      std::unique_ptr<TileRows> rows;
      std::vector<Pair> pairs;
    };
    std::vector<Worker> workers(threads);
    const auto flush = [&](std::vector<Pair>& pairs) {
      const std::lock_guard lock(mutex);
      for (const Pair& pair : pairs) sets.join(pair.first, pair.second);
      pairs.clear();
    };
    const std::size_t blocks = (set.count - first + block - 1) / block;
    parallel_for(
        blocks, threads, 1,
        [&](std::size_t begin_block, std::size_t end_block, std::size_t number) {
          Worker& worker = workers[number];
          Key keys[Canonical<Key>::kBlock];
          const auto take = [&](std::size_t q, std::uint32_t row) {
            worker.pairs.push_back({static_cast<std::uint32_t>(first + q), row});
            if (worker.pairs.size() == kPairs) flush(worker.pairs);
          };
          const auto scan = [&](std::size_t q, std::size_t begin, std::size_t end) {
            for (std::size_t at = std::max(begin, first + q + 1); at < end;
                 at += Canonical<Key>::kBlock) {
              const std::size_t n = std::min(end - at, Canonical<Key>::kBlock);
              scorers[q].block(at, n, keys);
              for (std::size_t i = 0; i < n; ++i) {
                if (inside(keys[i], radius))
                  take(q, static_cast<std::uint32_t>(at + i));
              }
            }
          };
          for (std::size_t b = begin_block; b < end_block; ++b) {
            const std::size_t begin = first + b * block;
            const std::size_t end = std::min(set.count, begin + block);
            bool bounded = false;
            if (tiles) {
              if (!worker.rows) worker.rows = std::make_unique<TileRows>(*pass);
              bounded = worker.rows->load(begin, end - begin);
            }
            for (std::size_t q = 0; q < count; ++q) {
              if (!bounded || pass->direct(q)) scan(q, begin, end);
            }
            if (!bounded) continue;
            worker.rows->run(limits.data(),
                             [&](std::size_t q, std::uint32_t row, float, float) {
                               if (row <= first + q || roots[row] == roots[first + q])
                                 return;
                               scorers[q].some(&row, 1, keys);
                               if (inside(keys[0], radius)) take(q, row);
                             });
          }
          if (!worker.pairs.empty()) flush(worker.pairs);
        });
  }
}

}  // namespace

std::size_t connected_components(const RowSet& set, double radius, std::size_t threads,
                                 Monitor* monitor, std::int64_t* labels) {
  threads = resolve_threads(threads);
  radius = comparable_radius(set.metric, set.dtype, radius);
  DisjointSets sets(set.count);
  if (has_integer_key(set.metric, set.dtype)) {
    join_within<std::int32_t>(set, radius, threads, monitor, sets);
  } else {
    join_within<float>(set, radius, threads, monitor, sets);
  }
  std::int64_t next = 0;
  for (std::uint32_t row = 0; row < set.count; ++row) {
    const std::uint32_t root = sets.root(row);
    labels[row] = root == row ? next++ : labels[root];
  }
  return static_cast<std::size_t>(next);
}

}  // namespace annx::search
