// SPDX-License-Identifier: Apache-2.0
// Links for queries that are not like the rows: short questions against long texts,
// pictures against captions. Rows link to rows near them, but what is near to such a
// query need not be near to one another, and a walk that has found some of it knows no
// way to the rest (Jaiswal and others, "OOD-DiskANN", 2022; Chen and others,
// "RoarGraph", 2024). A sample of such queries tells which ways are missing.
//
// Let x_1, x_2, ..., x_k be the rows nearest to a query of the sample, nearest first,
// ties by slot. Each x_j, j > 1, should have a link to one of x_1 ... x_{j-1}, and one
// of these a link to x_j. Where either is missing it is made, to or from that one of
// x_1 ... x_{j-1} that is nearest to x_j (ties by slot), unless the node that it leads
// from is full: no link gives way to it, so searches for other queries lose nothing.
//
// With all of these links, by induction, a walk that has come to any x_j descends to
// x_1, and from there reaches every x_i, i <= j, by way of x_1 ... x_i alone: the best
// that a beam can hold are always connected, however few.
//
// Queries are taken in rounds: what is missing is judged by the graph as it was before
// the round, so the links do not depend on the number of threads. Cost of a query: one
// exact search, and less than k^2 / 2 distances between rows, far fewer in practice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/codec/row_codec.h"
#include "annx/storage/adjacency.h"

namespace annx::graph {

// Queries of one round.
inline constexpr std::size_t kQueryRound = 64;

// The k <= rows.size() nearest rows of each query, queries.rows x k slots, nearest
// first, ties by slot, by the distances of the rows as `decode` gives them. Queries are
// as RowCodec::Query::set takes them. Where damaged rows leave fewer, kNoSlot follows.
// Memory: 32 bytes for each slot, and at most 128 MB of rows.
std::vector<std::uint32_t> nearest_rows(const codec::RowCodec& rows, RowsView queries,
                                        std::size_t k, std::size_t threads,
                                        Monitor* monitor);

// Makes the links described above, from lists of k slots each. Calls `publish` to run
// the writing of a round, under whatever lock keeps readers out; the nodes that have
// got links come into `touched`, with repeats. Stopped by the monitor or by a lack of
// memory it leaves whole rounds.
void link_lists(const codec::RowCodec& rows, storage::Adjacency& graph,
                std::span<const std::uint32_t> lists, std::size_t k,
                std::size_t threads,
                const std::function<void(const std::function<void()>&)>& publish,
                std::vector<std::uint32_t>& touched, Monitor* monitor);

}  // namespace annx::graph
