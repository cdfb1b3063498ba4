// SPDX-License-Identifier: Apache-2.0
#include "annx/index/kd_forest.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>

#include "annx/base/error.h"
#include "annx/search/near_list.h"
#include "annx/search/visited.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using search::KdTree;
using storage::IdMap;

constexpr std::size_t kLeaf = KdTree::kLeaf;
constexpr std::size_t kMaxParts = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

MatrixView<float> floats(RowsView rows, std::size_t dim) {
  return {reinterpret_cast<const float*>(rows.data), rows.rows, dim,
          rows.stride / sizeof(float)};
}

RowsView bytes(MatrixView<float> rows) {
  return {reinterpret_cast<const std::byte*>(rows.data), rows.rows,
          rows.stride * sizeof(float)};
}

// The direction of a row, as trees under cosine divide it; zero for a zero row.
void direction(const float* row, std::size_t dim, double norm, float* out) {
  for (std::size_t k = 0; k < dim; ++k) {
    out[k] = norm > 0 ? static_cast<float>(row[k] / norm) : 0.0f;
  }
}

}  // namespace

// Rows by place, in whole leaves; the places past `count` are empty.
struct KDForestIndex::Part {
  std::size_t count = 0;
  std::size_t removed = 0;
  storage::Array<float> points;         // in lanes: leaf by leaf; else row by row
  storage::Array<float> norms;          // cosine only
  storage::Array<std::uint32_t> slots;  // kNoSlot where empty or removed
  std::vector<KdTree> trees;            // none: the part is scanned
  // Of every tree but the first: the rows' places, leaf by leaf.
  std::vector<storage::Array<std::uint32_t>> orders;

  std::size_t live() const { return count - removed; }
  std::size_t leaves() const { return KdTree::leaves_of(count); }
};

KDForestIndex::KDForestIndex(const KDForestOptions& options) : options_(options) {
  if (options.metric != Metric::kL2 && options.metric != Metric::kL1 &&
      options.metric != Metric::kCosine) {
    throw InvalidArgument("metric is '" + std::string(name_of(options.metric)) +
                          "', which trees over boxes cannot bound; it must be one of "
                          "'l2', 'l1', 'cosine'");
  }
  if (options.dim == 0 || options.dim >= 1u << 24) {
    throw InvalidArgument("dim is " + std::to_string(options.dim) + ", out of range");
  }
  if (options.n_trees == 0 || options.n_trees > kMaxTrees) {
    throw InvalidArgument("n_trees is " + std::to_string(options.n_trees) +
                          "; it must be from 1 to " + std::to_string(kMaxTrees));
  }
  parts_.push_back(std::make_unique<Part>());
}

KDForestIndex::KDForestIndex(KDForestIndex&& other) noexcept
    : options_(other.options_),
      parts_(std::move(other.parts_)),
      places_(std::move(other.places_)),
      ids_(std::move(other.ids_)),
      version_(other.version_.load()) {}

KDForestIndex::~KDForestIndex() = default;

bool KDForestIndex::in_lanes() const {
  return options_.n_trees == 1 && options_.dim <= kernels::kMaxLeafDim;
}

std::size_t KDForestIndex::size() const {
  const std::shared_lock lock(mutex_);
  return ids_.size();
}

// --- rows and parts ------------------------------------------------------------------

void KDForestIndex::copy_row(const Part& part, std::size_t at, float* out) const {
  const std::size_t dim = options_.dim;
  if (!in_lanes()) {
    std::copy_n(part.points.data() + at * dim, dim, out);
    return;
  }
  const float* from = part.points.data() + at / kLeaf * kLeaf * dim + at % kLeaf;
  for (std::size_t k = 0; k < dim; ++k) out[k] = from[k * kLeaf];
}

