// SPDX-License-Identifier: Apache-2.0
// Searching a KDForestIndex: walks that are exact, and leaves of all trees in the order
// of their boxes within a budget.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

#include "annx/index/kd_forest_part.h"
#include "annx/search/near_list.h"
#include "annx/search/visited.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

// One thread's searches; the index is locked for reading.
class KDForestIndex::Searcher {
 public:
  Searcher(const KDForestIndex& index, const storage::SlotSet* filter)
      : index_(index),
        filter_(filter),
        dim_(index.options_.dim),
        metric_(index.options_.metric),
        lanes_(index.in_lanes()),
        error_(static_cast<double>(2 * dim_ + 64) * 0x1p-24) {
    const auto& table = kernels::active();
    const bool l1 = metric_ == Metric::kL1;
    bounds_ = table.box_bounds[l1 ? 1 : 0];
    leaf_ = table.leaf_keys[l1 ? 1 : metric_ == Metric::kCosine ? 2 : 0];
    direction_.resize(metric_ == Metric::kCosine ? dim_ : 0);
  }

  // Everything below is about this query until the next call.
  void prepare(const float* query) {
    query_ = query;
    tree_query_ = query;
    scorers_.clear();
    if (metric_ == Metric::kCosine) {
      const search::RowSet empty{.metric = metric_, .dim = dim_};
      const search::Canonical<float> scorer(empty,
                                            reinterpret_cast<const std::byte*>(query));
      unit_ = scorer.unit();
      square_ = scorer.square();
      // Of a zero query too: any query is at least as far as boxes say.
      direction(unit_.empty() ? query : unit_.data(), dim_, std::sqrt(square_),
                direction_.data());
      tree_query_ = direction_.data();
    }
    if (lanes_) return;
    for (const auto& part : index_.parts_) {
      scorers_.emplace_back(index_.row_set(*part),
                            reinterpret_cast<const std::byte*>(query));
    }
  }

  std::size_t nearest_leaf(const Part& part) const {
    return part.trees[0].nearest_leaf(tree_query_, bounds_);
  }

  // take(key, id) for every row at most `limit` away, whatever limit() is then.
  template <class Limit, class Take>
  void exact(Limit&& limit, Take&& take) {
    for (std::size_t p = 0; p < index_.parts_.size(); ++p) {
      const Part& part = *index_.parts_[p];
      if (part.trees.empty()) {
        scan_all(p, limit, take);
        continue;
      }
      part.trees[0].walk(tree_query_, bounds_, bound(limit()), [&](std::size_t leaf) {
        scan(p, leaf, limit, take);
        return bound(limit());
      });
    }
  }

  void topk(std::size_t k, std::size_t checks, std::int64_t* ids, float* distances) {
    near_.prepare(k);
    const auto limit = [&] { return near_.limit(); };
    const auto take = [&](float key, std::int64_t id) { near_.push(key, id); };
    const std::size_t wanted =
        filter_ == nullptr ? index_.ids_.size() : filter_->count();
    if (few(k)) {
      list(limit, take);
    } else if (checks >= wanted) {
      exact(limit, take);
    } else {
      best_first(checks);
    }
    near_.write(ids, distances);
  }

  void within(float radius, std::vector<search::Hit<float>>& hits) {
    hits.clear();
    const auto limit = [&] { return radius; };
    const auto take = [&](float key, std::int64_t id) { hits.push_back({key, id}); };
    if (few(16)) {
      list(limit, take);
    } else {
      exact(limit, take);
    }
    std::sort(hits.begin(), hits.end());
  }

 private:
  struct Entry {
    float bound;
    std::uint32_t tree;  // part * n_trees + tree
    std::uint32_t node;
    // Nearest first in a heap; then in a fixed order.
    friend bool operator<(const Entry& a, const Entry& b) {
      if (a.bound != b.bound) return a.bound > b.bound;
      return a.tree != b.tree ? a.tree > b.tree : a.node > b.node;
    }
  };

