// SPDX-License-Identifier: Apache-2.0
// Gives the links of a graph their codes (codec/link_codec.h), from the rows alone:
// after building, and for the links that have changed since.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "annx/base/parallel.h"
#include "annx/codec/link_codec.h"
#include "annx/codec/row_codec.h"
#include "annx/storage/adjacency.h"
#include "annx/storage/coded_links.h"

namespace annx::graph {

// Learns a codec from a sample of the links of the first `count` nodes; null where
// there is too little to learn from (few links, or nearly all between equal rows).
std::unique_ptr<codec::LinkCodec> learn_link_codec(const codec::RowCodec& rows,
                                                   const storage::Adjacency& graph,
                                                   std::size_t count,
                                                   std::uint64_t seed,
                                                   std::size_t threads);

// Makes the records of `nodes` (sorted, each once) anew, a chunk of nodes at a time:
// everything is computed from the graph as it is, then `publish` is called to run the
// writing of the chunk, under whatever lock keeps readers out. Codes of links that a
// node's present record has are taken from there. Nobody else may change the graph
// meanwhile. Cost: one projection for each row concerned, O(16 axes) for each new link;
// memory: the projections, as float16 where they are of all rows and links are long
// enough for that.
void code_links(const codec::RowCodec& rows, const storage::Adjacency& graph,
                storage::CodedLinks& coded, const codec::LinkCodec& codec,
                std::span<const std::uint32_t> nodes, std::size_t threads,
                const std::function<void(const std::function<void()>&)>& publish,
                Monitor* monitor);

// Where searches of a coded graph begin: links from the codec's mean to `slots`, coded,
// as the record of a single node. The mean is no row, but reading its record is the
// same scan, and a few hundred starts cost no more than a hop or two.
storage::CodedLinks code_roots(const codec::RowCodec& rows,
                               const codec::LinkCodec& codec,
                               std::span<const std::uint32_t> slots);

}  // namespace annx::graph
