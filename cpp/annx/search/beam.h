// SPDX-License-Identifier: Apache-2.0
// Best-first search of a proximity graph with a beam of bounded width (the search of
// Malkov and Yashunin, 2018, algorithm 2, on one flat layer): expand the nearest slot
// not yet expanded, score its neighbours, keep the best `width`, stop when all of those
// are expanded. Cost: expanded x degree scores; memory: one bit a row and the beam.
//
// The width alone gives every query as many hops as the hardest needs. With a `Reach` a
// search also ends once nothing waits that is nearer than so many times the distance of
// the k-th best so far (Al-Jazzazi and others, "Distance adaptive beam search", 2025):
// the k-th best of an easy query is near, and most of its beam far beyond.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "annx/codec/scorer.h"
#include "annx/kernels/table.h"
#include "annx/search/candidates.h"
#include "annx/search/visited.h"
#include "annx/storage/adjacency.h"
#include "annx/storage/coded_links.h"

namespace annx::search {

// Keys beyond which a search does not go, given the best so far.
struct Reach {
  std::size_t k = 0;   // 0: no such limit
  float zero = 0;      // the key of a row that equals the query
  float factor = 1;    // of the k-th key, both from zero; at least 1
  float rounding = 0;  // what keys can be off by

  float limit(const CandidateList& best) const {
    if (k == 0 || best.size() < k) return std::numeric_limits<float>::infinity();
    return zero + factor * (best.key(k - 1) - zero) + rounding;
  }
};

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
                 std::size_t width, const Reach& reach, BeamScratch& scratch);

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
                       std::size_t keep, const Reach& reach, BeamScratch& scratch);

}  // namespace annx::search
