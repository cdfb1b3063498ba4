// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/builder.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "annx/base/random.h"

namespace annx::graph {
namespace {

using storage::kNoEdge;
using storage::kSlotMask;
using storage::kTreeEdge;

constexpr std::size_t kNodesPerRange = 8;
constexpr std::size_t kTargetsPerRange = 32;
// Earlier rows of which the nearest is the parent, where no near neighbour is earlier.
constexpr std::size_t kParentDraws = 64;

}  // namespace

Builder::Builder(const codec::RowCodec& rows, storage::Adjacency& graph,
                 BuildOptions options)
    : rows_(rows), graph_(graph), options_(options) {
  switch (rows.metric()) {
    case Metric::kL1: relax_ = options.alpha; break;
    // Negated inner products are no distances: scaling them has no meaning.
    case Metric::kInnerProduct: relax_ = 1.0f; break;
    // Squared distances, or as good as.
    default: relax_ = options.alpha * options.alpha;
  }
}

void Builder::prepare_workers(std::size_t threads) {
  if (workers_.size() < threads) workers_.resize(threads);
}

void Builder::choose_links(std::size_t count, const std::vector<std::uint32_t>& entries,
                           std::size_t threads, Monitor* monitor) {
  first_ = count;
  last_ = rows_.size();
  prepare_workers(threads);
  batch_.resize(last_ - first_);
  std::iota(batch_.begin(), batch_.end(), static_cast<std::uint32_t>(first_));
  parents_.assign(last_ - first_, kNoSlot);
  parallel_for(
      last_ - first_, threads, kNodesPerRange,
      [&](std::size_t begin, std::size_t end, std::size_t index) {
        for (std::size_t i = begin; i < end; ++i) {
          choose(batch_[i], entries, workers_[index]);
        }
      },
      monitor);
}

void Builder::choose(std::uint32_t node, const std::vector<std::uint32_t>& entries,
                     Worker& worker) {
  worker.query.set_item(rows_, node);
  search::beam_search(graph_, first_, worker.query, entries, options_.ef_construction,
                      {}, worker.beam);
  const search::CandidateList& beam = worker.beam.beam;
  std::vector<Neighbour>& candidates = worker.candidates;
  candidates.clear();
  for (std::size_t j = 0; j < beam.size(); ++j) {
    candidates.push_back({beam.key(j), beam.slot(j)});
  }
  Neighbour parent{std::numeric_limits<float>::infinity(), kNoSlot};
  if (beam.size() != 0) parent = candidates[0];
  worker.batch_keys.resize(batch_.size());
  worker.query.score(batch_.data(), batch_.size(), worker.batch_keys.data());
  const float limit = beam.size() < options_.ef_construction
                          ? std::numeric_limits<float>::infinity()
                          : candidates.back().key;
  for (std::size_t j = 0; j < batch_.size(); ++j) {
    const Neighbour other{worker.batch_keys[j], batch_[j]};
    if (other.slot == node) continue;
    if (other.slot < node && other < parent) parent = other;
    if (other.key < limit) candidates.push_back(other);
  }
  parents_[node - first_] = parent.slot;
  std::sort(candidates.begin(), candidates.end());
  if (candidates.size() > options_.ef_construction) {
    candidates.resize(options_.ef_construction);
  }
  // Half of the links are a node's own choice; the rest is room for being chosen.
  const std::size_t degree = graph_.degree();
  select_neighbours(rows_, candidates, 1, degree / 2, relax_, worker.prune,
                    worker.chosen);
  for (std::size_t j = 0; j < worker.chosen.size(); ++j) {
    graph_.set(node, j, worker.chosen[j].slot);
  }
}

void Builder::choose_links_from(const std::vector<Level>& levels, std::size_t threads,
                                Monitor* monitor) {
  first_ = 0;
  last_ = rows_.size();
  prepare_workers(threads);
  batch_.resize(last_);
  std::iota(batch_.begin(), batch_.end(), 0u);
  parents_.assign(last_, kNoSlot);
  // Near rows one after the other have candidates in common, which the cache then
  // holds.
  const std::vector<std::uint32_t>& order = levels[0].near.order;
  parallel_for(
      last_, threads, 64,
      [&](std::size_t begin, std::size_t end, std::size_t index) {
        for (std::size_t i = begin; i < end; ++i) {
          choose_listed(levels, order.empty() ? batch_[i] : order[i], workers_[index]);
        }
      },
      monitor);
}

// The worker's slots as candidates, nearest first.
void Builder::score_slots(std::uint32_t node, Worker& worker) {
  worker.batch_keys.resize(worker.slots.size());
  worker.query.score(worker.slots.data(), worker.slots.size(),
                     worker.batch_keys.data());
  worker.candidates.clear();
  for (std::size_t j = 0; j < worker.slots.size(); ++j) {
    worker.candidates.push_back({worker.batch_keys[j], worker.slots[j]});
  }
  std::sort(worker.candidates.begin(), worker.candidates.end());
  std::uint32_t& parent = parents_[node - first_];
  for (const Neighbour& candidate : worker.candidates) {
    if (candidate.slot >= node) continue;
    if (parent == kNoSlot || candidate < worker.parent) {
      worker.parent = candidate;
      parent = candidate.slot;
    }
    break;
  }
}

void Builder::choose_listed(const std::vector<Level>& levels, std::uint32_t node,
                            Worker& worker) {
  const std::size_t degree = graph_.degree();
  const std::size_t far = std::max<std::size_t>(1, degree / 4);
  worker.query.set_item(rows_, node);
  std::vector<Neighbour>& links = worker.links;
  links.clear();
  // From the smallest level down: near links take what room the far ones leave.
  for (std::size_t number = levels.size(); number-- > 0;) {
    const Level& level = levels[number];
    const std::size_t place = level.place(node);
    if (place == kNoSlot) continue;
    worker.slots.clear();
    for (const std::uint32_t near : level.near.list(place)) {
      if (near == kNoSlot || near == place) continue;
      const std::uint32_t slot = level.slot(near);
      // Far links go beyond what the level below lists.
      if (number == 0 || !levels[number - 1].lists(node, slot)) {
        worker.slots.push_back(slot);
      }
    }
    score_slots(node, worker);
    // Of equal rows the first leads out, and the others lead to it: each would hide
    // from the next whatever else there is.
    std::erase_if(worker.candidates, [&](const Neighbour& other) {
      return other.key == 0 && other.slot > node;
    });
    const std::size_t wanted =
        number != 0 ? far
                    : std::max(far, degree / 2 - std::min(links.size(), degree / 2));
    const std::size_t room = degree - links.size() - (number != 0 ? far : 0);
    select_neighbours(rows_, worker.candidates, 1, std::min(wanted, room), relax_,
                      worker.prune, worker.chosen);
    for (const Neighbour& link : worker.chosen) {
      const auto same = [&](const Neighbour& other) { return other.slot == link.slot; };
      if (std::none_of(links.begin(), links.end(), same)) links.push_back(link);
    }
  }
  std::sort(links.begin(), links.end());
  for (std::size_t j = 0; j < links.size(); ++j) graph_.set(node, j, links[j].slot);
  if (parents_[node] != kNoSlot || node == 0) return;
  const Random random(options_.seed, node);
  worker.slots.clear();
  for (std::size_t j = 0; j < kParentDraws; ++j) {
    worker.slots.push_back(static_cast<std::uint32_t>(random.below(j, node)));
  }
  score_slots(node, worker);
}

void Builder::add_reverse_links(std::size_t threads) {
  const std::size_t degree = graph_.degree();
  prepare_workers(threads);
  links_.clear();
  std::size_t most = batch_.size();
  for (const std::uint32_t node : batch_) most += graph_.count(node);
  links_.reserve(most);
  for (const std::uint32_t node : batch_) {
    const std::uint32_t* block = graph_.block(node);
    for (std::size_t j = 0; j < degree && block[j] != kNoEdge; ++j) {
      links_.emplace_back(block[j], node, false);
    }
    const std::uint32_t parent = parents_[node - first_];
    if (parent != kNoSlot) links_.emplace_back(parent, node, true);
  }
  std::sort(links_.begin(), links_.end());
  std::vector<std::size_t> groups;
  for (std::size_t i = 0; i < links_.size(); ++i) {
    if (i == 0 || links_[i].target() != links_[i - 1].target()) groups.push_back(i);
  }
  if (groups.empty()) return;
  groups.push_back(links_.size());
  touched_.insert(touched_.end(), batch_.begin(), batch_.end());
  for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
    touched_.push_back(links_[groups[g]].target());
  }
  attached_.assign(batch_.size(), 0);
  parallel_for(groups.size() - 1, threads, kTargetsPerRange,
               [&](std::size_t begin, std::size_t end, std::size_t index) {
                 for (std::size_t g = begin; g < end; ++g) {
                   link_sources({links_.data() + groups[g], groups[g + 1] - groups[g]},
                                workers_[index]);
                 }
               });
  // In order of slot: everything before a node hangs together already.
  for (const std::uint32_t node : batch_) {
    if (node != 0 && attached_[node - first_] == 0) attach(node, workers_[0]);
  }
}

