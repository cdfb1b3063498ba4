// SPDX-License-Identifier: Apache-2.0
// Searching of an IvfIndex whose lists hold whole rows: what is looked at is ranked by
// canonical distances, so nothing needs a second look. O(dim) a row.
#include <algorithm>
#include <limits>

#include "annx/base/groups.h"
#include "annx/base/prefetch.h"
#include "annx/index/ivf_scratch.h"
#include "annx/search/topk.h"

namespace annx::index {
namespace {

using storage::CodeLists;

constexpr std::uint32_t kBlock = CodeLists::kBlock;
// Queries of a batch that are searched for together, and rows that they share a look
// at.
constexpr std::size_t kTogether = 192;
constexpr std::size_t kPieceBytes = std::size_t{24} << 10;

template <class Key>
void write(search::TopK<Key>& near, std::int64_t* ids, float* distances) {
  const auto& best = near.sort();
  for (std::size_t i = 0; i < best.size(); ++i) {
    ids[i] = best[i].id;
    distances[i] = search::Canonical<Key>::distance(best[i].key);
  }
}

}  // namespace

// Calls visit(rows, norms, count, place of the first) for the rows of a list, `most` of
// them at a time or kBlock.
template <class Visit>
void IvfIndex::walk_list(std::size_t list, std::size_t most, const Visit& visit) const {
  const RowBlock rows = row_block();
  const CodeLists& lists = trained_->lists;
  const std::vector<std::uint32_t>& blocks = lists.blocks(list);
  const std::size_t together =
      rows.seamless() ? std::max<std::size_t>(1, most / kBlock) : 1;
  for (std::size_t b = 0; b < blocks.size();) {
    const std::size_t run = lists.run(list, b, together);
    const std::byte* block = lists.block(blocks[b]);
    visit(block, rows.norms(block),
          std::min<std::size_t>(run * kBlock, lists.size(list) - b * kBlock),
          blocks[b] * kBlock);
    b += run;
  }
}

// The nearest of rows that were measured.
template <class Key>
void IvfIndex::take_nearest(search::TopK<Key>& near, const Key* keys, std::size_t count,
                            std::uint32_t place, const storage::SlotSet* filter) const {
  const std::size_t held = ids_.slots();
  Key limit = near.limit();
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t end = std::min<std::size_t>(count, at + kBlock);
    // Almost always nothing gets in; the compiler does this test in vectors.
    unsigned any = 0;
    for (std::size_t i = at; i < end; ++i) any |= keys[i] <= limit ? 1u : 0u;
    if (any == 0) continue;
    for (std::size_t i = at; i < end; ++i) {
      if (!(keys[i] <= limit)) continue;
      const std::uint32_t slot =
          trained_->lists.slot(place + static_cast<std::uint32_t>(i));
      if (slot >= held || (filter != nullptr && !filter->test(slot))) continue;
      near.push(keys[i], ids_.id_of(slot));
      limit = near.limit();
    }
  }
}

template <class Key>
void IvfIndex::search_rows(const Scratch& scratch, const std::byte* query,
                           const Search& how, const storage::SlotSet* filter,
                           std::int64_t* ids, float* distances) const {
  constexpr std::size_t kStretch = search::Canonical<Key>::kStretch;
  const CodeLists& lists = trained_->lists;
  const search::Canonical<Key> canonical(row_set(), query);
  search::TopK<Key> near(how.k);
  Key keys[kStretch];
  for (std::size_t p = 0; p < scratch.probes.size(); ++p) {
    if (p >= how.n_probe && near.full()) break;
    if (p + 1 < scratch.probes.size()) {
      const auto& next = lists.blocks(scratch.probes[p + 1]);
      if (!next.empty()) prefetch_run(lists.block(next[0]), lists.stride());
    }
    walk_list(scratch.probes[p], kStretch,
              [&](const std::byte* rows, const float* norms, std::size_t count,
                  std::uint32_t place) {
                canonical.rows(rows, norms, count, keys);
                take_nearest(near, keys, count, place, filter);
              });
  }
  write(near, ids, distances);
}

// Queries that are searched for together: a list is read once, in pieces that stay in
// the first caches, for all of them that look at it.
template <class Key>
void IvfIndex::search_together(Scratch& scratch, RowsView queries, std::size_t first,
                               std::size_t count, const Search& how, std::size_t room,
                               std::int64_t* ids, float* distances) const {
  constexpr std::size_t kStretch = search::Canonical<Key>::kStretch;
  const std::size_t lists = trained_->lists.lists();
  std::vector<search::Canonical<Key>> canonicals;
  std::vector<search::TopK<Key>> near(count, search::TopK<Key>(how.k));
  std::vector<std::uint32_t> probes;  // [query][n_probe]
  canonicals.reserve(count);
  probes.reserve(count * how.n_probe);
  for (std::size_t at = 0; at < count; at += kernels::kScorePoints) {
    const std::size_t part = std::min(kernels::kScorePoints, count - at);
    score_lists(*trained_, scratch, queries, search::query_dtype(options_.dtype),
                first + at, part);
    for (std::size_t i = 0; i < part; ++i) {
      canonicals.emplace_back(row_set(), queries.row(first + at + i));
      scratch.choose(i, lists, how.n_probe, trained_->products);
      probes.insert(probes.end(), scratch.probes.begin(), scratch.probes.end());
    }
  }
  const Groups visits(probes, lists);
  const std::size_t most = std::min(kStretch, kPieceBytes / row_stride());
  Key keys[kStretch];
  for (std::size_t l = 0; l < lists; ++l) {
    const std::uint32_t* from = visits.items.data() + visits.begins[l];
    const std::uint32_t* to = visits.items.data() + visits.begins[l + 1];
    if (from == to) continue;
    walk_list(l, most,
              [&](const std::byte* rows, const float* norms, std::size_t n,
                  std::uint32_t place) {
                for (const std::uint32_t* visit = from; visit != to; ++visit) {
                  const std::size_t q = *visit / how.n_probe;
                  canonicals[q].rows(rows, norms, n, keys);
                  take_nearest(near[q], keys, n, place, nullptr);
                }
              });
  }
  for (std::size_t q = 0; q < count; ++q) {
    write(near[q], ids + q * room, distances + q * room);
  }
}

