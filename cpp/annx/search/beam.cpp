// SPDX-License-Identifier: Apache-2.0
#include "annx/search/beam.h"

#include <algorithm>

#include "annx/base/prefetch.h"

namespace annx::search {
void beam_search(const storage::Adjacency& graph, std::size_t count,
                 const codec::Scorer& scorer, std::span<const std::uint32_t> starts,
                 std::size_t width, BeamScratch& scratch) {
  const std::size_t degree = graph.degree();
  const std::size_t block_bytes = degree * sizeof(std::uint32_t);
  VisitedSet& visited = scratch.visited;
  CandidateList& beam = scratch.beam;
  visited.prepare(count);
  beam.prepare(width);
  const std::size_t room = std::max(degree, starts.size());
  if (scratch.slots.size() < room) {
    scratch.slots.resize(room);
    scratch.keys.resize(room);
  }
  std::uint32_t* const slots = scratch.slots.data();
  float* const keys = scratch.keys.data();
  scratch.expanded = 0;

  std::size_t n = 0;
  visited.make_room(starts.size());
  for (const std::uint32_t start : starts) {
    if (start < count && visited.insert(start) != 0) slots[n++] = start;
  }
  scorer.score(slots, n, keys);
  for (std::size_t i = 0; i < n; ++i) beam.insert(keys[i], slots[i]);

  std::uint32_t node;
  while (beam.expand_next(node)) {
    ++scratch.expanded;
    const std::uint32_t* block = graph.block(node);
    visited.make_room(degree);
    n = 0;
    for (std::size_t i = 0; i < degree; ++i) {
      const std::uint32_t slot = block[i] & storage::kSlotMask;
      // Also the end of the block: kNoEdge is beyond every slot.
      if (slot >= count) continue;
      slots[n] = slot;
      n += visited.insert(slot);
    }
    scorer.score(slots, n, keys);
    for (std::size_t i = 0; i < n; ++i) {
      if (!beam.admits(keys[i])) continue;
      if (beam.insert(keys[i], slots[i])) {
        prefetch_lines(graph.block(slots[i]), block_bytes, 4);
      }
    }
  }
  scratch.scored = visited.size();
}

}  // namespace annx::search