  // What boxes may be away, in their sums, of which a row could be within `limit`: with
  // room for the rounding of both, and of directions.
  float bound(float limit) const {
    if (limit == kInfinity) return limit;
    double wide = std::max(0.0, static_cast<double>(limit)) * (1 + error_) + 1e-37;
    if (metric_ == Metric::kCosine) {
      const double length = std::sqrt(2 * (wide + 0x1p-44)) + 0x1p-20;
      wide = length * length;
    }
    return static_cast<float>(wide);
  }

  bool passes(std::uint32_t slot) const {
    return slot != kNoSlot && (filter_ == nullptr || filter_->test(slot));
  }

  // So few rows pass the filter that a walk would look at more than they are.
  bool few(std::size_t k) const {
    if (filter_ == nullptr) return false;
    const auto count = static_cast<double>(filter_->count());
    return count <= 64 ||
           count * count * 10 <=
               static_cast<double>(k) * static_cast<double>(index_.ids_.size());
  }

  // The rows of a filter one by one.
  template <class Limit, class Take>
  void list(Limit&& limit, Take&& take) {
    constexpr std::size_t kTogether = 64;
    if (slots_.empty()) slots_ = filter_->slots();
    rows_.resize(kTogether * dim_);
    float norms[kTogether];
    float keys[kTogether];
    for (std::size_t begin = 0; begin < slots_.size(); begin += kTogether) {
      const std::size_t n = std::min(kTogether, slots_.size() - begin);
      for (std::size_t i = 0; i < n; ++i) {
        const Place place = index_.places_[slots_[begin + i]];
        const Part& part = *index_.parts_[place.part];
        index_.copy_row(part, place.at, rows_.data() + i * dim_);
        if (!part.norms.empty()) norms[i] = part.norms[place.at];
      }
      const search::RowSet set{.metric = metric_,
                               .dim = dim_,
                               .rows = reinterpret_cast<const std::byte*>(rows_.data()),
                               .stride = dim_ * sizeof(float),
                               .count = n,
                               .norms = norms};
      const search::Canonical<float> scorer(set,
                                            reinterpret_cast<const std::byte*>(query_));
      scorer.block(0, n, keys);
      for (std::size_t i = 0; i < n; ++i) {
        if (keys[i] <= limit()) take(keys[i], index_.ids_.id_of(slots_[begin + i]));
      }
    }
  }

  // The rows of a leaf of a part's first tree; those of a part without any.
  template <class Limit, class Take>
  void scan(std::size_t p, std::size_t leaf, Limit&& limit, Take&& take) {
    const Part& part = *index_.parts_[p];
    const std::size_t begin = leaf * kLeaf;
    float keys[kLeaf];
    std::uint32_t hits;
    if (!lanes_) {
      const std::size_t n = std::min(kLeaf, part.count - begin);
      scorers_[p].block(begin, n, keys);
      hits = (1u << n) - 1u;
    } else if (metric_ == Metric::kCosine) {
      hits = scan_directions(part, begin, limit(), keys);
    } else {
      hits = leaf_(query_, part.points.data() + begin * dim_, nullptr, dim_, limit(),
                   keys);
    }
    const std::uint32_t* slots = part.slots.data() + begin;
    for (; hits != 0; hits &= hits - 1) {
      const auto i = static_cast<std::size_t>(std::countr_zero(hits));
      if (keys[i] <= limit() && passes(slots[i])) {
        take(keys[i], index_.ids_.id_of(slots[i]));
      }
    }
  }