void KDForestIndex::fill(Part& part, std::size_t at, const float* row,
                         std::uint32_t slot, float norm) const {
  const std::size_t dim = options_.dim;
  float* points = part.points.mutable_data();
  if (in_lanes()) {
    float* to = points + at / kLeaf * kLeaf * dim + at % kLeaf;
    for (std::size_t k = 0; k < dim; ++k) to[k * kLeaf] = row[k];
  } else {
    std::copy_n(row, dim, points + at * dim);
  }
  part.slots.mutable_data()[at] = slot;
  if (options_.metric == Metric::kCosine) part.norms.mutable_data()[at] = norm;
}

// Room for `count` rows, what is new being empty. May throw; changes no row.
void KDForestIndex::grow(Part& part, std::size_t count) const {
  const std::size_t places = KdTree::leaves_of(count) * kLeaf;
  const std::size_t before = part.slots.size();
  if (places > std::numeric_limits<std::size_t>::max() / sizeof(float) / options_.dim) {
    throw std::bad_alloc();
  }
  part.points.resize(places * options_.dim);
  if (options_.metric == Metric::kCosine) part.norms.resize(places);
  part.slots.resize(places);
  std::fill(part.slots.mutable_data() + before, part.slots.mutable_data() + places,
            kNoSlot);
  part.points.mutable_data();  // a mapped part becomes a copy here
  if (options_.metric == Metric::kCosine) part.norms.mutable_data();
}

std::unique_ptr<KDForestIndex::Part> KDForestIndex::build(MatrixView<float> rows,
                                                          const std::uint32_t* slots,
                                                          std::size_t threads,
                                                          Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const bool cosine = options_.metric == Metric::kCosine;
  auto part = std::make_unique<Part>();
  std::vector<float> norms;
  std::vector<float> directions;
  MatrixView<float> divided = rows;
  if (cosine) {
    norms.resize(rows.rows);
    search::row_norms(DType::kFloat32, bytes(rows), dim, norms.data());
    directions.resize(rows.rows * dim);
    for (std::size_t i = 0; i < rows.rows; ++i) {
      direction(rows.row(i), dim, norms[i], directions.data() + i * dim);
    }
    divided = {directions.data(), rows.rows, dim, dim};
  }
  std::vector<std::uint32_t> first(rows.rows);
  std::vector<std::uint32_t> order;
  std::vector<std::uint32_t> places;
  for (std::size_t t = 0; t < options_.n_trees; ++t) {
    const KdTree::Options how{
        .seed = options_.seed, .stream = t, .choices = t == 0 ? 1 : kChoices};
    if (t == 0) {
      part->trees.emplace_back(divided, how, threads, monitor, first.data());
      continue;
    }
    if (t == 1) {
      order.resize(rows.rows);
      places.resize(rows.rows);
      for (std::size_t i = 0; i < rows.rows; ++i) {
        places[first[i]] = static_cast<std::uint32_t>(i);
      }
    }
    part->trees.emplace_back(divided, how, threads, monitor, order.data());
    storage::Array<std::uint32_t> by_place(rows.rows);
    std::uint32_t* to = by_place.mutable_data();
    for (std::size_t i = 0; i < rows.rows; ++i) to[i] = places[order[i]];
    part->orders.push_back(std::move(by_place));
  }
  directions = {};
  const std::size_t whole = KdTree::leaves_of(rows.rows) * kLeaf;
  part->points.reserve(whole * dim);
  part->slots.reserve(whole);
  if (cosine) part->norms.reserve(whole);
  grow(*part, rows.rows);
  part->count = rows.rows;
  parallel_for(rows.rows, threads, 4096,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) {
                   const std::uint32_t row = first[i];
                   fill(*part, i, rows.row(row), slots[row], cosine ? norms[row] : 0);
                 }
               });
  return part;
}

// Where rows are, from the parts from `part` on.
void KDForestIndex::find_places(std::size_t part) {
  for (; part < parts_.size(); ++part) {
    const Part& p = *parts_[part];
    for (std::size_t at = 0; at < p.count; ++at) {
      if (p.slots[at] == kNoSlot) continue;
      places_[p.slots[at]] = {static_cast<std::uint32_t>(part),
                              static_cast<std::uint32_t>(at)};
    }
  }
}

