// SPDX-License-Identifier: Apache-2.0
// Where walks begin. Rows drawn at random lie where most rows do, and a query that
// belongs to a small cluster apart begins, and often ends, in another one. So the
// heads are far from one another: each is the candidate farthest from all before it
// (farthest-first traversal: Gonzalez, "Clustering to minimize the maximum intercluster
// distance", 1985), within twice of the best cover that so many rows can be.
//
// Cost: at most a distance for each head and candidate; a quarter to a half of that on
// real data, since few candidates are ever the farthest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/codec/row_codec.h"
#include "annx/graph/levels.h"

namespace annx::graph {

// How many rows a walk begins from in a graph of `rows` without codes, where each costs
// a row's distance.
std::size_t entries_of(std::size_t rows);

// Adds candidates to `heads`, which is not empty, until it has `count`: each time the
// one farthest from all heads, the first of those that are equally far. Fewer where no
// candidate is left that differs from every head.
void spread(const codec::RowCodec& rows, std::span<const std::uint32_t> candidates,
            std::size_t count, std::size_t threads, std::vector<std::uint32_t>& heads);

// Adds to `heads`, in the same way, of rows drawn from the first `rows_used`; begins
// with slot 0 if there are none.
void spread_drawn(const codec::RowCodec& rows, std::size_t rows_used,
                  std::uint64_t seed, std::size_t count, std::size_t threads,
                  std::vector<std::uint32_t>& heads);

// The same for a graph that was linked level by level: slot 0, and others of the first
// level above all rows, which have links from one cluster to others.
std::vector<std::uint32_t> choose_entries(const codec::RowCodec& rows,
                                          const std::vector<Level>& levels,
                                          std::size_t count, std::size_t threads);

// These and more: also of rows on no level, of which a small cluster may consist.
std::vector<std::uint32_t> choose_heads(const codec::RowCodec& rows,
                                        const std::vector<Level>& levels,
                                        std::size_t count, std::size_t threads,
                                        std::vector<std::uint32_t> entries);

}  // namespace annx::graph