  template <class Limit, class Take>
  void scan_all(std::size_t p, Limit&& limit, Take&& take) {
    const std::size_t leaves = index_.parts_[p]->leaves();
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) scan(p, leaf, limit, take);
  }

  // Cosine in lanes, by the steps of search::Canonical.
  std::uint32_t scan_directions(const Part& part, std::size_t begin, float limit,
                                float* keys) const {
    const float* norms = part.norms.data() + begin;
    constexpr std::uint32_t kAll = (1u << kLeaf) - 1u;
    if (square_ == 0) {
      std::fill_n(keys, kLeaf, 1.0f);
      return kAll;
    }
    const double norm = std::sqrt(square_);
    float scales[kLeaf];
    for (std::size_t i = 0; i < kLeaf; ++i) {
      scales[i] = norms[i] > 0 ? static_cast<float>(norm / norms[i]) : 0.0f;
    }
    const auto reach = static_cast<float>((static_cast<double>(limit) * 2.0 * square_) *
                                          (1 + 0x1p-20));
    const std::uint32_t hits = leaf_(unit_.data(), part.points.data() + begin * dim_,
                                     scales, dim_, reach, keys);
    for (std::uint32_t left = hits; left != 0; left &= left - 1) {
      const auto i = static_cast<std::size_t>(std::countr_zero(left));
      keys[i] = norms[i] > 0 ? static_cast<float>(keys[i] / (2.0 * square_)) : 1.0f;
    }
    return hits;
  }

  // The leaves of all trees in order of their boxes, until enough rows were measured.
  void best_first(std::size_t checks) {
    const std::size_t trees = index_.options_.n_trees;
    const auto limit = [&] { return near_.limit(); };
    const auto take = [&](float key, std::int64_t id) { near_.push(key, id); };
    queue_.clear();
    std::size_t measured = 0;
    if (trees > 1) visited_.resize(index_.parts_.size());
    for (std::size_t p = 0; p < index_.parts_.size(); ++p) {
      const Part& part = *index_.parts_[p];
      if (part.trees.empty()) {
        scan_all(p, limit, take);
        continue;
      }
      if (trees > 1) visited_[p].prepare(part.count);
      for (std::size_t t = 0; t < trees; ++t) {
        queue_.push_back({0.0f, static_cast<std::uint32_t>(p * trees + t), 0});
      }
    }
    std::make_heap(queue_.begin(), queue_.end());
    while (!queue_.empty() && measured < checks) {
      std::pop_heap(queue_.begin(), queue_.end());
      Entry entry = queue_.back();
      queue_.pop_back();
      const float reach = bound(near_.limit());
      if (!(entry.bound <= reach)) return;  // all others are further
      const std::size_t p = entry.tree / trees;
      const std::size_t t = entry.tree % trees;
      const Part& part = *index_.parts_[p];
      const KdTree& tree = part.trees[t];
      // Down to a leaf, putting the other children aside.
      while (entry.node < tree.nodes()) {
        float found[KdTree::kFan];
        bounds_(tree_query_, tree.boxes(entry.node), dim_, found);
        const std::size_t count = tree.children(entry.node);
        const std::uint32_t first = tree.first_child(entry.node);
        std::size_t nearest = 0;
        for (std::size_t i = 1; i < count; ++i) {
          if (found[i] < found[nearest]) nearest = i;
        }
        for (std::size_t i = 0; i < count; ++i) {
          if (i == nearest || !(found[i] <= reach)) continue;
          queue_.push_back(
              {found[i], entry.tree, first + static_cast<std::uint32_t>(i)});
          std::push_heap(queue_.begin(), queue_.end());
        }
        entry.node = first + static_cast<std::uint32_t>(nearest);
        entry.bound = found[nearest];
      }
      if (!(entry.bound <= reach)) continue;
      measured += measure(p, t, entry.node - tree.nodes());
    }
  }

  // The rows of a leaf of any tree that were not measured before; returns how many.
  std::size_t measure(std::size_t p, std::size_t t, std::size_t leaf) {
    const Part& part = *index_.parts_[p];
    const std::size_t begin = leaf * kLeaf;
    const std::size_t n = std::min(kLeaf, part.count - begin);
    const auto limit = [&] { return near_.limit(); };
    if (index_.options_.n_trees == 1) {
      scan(p, leaf, limit, [&](float key, std::int64_t id) { near_.push(key, id); });
      if (filter_ == nullptr && part.removed == 0) return n;
      const std::uint32_t* slots = part.slots.data() + begin;
      return static_cast<std::size_t>(
          std::count_if(slots, slots + n, [&](std::uint32_t s) { return passes(s); }));
    }
    search::VisitedSet& visited = visited_[p];
    visited.make_room(n);
    std::uint32_t fresh[kLeaf];
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t at = t == 0 ? static_cast<std::uint32_t>(begin + i)
                                      : part.orders[t - 1][begin + i];
      fresh[count] = at;
      count += visited.insert(at) != 0 && passes(part.slots[at]) ? 1 : 0;
    }
    float keys[kLeaf];
    scorers_[p].some(fresh, count, keys);
    for (std::size_t i = 0; i < count; ++i) {
      if (keys[i] <= near_.limit()) {
        near_.push(keys[i], index_.ids_.id_of(part.slots[fresh[i]]));
      }
    }
    return count;
  }

  const KDForestIndex& index_;
  const storage::SlotSet* filter_;
  std::size_t dim_;
  Metric metric_;
  bool lanes_;
  double error_;
  kernels::BoxBounds bounds_;
  kernels::LeafKeys leaf_;

  const float* query_ = nullptr;
  const float* tree_query_ = nullptr;
  std::vector<float> direction_;
  std::vector<float> unit_;
  double square_ = 0;
  std::vector<search::Canonical<float>> scorers_;  // by part, where rows are rows

  search::NearList near_;
  std::vector<Entry> queue_;
  std::vector<search::VisitedSet> visited_;  // by part
  std::vector<std::uint32_t> slots_;         // of the filter
  std::vector<float> rows_;
};