// Rows of new slots, for which there is room in places_. Strong guarantee.
void KDForestIndex::insert(MatrixView<float> rows, const std::uint32_t* slots,
                           std::size_t threads, Monitor* monitor) {
  const std::size_t dim = options_.dim;
  Part& waiting = *parts_.back();
  std::size_t built = 0;
  for (const auto& part : parts_) built += part->trees.empty() ? 0 : part->live();
  if (waiting.count + rows.rows <= std::clamp(built, kLeaf, kWaiting)) {
    std::vector<float> norms(rows.rows);
    if (options_.metric == Metric::kCosine) {
      search::row_norms(DType::kFloat32, bytes(rows), dim, norms.data());
    }
    grow(waiting, waiting.count + rows.rows);
    for (std::size_t i = 0; i < rows.rows; ++i) {
      places_[slots[i]] = {static_cast<std::uint32_t>(parts_.size() - 1),
                           static_cast<std::uint32_t>(waiting.count)};
      fill(waiting, waiting.count++, rows.row(i), slots[i], norms[i]);
    }
    return;
  }
  std::size_t first = parts_.size() - 1;
  std::size_t total = rows.rows + waiting.live();
  while (first > 0 && parts_[first - 1]->live() <= 2 * total) {
    total += parts_[--first]->live();
  }
  replace(first, parts_.size(), rows, slots, threads, monitor);
}

// The parts [begin, end), the last of which may be the waiting one, and `rows` become
// one part. Strong guarantee.
void KDForestIndex::replace(std::size_t begin, std::size_t end, MatrixView<float> rows,
                            const std::uint32_t* slots, std::size_t threads,
                            Monitor* monitor) {
  const std::size_t dim = options_.dim;
  std::size_t held = 0;
  for (std::size_t p = begin; p < end; ++p) held += parts_[p]->live();
  std::vector<float> all;
  std::vector<std::uint32_t> all_slots;
  if (held != 0) {
    all.resize((held + rows.rows) * dim);
    all_slots.resize(held + rows.rows);
    std::size_t n = 0;
    for (std::size_t p = begin; p < end; ++p) {
      for (std::size_t at = 0; at < parts_[p]->count; ++at) {
        if (parts_[p]->slots[at] == kNoSlot) continue;
        copy_row(*parts_[p], at, all.data() + n * dim);
        all_slots[n++] = parts_[p]->slots[at];
      }
    }
    for (std::size_t i = 0; i < rows.rows; ++i, ++n) {
      std::copy_n(rows.row(i), dim, all.data() + n * dim);
      all_slots[n] = slots[i];
    }
    rows = {all.data(), n, dim, dim};
    slots = all_slots.data();
  }
  std::vector<std::unique_ptr<Part>> parts;
  parts.reserve(parts_.size() + 2);
  if (rows.rows != 0) parts.push_back(build(rows, slots, threads, monitor));
  if (end == parts_.size()) parts.push_back(std::make_unique<Part>());
  parts_.reserve(parts_.size() + 2);
  // Nothing below throws.
  parts_.erase(parts_.begin() + static_cast<std::ptrdiff_t>(begin),
               parts_.begin() + static_cast<std::ptrdiff_t>(end));
  parts_.insert(parts_.begin() + static_cast<std::ptrdiff_t>(begin),
                std::make_move_iterator(parts.begin()),
                std::make_move_iterator(parts.end()));
  find_places(begin);
}

// Marks the rows at `places` as removed and builds parts anew that are mostly such.
void KDForestIndex::drop(std::span<const Place> places) {
  for (const Place& place : places) {
    Part& part = *parts_[place.part];
    part.slots.mutable_data()[place.at] = kNoSlot;
    ++part.removed;
  }
}