std::size_t Builder::tree_edges(std::uint32_t node) const {
  const std::uint32_t* block = graph_.block(node);
  std::size_t n = 0;
  for (std::size_t j = 0; j < graph_.degree(); ++j) {
    n += block[j] != kNoEdge && (block[j] & kTreeEdge) != 0 ? 1 : 0;
  }
  return n;
}

// Takes the sources of one target (all new, in order of slot) in as its links.
void Builder::link_sources(std::span<const Link> links, Worker& worker) {
  const std::size_t degree = graph_.degree();
  const std::uint32_t target = links[0].target();
  const std::uint32_t* block = graph_.block(target);
  std::size_t count = graph_.count(target);
  std::size_t trees = tree_edges(target);
  worker.slots.resize(degree);
  worker.to_target.resize(degree);
  worker.to_source.resize(degree);
  bool scored = false;  // to_target holds the distances of the whole block
  std::uint32_t before = kNoSlot;
  for (const Link& link : links) {
    const std::uint32_t source = link.source();
    if (source == before) continue;  // its tree edge came first
    before = source;
    const bool tree = link.tree() && trees < degree / 2;
    if (tree) {
      ++trees;
      attached_[source - first_] = 1;
    }
    const std::uint32_t word = tree ? source | kTreeEdge : source;
    // Two nodes of a batch may have chosen each other.
    const auto own =
        static_cast<std::size_t>(std::find(block, block + count, source) - block);
    if (own != count || count < degree) {
      graph_.set(target, own, word);
      count = std::max(count, own + 1);
      continue;
    }
    for (std::size_t j = 0; j < degree; ++j) worker.slots[j] = block[j] & kSlotMask;
    if (!scored) {
      worker.query.set_item(rows_, target);
      worker.query.score(worker.slots.data(), degree, worker.to_target.data());
      scored = true;
    }
    float key;
    worker.query.score(&source, 1, &key);
    worker.prune.query.set_item(rows_, source);
    worker.prune.query.score(worker.slots.data(), degree, worker.to_source.data());
    // The links are already pruned among themselves, so only pairs with the new one
    // matter: it may be occluded by a nearer link, or occlude a farther one.
    bool occluded = false;
    std::size_t victim = degree;
    std::size_t farthest = degree;
    for (std::size_t j = 0; j < degree; ++j) {
      const float there = worker.to_target[j];
      const float between = worker.to_source[j];
      const Metric metric = rows_.metric();
      if (there <= key && occludes(metric, relax_, between, key)) occluded = true;
      if ((block[j] & kTreeEdge) != 0) continue;
      if (farthest == degree || there > worker.to_target[farthest]) farthest = j;
      if (there > key && occludes(metric, relax_, between, there) &&
          (victim == degree || there > worker.to_target[victim])) {
        victim = j;
      }
    }
    if (occluded && !tree) continue;
    if (victim == degree) {
      if (!tree && worker.to_target[farthest] <= key) continue;
      victim = farthest;
    }
    graph_.set(target, victim, word);
    worker.to_target[victim] = key;
  }
}

