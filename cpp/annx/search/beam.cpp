// SPDX-License-Identifier: Apache-2.0
#include "annx/search/beam.h"

#include <algorithm>
#include <bit>

#include "annx/base/prefetch.h"
#include "annx/kernels/dispatch.h"

namespace annx::search {
namespace {
// Roots at which a search of a coded graph begins.
constexpr std::size_t kStarts = 2;
}  // namespace

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
  std::size_t n = 0;
  visited.make_room(starts.size());
  for (const std::uint32_t start : starts) {
    if (start < count && visited.insert(start) != 0) slots[n++] = start;
  }
  scorer.score(slots, n, keys);
  for (std::size_t i = 0; i < n; ++i) beam.insert(keys[i], slots[i]);

  std::uint32_t node;
  while (beam.expand_next(node)) {
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
        prefetch_run(graph.block(slots[i]), block_bytes);
      }
    }
  }
}

void coded_beam_search(const storage::Adjacency& graph, std::size_t count,
                       const codec::Scorer& scorer, const kernels::LinkQuery& query,
                       const storage::Adjacency& roots, std::size_t width,
                       std::size_t keep, BeamScratch& scratch) {
  const std::size_t degree = graph.degree();
  const std::size_t groups = graph.groups();
  const std::size_t block_bytes = graph.block_bytes();
  const auto scan = kernels::active().link_scan;
  VisitedSet& visited = scratch.visited;
  CandidateList& beam = scratch.beam;
  CandidateList& found = scratch.found;
  visited.prepare(count);
  beam.prepare(width);

  // Of the starts only the best by their codes: each in the beam is expanded.
  float estimates[kernels::kLinkGroup];
  found.prepare(kStarts);
  const std::uint32_t* root = roots.block(0);
  for (std::size_t g = 0; g < roots.groups(); ++g) {
    std::uint32_t near = scan(query, roots.codes(root, g), roots.offsets(root, g),
                              roots.scales(root, g), 0.0f, found.limit(), estimates);
    for (; near != 0; near &= near - 1) {
      const auto lane = static_cast<std::size_t>(std::countr_zero(near));
      const std::uint32_t slot = root[g * kernels::kLinkGroup + lane];
      if (slot < count && found.admits(estimates[lane])) {
        found.insert(estimates[lane], slot);
      }
    }
  }
  std::uint32_t starts[kStarts] = {0};
  std::size_t n = found.size();
  for (std::size_t i = 0; i < n; ++i) starts[i] = found.slot(i);
  n = std::max<std::size_t>(n, 1);
  for (std::size_t i = 0; i < n; ++i) {
    prefetch_run(graph.block(starts[i]), block_bytes);
  }
  float keys[kStarts];
  scorer.score(starts, n, keys);
  visited.make_room(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (visited.insert(starts[i]) != 0) beam.insert(keys[i], starts[i]);
  }
  found.prepare(keep);

  // The node of the next hop is chosen, and fetched, before this hop's neighbours come
  // in: memory is then a whole hop ahead. Sometimes a better one comes too late for its
  // turn, which costs a hop or two; waiting for memory costs more.
  std::uint32_t node;
  std::uint32_t next;
  for (bool more = beam.expand_next(next); more || beam.expand_next(next);) {
    node = next;
    more = beam.expand_next(next);
    if (more) {
      prefetch_run(graph.block(next), block_bytes);
      scorer.prefetch(next);
    }
    float key;
    scorer.score(&node, 1, &key);
    found.insert(key, node);
    const std::uint32_t* block = graph.block(node);
    visited.make_room(degree);
    for (std::size_t g = 0; g < groups; ++g) {
      std::uint32_t near = scan(query, graph.codes(block, g), graph.offsets(block, g),
                                graph.scales(block, g), key, beam.limit(), estimates);
      while (near != 0) {
        const auto lane = static_cast<std::size_t>(std::countr_zero(near));
        near &= near - 1;
        const std::size_t place = g * kernels::kLinkGroup + lane;
        if (place >= degree) break;
        const std::uint32_t slot = block[place] & storage::kSlotMask;
        if (slot >= count) continue;
        float estimate = estimates[lane];
        const bool coded = estimate == estimate;
        // A slot whose estimate does not serve may come by with a better one from
        // another node; of a slot without a code there is one key, asked for once.
        if (coded && !beam.admits(estimate)) continue;
        if (visited.insert(slot) == 0) continue;
        if (!coded) scorer.score(&slot, 1, &estimate);
        beam.insert(estimate, slot);
      }
    }
  }
}

}  // namespace annx::search
