// SPDX-License-Identifier: Apache-2.0
#include "annx/index/kd_forest.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>

#include "annx/base/error.h"
#include "annx/index/kd_forest_part.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using storage::IdMap;

constexpr std::size_t kMaxParts = 64;

MatrixView<float> floats(RowsView rows, std::size_t dim) {
  return {reinterpret_cast<const float*>(rows.data), rows.rows, dim,
          rows.stride / sizeof(float)};
}

}  // namespace

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
    search::row_norms(DType::kFloat32, bytes_of(rows), dim, norms.data());
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
      search::row_norms(DType::kFloat32, bytes_of(rows), dim, norms.data());
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
    insert(floats(rows, options_.dim), slots.data(), resolve_threads(threads), monitor);
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

void KDForestIndex::upsert(RowsView rows, const std::int64_t* ids) {
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
    insert(floats(rows, options_.dim), slots.data(), resolve_threads(0), nullptr);
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

// --- facts and files -----------------------------------------------------------------

KDForestIndex::Stats KDForestIndex::stats() const {
  const std::shared_lock lock(mutex_);
  Stats stats;
  stats.ids_bytes = ids_.memory_bytes() + places_.capacity() * sizeof(Place);
  stats.waiting = parts_.back()->live();
  for (const auto& part : parts_) {
    stats.rows_bytes += part->points.held_bytes() + part->norms.held_bytes();
    stats.ids_bytes += part->slots.held_bytes();
    stats.removed += part->removed;
    for (const KdTree& tree : part->trees) stats.trees_bytes += tree.memory_bytes();
    for (const auto& order : part->orders) stats.trees_bytes += order.held_bytes();
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