void KDForestIndex::tidy() {
  for (std::size_t p = parts_.size(); p-- > 0;) {
    const Part& part = *parts_[p];
    if (part.removed * 2 <= part.count) continue;
    try {
      if (p + 1 == parts_.size()) {
        // The waiting rows move together.
        auto fresh = std::make_unique<Part>();
        grow(*fresh, part.live());
        for (std::size_t at = 0; at < part.count; ++at) {
          if (part.slots[at] == kNoSlot) continue;
          std::vector<float> row(options_.dim);
          copy_row(part, at, row.data());
          fill(*fresh, fresh->count++, row.data(), part.slots[at],
               part.norms.empty() ? 0.0f : part.norms[at]);
        }
        parts_[p] = std::move(fresh);
        find_places(p);
      } else {
        replace(p, p + 1, {}, nullptr, resolve_threads(0), nullptr);
      }
    } catch (const std::bad_alloc&) {
      return;  // the rows are removed all the same
    }
  }
}

// --- changes -------------------------------------------------------------------------

void KDForestIndex::add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
                        std::size_t threads, Monitor* monitor) {
  storage::check_rows(DType::kFloat32, rows, options_.dim, "vectors");
  const std::unique_lock lock(mutex_);
  ids_.check(rows.rows, ids);
  if (rows.rows == 0) return;
  const std::size_t before = ids_.slots();
  std::vector<std::uint32_t> slots(rows.rows);
  std::iota(slots.begin(), slots.end(), static_cast<std::uint32_t>(before));
  ids_.reserve(rows.rows);
  places_.resize(before + rows.rows);
  try {
    insert(floats(rows, options_.dim), slots.data(), threads, monitor);
  } catch (...) {
    places_.resize(before);
    throw;
  }
  try {
    ids_.append(rows.rows, ids);
  } catch (...) {  // no memory for the first ids that are no slots
    for (const std::uint32_t slot : slots) drop({&places_[slot], 1});
    places_.resize(before);
    throw;
  }
  for (std::size_t i = 0; out != nullptr && i < rows.rows; ++i) {
    out[i] = ids_.id_of(slots[i]);
  }
  version_.fetch_add(1, std::memory_order_release);
}

void KDForestIndex::upsert(RowsView rows, const std::int64_t* ids, std::size_t threads,
                           Monitor* monitor) {
  storage::check_rows(DType::kFloat32, rows, options_.dim, "vectors");
  const std::unique_lock lock(mutex_);
  const auto fresh = ids_.missing({ids, rows.rows});
  if (rows.rows == 0) return;
  for (const auto& part : parts_) part->slots.mutable_data();  // may throw only here
  const std::size_t before = ids_.slots();
  std::vector<Place> old;
  std::vector<std::uint32_t> old_slots;
  std::vector<std::uint32_t> slots(rows.rows);
  auto next = static_cast<std::uint32_t>(before);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    slots[i] = ids_.find(ids[i]);
    if (slots[i] == kNoSlot) {
      slots[i] = next++;  // as those of `fresh` will be
      continue;
    }
    old.push_back(places_[slots[i]]);
    old_slots.push_back(slots[i]);
  }
  places_.resize(before + fresh.size());
  if (!fresh.empty()) ids_.append(fresh.size(), fresh.data());
  drop(old);
  try {
    insert(floats(rows, options_.dim), slots.data(), threads, monitor);
  } catch (...) {
    for (std::size_t i = 0; i < old.size(); ++i) {
      parts_[old[i].part]->slots.mutable_data()[old[i].at] = old_slots[i];
      --parts_[old[i].part]->removed;
    }
    ids_.truncate(before);
    places_.resize(before);
    throw;
  }
  tidy();
  version_.fetch_add(1, std::memory_order_release);
}

