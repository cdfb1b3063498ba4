// SPDX-License-Identifier: Apache-2.0
// Best-first search of a proximity graph with a beam of bounded width (the search of
// Malkov and Yashunin, 2018, algorithm 2, on one flat layer): expand the nearest slot
// not yet expanded, score its neighbours, keep the best `width`, stop when all of those
// are expanded. Cost: expanded x degree scores; memory: one bit a row and the beam.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/codec/scorer.h"
#include "annx/kernels/table.h"
#include "annx/search/candidates.h"
#include "annx/search/visited.h"
#include "annx/storage/adjacency.h"
#include "annx/storage/coded_links.h"

namespace annx::search {

// What one search needs besides the graph; reused from query to query.
struct BeamScratch {
  VisitedSet visited;
  CandidateList beam;   // the answer of beam_search
  CandidateList found;  // the answer of coded_beam_search
  std::vector<std::uint32_t> slots;
  std::vector<float> keys;
};

// Leaves the answer in scratch.beam, nearest first. `starts` may repeat slots. Links to
// slots at or beyond `count` are not followed, whatever the blocks hold.
void beam_search(const storage::Adjacency& graph, std::size_t count,
                 const codec::Scorer& scorer, std::span<const std::uint32_t> starts,
                 std::size_t width, BeamScratch& scratch);

// The same on a graph with link codes (Gou and others, "SymphonyQG", 2025): the key of
// a slot is computed when it is expanded, and those of its neighbours estimated from
// the codes beside their slots, so a hop reads one record and one row. Leaves the
// `keep` best of the expanded slots in scratch.found, by key. Neighbours of nodes
// without a record (new ones) and links without a code are scored like rows. Keys of
// `scorer` must be those that `query` was made for. Begins at the best of the links of
// node 0 of `roots`, which has codes of the same codec.
void coded_beam_search(const storage::Adjacency& graph,
                       const storage::CodedLinks& coded, std::size_t count,
                       const codec::Scorer& scorer, const kernels::LinkQuery& query,
                       const storage::CodedLinks& roots, std::size_t width,
                       std::size_t keep, BeamScratch& scratch);

}  // namespace annx::search