search::RowSet KDForestIndex::row_set(const Part& part) const {
  return {.metric = options_.metric,
          .dtype = DType::kFloat32,
          .dim = options_.dim,
          .rows = part.points.bytes().data(),
          .stride = options_.dim * sizeof(float),
          .count = part.count,
          .norms = part.norms.data()};
}

// Calls run(searcher, query) for all queries, those of neighbouring leaves one after
// the other, so that they find in the caches what they need.
template <class Run>
void KDForestIndex::over_queries(RowsView queries, const storage::SlotSet* filter,
                                 std::size_t threads, Monitor* monitor,
                                 Run&& run) const {
  const auto query = [&](std::size_t i) {
    return reinterpret_cast<const float*>(queries.row(i));
  };
  const Part& largest = *parts_.front();
  std::vector<std::pair<std::uint32_t, std::uint32_t>> order;
  if (queries.rows >= 16 && in_lanes() && !largest.trees.empty()) {
    order.resize(queries.rows);
    parallel_for(queries.rows, threads, 256,
                 [&](std::size_t begin, std::size_t end, std::size_t) {
                   Searcher searcher(*this, filter);
                   for (std::size_t i = begin; i < end; ++i) {
                     searcher.prepare(query(i));
                     order[i] = {
                         static_cast<std::uint32_t>(searcher.nearest_leaf(largest)),
                         static_cast<std::uint32_t>(i)};
                   }
                 });
    std::sort(order.begin(), order.end());
  }
  parallel_for(
      queries.rows, threads, order.empty() ? 16 : 64,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        Searcher searcher(*this, filter);
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t q = order.empty() ? i : order[i].second;
          searcher.prepare(query(q));
          run(searcher, q);
        }
      },
      monitor);
}

void KDForestIndex::search(RowsView queries, std::size_t k, std::size_t checks,
                           const storage::SlotSet* filter, std::size_t threads,
                           Monitor* monitor, std::int64_t* ids,
                           float* distances) const {
  storage::check_rows(DType::kFloat32, queries, options_.dim, "queries");
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  if (checks == 0) {
    checks = options_.n_trees == 1 ? std::numeric_limits<std::size_t>::max()
                                   : std::max<std::size_t>(1024, 32 * k);
  }
  over_queries(queries, filter, resolve_threads(threads), monitor,
               [&](Searcher& searcher, std::size_t q) {
                 searcher.topk(k, checks, ids + q * k, distances + q * k);
               });
}

search::Ragged KDForestIndex::search_radius(RowsView queries, double radius,
                                            const storage::SlotSet* filter,
                                            std::size_t threads,
                                            Monitor* monitor) const {
  storage::check_rows(DType::kFloat32, queries, options_.dim, "queries");
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  const auto limit = static_cast<float>(
      search::comparable_radius(options_.metric, DType::kFloat32, radius));
  std::vector<std::vector<search::Hit<float>>> found(queries.rows);
  over_queries(
      queries, filter, resolve_threads(threads), monitor,
      [&](Searcher& searcher, std::size_t q) { searcher.within(limit, found[q]); });
  search::Ragged result;
  for (auto& hits : found) {
    result.append(hits, [](float key) { return key; });
    hits = {};
  }
  return result;
}

}  // namespace annx::index