// The nearest earlier node had no room for the tree edge: walk down the tree from it.
// Leaves have room, so this ends.
void Builder::attach(std::uint32_t node, Worker& worker) {
  const std::size_t degree = graph_.degree();
  std::vector<std::uint32_t>& queue = worker.slots;
  queue.assign(1, parents_[node - first_]);
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const std::uint32_t parent = queue[head];
    if (tree_edges(parent) >= degree / 2) {
      for (std::size_t j = 0; j < degree; ++j) {
        const std::uint32_t word = graph_.block(parent)[j];
        if (word != kNoEdge && (word & kTreeEdge) != 0)
          queue.push_back(word & kSlotMask);
      }
      continue;
    }
    const std::uint32_t* block = graph_.block(parent);
    const std::size_t count = graph_.count(parent);
    std::size_t place = count;
    for (std::size_t j = 0; j < count; ++j) {
      if ((block[j] & kSlotMask) == node) place = j;
    }
    if (place == degree) {
      // Full: the farthest link that is not a tree edge gives way.
      worker.query.set_item(rows_, parent);
      float farthest = -std::numeric_limits<float>::infinity();
      for (std::size_t j = 0; j < degree; ++j) {
        if ((block[j] & kTreeEdge) != 0) continue;
        const std::uint32_t slot = block[j];
        float key;
        worker.query.score(&slot, 1, &key);
        if (place == degree || key > farthest) {  // the first even if it is NaN
          farthest = key;
          place = j;
        }
      }
    }
    graph_.set(parent, place, node | kTreeEdge);
    touched_.push_back(parent);
    return;
  }
}

}  // namespace annx::graph