void KDForestIndex::remove(std::span<const std::int64_t> ids) {
  const std::unique_lock lock(mutex_);
  if (ids.empty()) return;
  for (const auto& part : parts_) part->slots.mutable_data();
  std::vector<Place> old;
  old.reserve(ids.size());
  for (const std::int64_t id : ids) old.push_back(places_[ids_.slot_of(id)]);
  // Rows stay where they are; the slots of the last ones change.
  ids_.remove_dense(ids, [&](std::size_t last, std::size_t slot) {
    const Place place = places_[last];
    places_[slot] = place;
    parts_[place.part]->slots.mutable_data()[place.at] =
        static_cast<std::uint32_t>(slot);
  });
  drop(old);
  places_.resize(ids_.slots());
  tidy();
  version_.fetch_add(1, std::memory_order_release);
}

// --- reading -------------------------------------------------------------------------

bool KDForestIndex::contains(std::int64_t id) const {
  const std::shared_lock lock(mutex_);
  return ids_.contains(id);
}

void KDForestIndex::get(std::span<const std::int64_t> ids, std::byte* out) const {
  const std::shared_lock lock(mutex_);
  auto* to = reinterpret_cast<float*>(out);
  for (const std::int64_t id : ids) {
    const Place place = places_[ids_.slot_of(id)];
    copy_row(*parts_[place.part], place.at, to);
    to += options_.dim;
  }
}

std::size_t KDForestIndex::ids(std::int64_t* out, std::size_t room) const {
  const std::shared_lock lock(mutex_);
  return ids_.copy_ids(out, room);
}

storage::SlotSet KDForestIndex::slot_set(std::span<const std::int64_t> ids) const {
  const std::shared_lock lock(mutex_);
  return ids_.slots_of(ids, version());
}

// --- searching -----------------------------------------------------------------------

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
        for (std::size_t leaf = 0; leaf < part.leaves(); ++leaf) {
          scan(p, leaf, limit, take);
        }
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
        for (std::size_t leaf = 0; leaf < part.leaves(); ++leaf) {
          scan(p, leaf, limit, take);
        }
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

void KDForestIndex::check_filter(const storage::SlotSet* filter) const {
  if (filter != nullptr && filter->version() != version()) {
    throw InvalidArgument("filter was made for another state of the index");
  }
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
  check_filter(filter);
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
  check_filter(filter);
  constexpr double kLargest = std::numeric_limits<float>::max();
  const auto limit = static_cast<float>(std::clamp(radius, -kLargest, kLargest));
  std::vector<std::vector<search::Hit<float>>> found(queries.rows);
  over_queries(
      queries, filter, resolve_threads(threads), monitor,
      [&](Searcher& searcher, std::size_t q) { searcher.within(limit, found[q]); });
  search::Ragged result;
  result.offsets.reserve(queries.rows + 1);
  result.offsets.push_back(0);
  for (const auto& hits : found) {
    result.offsets.push_back(result.offsets.back() +
                             static_cast<std::int64_t>(hits.size()));
  }
  result.ids.reserve(static_cast<std::size_t>(result.offsets.back()));
  result.distances.reserve(result.ids.capacity());
  for (auto& hits : found) {
    for (const auto& hit : hits) {
      result.ids.push_back(hit.id);
      result.distances.push_back(hit.key);
    }
    hits = {};
  }
  return result;
}

// --- facts and files -----------------------------------------------------------------

KDForestIndex::Stats KDForestIndex::stats() const {
  const std::shared_lock lock(mutex_);
  Stats stats;
  stats.ids_bytes = ids_.memory_bytes() + places_.capacity() * sizeof(Place);
  stats.waiting = parts_.back()->live();
  for (const auto& part : parts_) {
    stats.rows_bytes += part->points.capacity_bytes() + part->norms.capacity_bytes();
    stats.ids_bytes += part->slots.capacity_bytes();
    stats.removed += part->removed;
    for (const KdTree& tree : part->trees) stats.trees_bytes += tree.memory_bytes();
    for (const auto& order : part->orders) stats.trees_bytes += order.capacity_bytes();
    if (part->trees.empty()) continue;
    ++stats.parts;
    stats.leaves += part->trees[0].leaves();
  }
  return stats;
}

