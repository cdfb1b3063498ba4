// SPDX-License-Identifier: Apache-2.0
// Exact search, fused with the choice of the k best: no matrix of all distances exists.
//
// Few queries, l1 and bits: rows stream past the queries in blocks, by canonical
// kernels. Many queries, l2, ip and cosine: register tiles (tiles.h) shortlist, within
// a stated bound, and canonical kernels settle; so ids, distances and order are the
// same either way, on any number of threads. O(count * dim) a query.
//
// Memory beside the output: at most 64 MiB of packed queries, and for each thread 64
// MiB of candidates and 2 MiB of packed rows; queries beyond that go in passes. A
// radius search holds what it returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/search/canonical.h"

namespace annx::search {

// ids and distances are queries.rows x k, nearest first, ties by id, padded with -1 and
// +inf. k >= 1; threads 0 takes all cores. An exception of the monitor's passes
// through.
void search_topk(const RowSet& set, RowsView queries, std::size_t k,
                 std::size_t threads, Monitor* monitor, std::int64_t* ids,
                 float* distances);

struct Ragged {
  std::vector<std::int64_t> offsets = {0};  // queries + 1
  std::vector<std::int64_t> ids;
  std::vector<float> distances;

  // The hits of the next query, in order; distance(key) is what their keys mean.
  template <class Hits, class Distance>
  void append(const Hits& hits, const Distance& distance) {
    for (const auto& hit : hits) {
      ids.push_back(hit.id);
      distances.push_back(distance(hit.key));
    }
    offsets.push_back(static_cast<std::int64_t>(ids.size()));
  }
};
// Everything at a distance <= radius, for each query nearest first, ties by id. The
// radius is compared as a float32 where distances are not integers.
Ragged search_within(const RowSet& set, RowsView queries, double radius,
                     std::size_t threads, Monitor* monitor);

// How many those are, as Ragged::offsets: no row of them is kept.
std::vector<std::int64_t> count_within(const RowSet& set, RowsView queries,
                                       double radius, std::size_t threads,
                                       Monitor* monitor);

// All canonical distances, queries.rows x set.count.
void all_pairs(const RowSet& set, RowsView queries, std::size_t threads,
               Monitor* monitor, float* out);

}  // namespace annx::search
