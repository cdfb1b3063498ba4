// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/query_links.h"

#include <algorithm>

#include "annx/graph/prune.h"
#include "annx/search/exact.h"
#include "annx/search/topk.h"

namespace annx::graph {
namespace {

using storage::kNoEdge;
using storage::kSlotMask;

// Bytes of rows that lie decoded at a time.
constexpr std::size_t kDecoded = std::size_t{1} << 27;

struct Link {
  std::uint32_t from;
  std::uint32_t to;
};

// What a thread needs for one list after the other.
struct Scratch {
  codec::RowCodec::Query query;
  std::vector<std::uint32_t> places;  // by slot, kNoSlot if it is not on the list
  std::vector<char> leads;            // by place: has a link to a nearer one
  std::vector<char> led_to;           // by place: is linked from a nearer one
  std::vector<float> keys;
};

// The links that a list lacks.
void find_missing(const codec::RowCodec& rows, const storage::Adjacency& graph,
                  std::span<const std::uint32_t> list, Scratch& scratch,
                  std::vector<Link>& missing) {
  const auto k = static_cast<std::size_t>(std::find(list.begin(), list.end(), kNoSlot) -
                                          list.begin());
  list = list.first(k);
  missing.clear();
  scratch.places.resize(rows.size(), kNoSlot);
  scratch.leads.assign(k, 0);
  scratch.led_to.assign(k, 0);
  scratch.keys.resize(k);
  for (std::size_t j = 0; j < k; ++j) {
    scratch.places[list[j]] = static_cast<std::uint32_t>(j);
  }
  for (std::size_t j = 0; j < k; ++j) {
    const std::uint32_t* block = graph.block(list[j]);
    for (std::size_t i = 0; i < graph.degree() && block[i] != kNoEdge; ++i) {
      const std::uint32_t place = scratch.places[block[i] & kSlotMask];
      if (place == kNoSlot) continue;
      if (place < j) scratch.leads[j] = 1;
      if (place > j) scratch.led_to[place] = 1;
    }
  }
  for (const std::uint32_t slot : list) scratch.places[slot] = kNoSlot;
  for (std::size_t j = 1; j < k; ++j) {
    if (scratch.leads[j] != 0 && scratch.led_to[j] != 0) continue;
    scratch.query.set_item(rows, list[j]);
    scratch.query.score(list.data(), j, scratch.keys.data());
    Neighbour nearest{scratch.keys[0], list[0]};
    for (std::size_t i = 1; i < j; ++i) {
      nearest = std::min(nearest, Neighbour{scratch.keys[i], list[i]});
    }
    if (scratch.leads[j] == 0) missing.push_back({list[j], nearest.slot});
    if (scratch.led_to[j] == 0) missing.push_back({nearest.slot, list[j]});
  }
}

// Whether there was room for it, and need.
bool add_link(storage::Adjacency& graph, Link link) {
  const std::uint32_t* block = graph.block(link.from);
  for (std::size_t i = 0; i < graph.degree(); ++i) {
    if (block[i] == kNoEdge) {
      graph.set(link.from, i, link.to);
      return true;
    }
    if ((block[i] & kSlotMask) == link.to) return false;
  }
  return false;
}

}  // namespace

std::vector<std::uint32_t> nearest_rows(const codec::RowCodec& rows, RowsView queries,
                                        std::size_t k, std::size_t threads,
                                        Monitor* monitor) {
  const std::size_t width = row_bytes(rows.dtype(), rows.dim());
  // In equal parts, and few: the k-th best of a large one bounds its search sooner.
  const std::size_t most = std::clamp(kDecoded / width, k, rows.size());
  const std::size_t parts = (rows.size() + most - 1) / most;
  const std::size_t at_once = (rows.size() + parts - 1) / parts;
  std::vector<std::byte> decoded(at_once * width);
  std::vector<std::int64_t> ids(queries.rows * k);
  std::vector<float> distances(ids.size());
  std::vector<search::TopK<float>> best(queries.rows, search::TopK<float>(k));
  search::RowSet set;
  set.metric = rows.metric();
  set.dtype = rows.dtype();
  set.dim = rows.dim();
  set.rows = decoded.data();
  set.stride = width;
  std::vector<float> norms;
  for (std::size_t begin = 0; begin < rows.size(); begin += at_once) {
    set.count = std::min(at_once, rows.size() - begin);
    parallel_for(set.count, threads, 256,
                 [&](std::size_t first, std::size_t last, std::size_t) {
                   for (std::size_t i = first; i < last; ++i) {
                     rows.decode(begin + i, decoded.data() + i * width);
                   }
                 });
    if (search::keeps_norms(set.metric)) {
      norms.resize(set.count);
      search::row_norms(set.metric, set.dtype, {decoded.data(), set.count, width},
                        set.dim, norms.data());
      set.norms = norms.data();
    }
    search::search_topk(set, queries, k, threads, monitor, ids.data(),
                        distances.data());
    for (std::size_t q = 0; q < queries.rows; ++q) {
      for (std::size_t i = q * k; i < (q + 1) * k && ids[i] >= 0; ++i) {
        best[q].push(distances[i], static_cast<std::int64_t>(begin) + ids[i]);
      }
    }
  }
  std::vector<std::uint32_t> lists(queries.rows * k, kNoSlot);
  for (std::size_t q = 0; q < queries.rows; ++q) {
    std::size_t i = q * k;
    for (const auto& hit : best[q].sort()) {
      lists[i++] = static_cast<std::uint32_t>(hit.id);
    }
  }
  return lists;
}

void link_lists(const codec::RowCodec& rows, storage::Adjacency& graph,
                std::span<const std::uint32_t> lists, std::size_t k,
                std::size_t threads,
                const std::function<void(const std::function<void()>&)>& publish,
                std::vector<std::uint32_t>& touched, Monitor* monitor) {
  const std::size_t count = lists.size() / k;
  std::vector<Scratch> scratch(threads);
  std::vector<std::vector<Link>> missing(kQueryRound);
  for (std::size_t begin = 0; begin < count; begin += kQueryRound) {
    if (monitor != nullptr) monitor->poll(begin, count);
    const std::size_t n = std::min(kQueryRound, count - begin);
    parallel_for(n, threads, 1,
                 [&](std::size_t first, std::size_t last, std::size_t worker) {
                   for (std::size_t i = first; i < last; ++i) {
                     find_missing(rows, graph, lists.subspan((begin + i) * k, k),
                                  scratch[worker], missing[i]);
                   }
                 });
    std::size_t most = 0;
    for (std::size_t i = 0; i < n; ++i) most += missing[i].size();
    // Nothing that is written may lack its entry.
    if (const std::size_t wanted = touched.size() + most; touched.capacity() < wanted) {
      touched.reserve(std::max(wanted, 2 * touched.capacity()));
    }
    publish([&] {
      for (std::size_t i = 0; i < n; ++i) {
        for (const Link& link : missing[i]) {
          if (add_link(graph, link)) touched.push_back(link.from);
        }
      }
    });
  }
}

}  // namespace annx::graph