// Only these slots. locate() must have been called.
template <class Key>
void IvfIndex::search_chosen(const std::byte* query,
                             const std::vector<std::uint32_t>& slots, std::size_t k,
                             std::int64_t* ids, float* distances) const {
  const RowBlock rows = row_block();
  const search::Canonical<Key> canonical(row_set(), query);
  search::TopK<Key> near(k);
  for (const std::uint32_t slot : slots) {
    const std::byte* block = trained_->lists.block(places_[slot] / kBlock);
    const std::uint32_t lane = places_[slot] % kBlock;
    const float* norms = rows.norms(block);
    Key key;
    canonical.rows(rows.row(block, lane), norms == nullptr ? nullptr : norms + lane, 1,
                   &key);
    near.push(key, ids_.id_of(slot));
  }
  write(near, ids, distances);
}

template <class Key>
search::Ragged IvfIndex::rows_within(RowsView queries, double radius,
                                     const storage::SlotSet* filter,
                                     std::size_t threads, Monitor* monitor) const {
  radius = search::comparable_radius(options_.metric, options_.storage, radius);
  const std::size_t held = ids_.slots();
  std::vector<std::vector<search::Hit<Key>>> found(queries.rows);
  parallel_for(
      queries.rows, resolve_threads(threads), 1,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t q = begin; q < end; ++q) {
          const search::Canonical<Key> canonical(row_set(), queries.row(q));
          Key keys[search::Canonical<Key>::kStretch];
          const auto take = [&](const std::byte* rows, const float* norms,
                                std::size_t count, std::uint32_t place) {
            canonical.rows(rows, norms, count, keys);
            for (std::size_t i = 0; i < count; ++i) {
              if (!search::inside(keys[i], radius)) continue;
              const std::uint32_t slot =
                  trained_->lists.slot(place + static_cast<std::uint32_t>(i));
              if (slot >= held || (filter != nullptr && !filter->test(slot))) continue;
              found[q].push_back({keys[i], ids_.id_of(slot)});
            }
          };
          for (std::size_t l = 0; trained_ != nullptr && l < trained_->lists.lists();
               ++l) {
            walk_list(l, search::Canonical<Key>::kStretch, take);
          }
          std::sort(found[q].begin(), found[q].end());
        }
      },
      monitor);
  search::Ragged result;
  for (const auto& hits : found) {
    result.append(hits, search::Canonical<Key>::distance);
  }
  return result;
}

void IvfIndex::search_flat(const Scratch& scratch, const std::byte* query,
                           const Search& how, const storage::SlotSet* filter,
                           std::int64_t* ids, float* distances) const {
  if (search::has_integer_key(options_.metric, options_.storage)) {
    search_rows<std::int32_t>(scratch, query, how, filter, ids, distances);
  } else {
    search_rows<float>(scratch, query, how, filter, ids, distances);
  }
}

void IvfIndex::search_flat_batch(RowsView queries, const Search& how, std::size_t room,
                                 std::size_t threads, Monitor* monitor,
                                 std::int64_t* ids, float* distances) const {
  const bool integers = search::has_integer_key(options_.metric, options_.storage);
  parallel_for(
      queries.rows, resolve_threads(threads), kTogether,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const ScratchPool<Scratch>::Lease lease(scratch_);
        std::int64_t* to_ids = ids + begin * room;
        float* to_distances = distances + begin * room;
        if (integers) {
          search_together<std::int32_t>(*lease, queries, begin, end - begin, how, room,
                                        to_ids, to_distances);
        } else {
          search_together<float>(*lease, queries, begin, end - begin, how, room, to_ids,
                                 to_distances);
        }
      },
      monitor);
}

void IvfIndex::search_few(RowsView queries, const storage::SlotSet& chosen,
                          std::size_t k, std::size_t threads, Monitor* monitor,
                          std::int64_t* ids, float* distances) const {
  if (!flat()) {
    const search::FilteredRows rows(row_set(), &chosen);
    search::search_topk(rows.set(), queries, k, threads, monitor, ids, distances);
    return;
  }
  locate();
  const std::vector<std::uint32_t> slots = chosen.slots();
  const bool integers = search::has_integer_key(options_.metric, options_.storage);
  parallel_for(
      queries.rows, resolve_threads(threads), 1,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t q = begin; q < end; ++q) {
          if (integers) {
            search_chosen<std::int32_t>(queries.row(q), slots, k, ids + q * k,
                                        distances + q * k);
          } else {
            search_chosen<float>(queries.row(q), slots, k, ids + q * k,
                                 distances + q * k);
          }
        }
      },
      monitor);
}

search::Ragged IvfIndex::flat_within(RowsView queries, double radius,
                                     const storage::SlotSet* filter,
                                     std::size_t threads, Monitor* monitor) const {
  return search::has_integer_key(options_.metric, options_.storage)
             ? rows_within<std::int32_t>(queries, radius, filter, threads, monitor)
             : rows_within<float>(queries, radius, filter, threads, monitor);
}

}  // namespace annx::index
