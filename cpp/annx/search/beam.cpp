// SPDX-License-Identifier: Apache-2.0
#include "annx/search/beam.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "annx/base/prefetch.h"
#include "annx/kernels/dispatch.h"

namespace annx::search {
namespace {
// Roots at which a search of a coded graph begins.
constexpr std::size_t kStarts = 2;

using storage::CodedLinks;

constexpr kernels::LinkAhead kNothingAhead{nullptr, nullptr, 0, 0};

// Scores the neighbours of a node that are new to the search and puts those that serve,
// with keys of at most `most`, into the beam.
void score_neighbours(const storage::Adjacency& graph, std::uint32_t node,
                      std::size_t count, const codec::Scorer& scorer, float most,
                      BeamScratch& scratch) {
  const std::size_t degree = graph.degree();
  const std::uint32_t* block = graph.block(node);
  std::uint32_t* const slots = scratch.slots.data();
  float* const keys = scratch.keys.data();
  scratch.visited.make_room(degree);
  std::size_t n = 0;
  for (std::size_t i = 0; i < degree; ++i) {
    const std::uint32_t slot = block[i] & storage::kSlotMask;
    // Also the end of the block: kNoEdge is beyond every slot.
    if (slot >= count) continue;
    slots[n] = slot;
    n += scratch.visited.insert(slot);
  }
  scorer.score(slots, n, keys);
  for (std::size_t i = 0; i < n; ++i) {
    if (keys[i] > most || !scratch.beam.admits(keys[i])) continue;
    if (scratch.beam.insert(keys[i], slots[i])) {
      prefetch_run(graph.block(slots[i]), graph.block_bytes());
    }
  }
}

void make_room(BeamScratch& scratch, std::size_t room) {
  if (scratch.slots.size() >= room) return;
  scratch.slots.resize(room);
  scratch.keys.resize(room);
}

// Asks for the first lines of what a hop to a node will read; returns the rest, to be
// read while the present hop goes on.
kernels::LinkAhead look_ahead(const storage::Adjacency& graph, const CodedLinks& coded,
                              const codec::Scorer& scorer, std::uint32_t node) {
  std::span<const std::byte> row = scorer.bytes_of(node);
  prefetch_run(row.data(), row.size());
  const std::byte* links = coded.record(node);
  std::size_t bytes = coded.group_bytes();
  if (links == nullptr) {
    links = reinterpret_cast<const std::byte*>(graph.block(node));
    bytes = graph.block_bytes();
  }
  prefetch_run(links, bytes);
  return {links + kPrefetchRun, row.data() + kPrefetchRun, lines_after_run(bytes),
          lines_after_run(row.size())};
}

// Of a search whose beam holds estimates. They are there sooner than keys, and bound a
// search more tightly; but those of long links can be far too low, where the k-th best
// comes before the best key that is known.
float limit_by(const Reach& reach, const CandidateList& beam,
               const CandidateList& found) {
  const float sure = reach.limit(found);
  if (reach.k == 0 || beam.size() < reach.k || found.size() == 0 ||
      beam.key(reach.k - 1) < found.key(0)) {
    return sure;
  }
  return std::min(sure, reach.limit(beam));
}

}  // namespace

void beam_search(const storage::Adjacency& graph, std::size_t count,
                 const codec::Scorer& scorer, std::span<const std::uint32_t> starts,
                 std::size_t width, const Reach& reach, BeamScratch& scratch) {
  VisitedSet& visited = scratch.visited;
  CandidateList& beam = scratch.beam;
  visited.prepare(count);
  beam.prepare(width);
  make_room(scratch, std::max(graph.degree(), starts.size()));
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
  for (;;) {
    const float most = reach.limit(beam);
    if (!beam.expand_next(node, most)) break;
    score_neighbours(graph, node, count, scorer, most, scratch);
  }
}

void coded_beam_search(const storage::Adjacency& graph, const CodedLinks& coded,
                       std::size_t count, const codec::Scorer& scorer,
                       const kernels::LinkQuery& query, const CodedLinks& roots,
                       std::size_t width, std::size_t keep, const Reach& reach,
                       BeamScratch& scratch) {
  constexpr std::size_t kGroup = kernels::kLinkGroup;
  const auto scan = kernels::active().link_scan;
  VisitedSet& visited = scratch.visited;
  CandidateList& beam = scratch.beam;
  CandidateList& found = scratch.found;
  visited.prepare(count);
  beam.prepare(width);
  make_room(scratch, graph.degree());

  // Of the starts only the best by their codes: each in the beam is expanded.
  float estimates[kGroup];
  found.prepare(kStarts);
  for (const std::byte* group = roots.record(0); group != nullptr;
       group = roots.next(group)) {
    std::uint32_t near =
        scan(query, CodedLinks::codes(group), CodedLinks::offsets(group),
             CodedLinks::scales(group), 0.0f, found.limit(), kNothingAhead, estimates);
    for (; near != 0; near &= near - 1) {
      const auto lane = static_cast<std::size_t>(std::countr_zero(near));
      const std::uint32_t slot = CodedLinks::words(group)[lane] & storage::kSlotMask;
      if (slot < count && found.admits(estimates[lane])) {
        found.insert(estimates[lane], slot);
      }
    }
  }
  std::uint32_t starts[kStarts] = {0};
  std::size_t n = found.size();
  for (std::size_t i = 0; i < n; ++i) starts[i] = found.slot(i);
  n = std::max<std::size_t>(n, 1);
  for (std::size_t i = 0; i < n; ++i) look_ahead(graph, coded, scorer, starts[i]);
  float start_keys[kStarts];
  scorer.score(starts, n, start_keys);
  visited.make_room(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (visited.insert(starts[i]) != 0) beam.insert(start_keys[i], starts[i]);
  }
  found.prepare(keep);

  // The node of the next hop is chosen, and fetched, before this hop's neighbours come
  // in: memory is then a whole hop ahead. Sometimes a better one comes too late for its
  // turn, which costs a hop or two; waiting for memory costs more.
  std::uint32_t node;
  std::uint32_t next;
  float most = std::numeric_limits<float>::infinity();
  for (bool more = beam.expand_next(next); more || beam.expand_next(next, most);) {
    node = next;
    more = beam.expand_next(next, most);
    kernels::LinkAhead ahead =
        more ? look_ahead(graph, coded, scorer, next) : kNothingAhead;
    float key;
    scorer.score(&node, 1, &key);
    found.insert(key, node);
    most = limit_by(reach, beam, found);
    const std::byte* group = coded.record(node);
    if (group == nullptr) {
      score_neighbours(graph, node, count, scorer, most, scratch);
      continue;
    }
    for (const std::byte* after; group != nullptr;
         group = after, ahead = kNothingAhead) {
      after = coded.next(group);
      if (after != nullptr) prefetch_run(after, coded.group_bytes());
      visited.make_room(kGroup);
      std::uint32_t near = scan(query, CodedLinks::codes(group),
                                CodedLinks::offsets(group), CodedLinks::scales(group),
                                key, std::min(beam.limit(), most), ahead, estimates);
      for (; near != 0; near &= near - 1) {
        const auto lane = static_cast<std::size_t>(std::countr_zero(near));
        const std::uint32_t slot = CodedLinks::words(group)[lane] & storage::kSlotMask;
        if (slot >= count) continue;
        float estimate = estimates[lane];
        const bool has_code = estimate == estimate;
        // A slot whose estimate does not serve may come by with a better one from
        // another node; of a slot without a code there is one key, asked for once.
        if (has_code && !beam.admits(estimate)) continue;
        if (visited.insert(slot) == 0) continue;
        if (!has_code) {
          scorer.score(&slot, 1, &estimate);
          if (estimate > most) continue;
        }
        prefetch(coded.handle(slot));
        beam.insert(estimate, slot);
      }
    }
  }
}

}  // namespace annx::search
