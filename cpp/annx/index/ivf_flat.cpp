// SPDX-License-Identifier: Apache-2.0
// Searching of an IvfIndex whose lists hold whole rows: what is looked at is ranked by
// canonical distances, so nothing needs a second look. O(dim) a row.
#include <algorithm>
#include <limits>

#include "annx/base/error.h"
#include "annx/base/prefetch.h"
#include "annx/index/ivf_scratch.h"
#include "annx/search/topk.h"

namespace annx::index {
namespace {

using storage::CodeLists;

constexpr std::uint32_t kBlock = CodeLists::kBlock;

template <class Key>
void write(search::TopK<Key>& near, std::int64_t* ids, float* distances) {
  const auto& best = near.sort();
  for (std::size_t i = 0; i < best.size(); ++i) {
    ids[i] = best[i].id;
    distances[i] = search::Canonical<Key>::distance(best[i].key);
  }
}

}  // namespace

// Calls take(keys, count, place of the first) for all rows of a list, at most kBlock of
// them at a time.
template <class Key, class Take>
void IvfIndex::scan_list(const search::Canonical<Key>& canonical, std::size_t list,
                         const Take& take) const {
  constexpr std::size_t kStretch = search::Canonical<Key>::kStretch;
  const RowBlock rows = row_block();
  const CodeLists& lists = trained_->lists;
  const std::vector<std::uint32_t>& blocks = lists.blocks(list);
  const std::size_t most = rows.seamless() ? kStretch / kBlock : 1;
  Key keys[kStretch];
  for (std::size_t b = 0; b < blocks.size();) {
    const std::size_t run = lists.run(list, b, most);
    const std::size_t count =
        std::min<std::size_t>(run * kBlock, lists.size(list) - b * kBlock);
    const std::byte* block = lists.block(blocks[b]);
    canonical.rows(block, rows.norms(block), count, keys);
    for (std::size_t i = 0; i < count; i += kBlock) {
      take(keys + i, std::min<std::size_t>(kBlock, count - i),
           blocks[b] * kBlock + static_cast<std::uint32_t>(i));
    }
    b += run;
  }
}

template <class Key>
void IvfIndex::search_rows(const Scratch& scratch, const std::byte* query,
                           const Search& how, const storage::SlotSet* filter,
                           std::int64_t* ids, float* distances) const {
  const CodeLists& lists = trained_->lists;
  const std::size_t held = ids_.slots();
  const search::Canonical<Key> canonical(row_set(), query);
  search::TopK<Key> near(how.k);
  Key limit = near.limit();
  for (std::size_t p = 0; p < scratch.probes.size(); ++p) {
    if (p >= how.n_probe && near.full()) break;
    if (p + 1 < scratch.probes.size()) {
      const auto& next = lists.blocks(scratch.probes[p + 1]);
      if (!next.empty()) prefetch_run(lists.block(next[0]), lists.stride());
    }
    scan_list<Key>(canonical, scratch.probes[p],
                   [&](const Key* keys, std::size_t count, std::uint32_t place) {
                     // Almost always nothing gets in; the compiler does this test in
                     // vectors.
                     unsigned any = 0;
                     for (std::size_t i = 0; i < count; ++i)
                       any |= keys[i] <= limit ? 1u : 0u;
                     if (any == 0) return;
                     for (std::size_t i = 0; i < count; ++i) {
                       if (!(keys[i] <= limit)) continue;
                       const std::uint32_t slot =
                           lists.slot(place + static_cast<std::uint32_t>(i));
                       if (slot >= held || (filter != nullptr && !filter->test(slot)))
                         continue;
                       near.push(keys[i], ids_.id_of(slot));
                       limit = near.limit();
                     }
                   });
  }
  write(near, ids, distances);
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
          const auto take = [&](const Key* keys, std::size_t count,
                                std::uint32_t place) {
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
            scan_list<Key>(canonical, l, take);
          }
          std::sort(found[q].begin(), found[q].end());
        }
      },
      monitor);
  search::Ragged result;
  result.offsets.push_back(0);
  for (const auto& hits : found) {
    for (const search::Hit<Key>& hit : hits) {
      result.ids.push_back(hit.id);
      result.distances.push_back(search::Canonical<Key>::distance(hit.key));
    }
    result.offsets.push_back(static_cast<std::int64_t>(result.ids.size()));
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
