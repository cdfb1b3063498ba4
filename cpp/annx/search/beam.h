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
#include "annx/search/candidates.h"
#include "annx/search/visited.h"
#include "annx/storage/adjacency.h"

namespace annx::search {

// What one search needs besides the graph; reused from query to query.
struct BeamScratch {
  VisitedSet visited;
  CandidateList beam;
  std::vector<std::uint32_t> slots;
  std::vector<float> keys;
  std::size_t expanded = 0;
  std::size_t scored = 0;
};

// Leaves the answer in scratch.beam, nearest first. `starts` may repeat slots. Links to
// slots at or beyond `count` are not followed, whatever the blocks hold.
void beam_search(const storage::Adjacency& graph, std::size_t count,
                 const codec::Scorer& scorer, std::span<const std::uint32_t> starts,
                 std::size_t width, BeamScratch& scratch);

}  // namespace annx::search