void KDForestIndex::save_to(storage::FileWriter& writer) const {
  writer.keep(std::shared_lock(mutex_));
  writer.number("dim", options_.dim);
  writer.text("metric", name_of(options_.metric));
  writer.number("n_trees", options_.n_trees);
  writer.number("seed", options_.seed);
  writer.number("count", ids_.slots());
  writer.number("parts", parts_.size());
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = *parts_[p];
    const std::string name = "part" + std::to_string(p) + ".";
    writer.number(name + "count", part.count);
    writer.add(name + "points", part.points.bytes());
    writer.add(name + "slots", part.slots.bytes());
    if (options_.metric == Metric::kCosine) {
      writer.add(name + "norms", part.norms.bytes());
    }
    for (std::size_t t = 0; t < part.trees.size(); ++t) {
      const std::string tree = name + "tree" + std::to_string(t) + ".";
      part.trees[t].save_to(writer, tree);
      if (t != 0) writer.add(tree + "order", part.orders[t - 1].bytes());
    }
  }
  ids_.save_to(writer);
}

KDForestIndex KDForestIndex::load_from(const storage::FileReader& reader) {
  KDForestOptions options;
  options.dim = reader.number("dim", 1, (1u << 24) - 1);
  try {
    options.metric = parse_metric(reader.text("metric"));
  } catch (const InvalidArgument& error) {
    reader.fail("meta", error.what());
  }
  options.n_trees = reader.number("n_trees", 1, kMaxTrees);
  options.seed = reader.number("seed");
  KDForestIndex index(options);
  const std::size_t count = reader.number("count", 0, IdMap::kMaxSlots);
  const std::size_t parts = reader.number("parts", 1, kMaxParts);
  index.parts_.clear();
  std::size_t total = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::string name = "part" + std::to_string(p) + ".";
    auto part = std::make_unique<Part>();
    part->count =
        reader.number(name + "count", p + 1 == parts ? 0 : 1, IdMap::kMaxSlots);
    // dim is below 2^24 and places at most 2^32 + 15: no product overflows.
    const std::size_t places = part->leaves() * kLeaf;
    part->points = reader.array<float>(name + "points", places * options.dim);
    part->slots = reader.array<std::uint32_t>(name + "slots", places);
    if (options.metric == Metric::kCosine) {
      part->norms = reader.array<float>(name + "norms", places);
    }
    total += part->count;
    index.parts_.push_back(std::move(part));
  }
  // Nothing is allocated for numbers that the file's size does not bear out.
  reader.require(count <= total, "meta", "count differs from the rows of the parts");
  index.places_.assign(count, {kNoSlot, 0});
  std::size_t live = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::string name = "part" + std::to_string(p) + ".";
    Part& part = *index.parts_[p];
    for (std::size_t at = 0; at < part.slots.size(); ++at) {
      const std::uint32_t slot = part.slots[at];
      if (slot == kNoSlot) {
        part.removed += at < part.count ? 1 : 0;
        continue;
      }
      reader.require(
          at < part.count && slot < count && index.places_[slot].part == kNoSlot,
          name + "slots", "a slot out of range, or twice");
      index.places_[slot] = {static_cast<std::uint32_t>(p),
                             static_cast<std::uint32_t>(at)};
      ++live;
    }
    for (std::size_t t = 0; p + 1 != parts && t < options.n_trees; ++t) {
      const std::string tree = name + "tree" + std::to_string(t) + ".";
      part.trees.push_back(KdTree::load_from(reader, tree, part.count, options.dim));
      if (t == 0) continue;
      part.orders.push_back(reader.array<std::uint32_t>(tree + "order", part.count));
      for (const std::uint32_t at : part.orders.back().span()) {
        reader.require(at < part.count, tree + "order", "a place out of range");
      }
    }
  }
  reader.require(live == count, "meta", "count differs from the rows of the parts");
  index.ids_ = IdMap::load_from(reader, count);
  return index;
}

}  // namespace annx::index
