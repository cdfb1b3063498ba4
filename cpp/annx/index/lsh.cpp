// SPDX-License-Identifier: Apache-2.0
#include "annx/index/lsh.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using codec::HashFamily;
using codec::SignSketch;
using storage::BucketTable;
using storage::IdMap;

std::size_t most_waiting(std::size_t rows) {
  return std::clamp<std::size_t>(rows / 64, 16, 8192);
}

// Functions of a table that leave a bucket a handful of rows. A sign or a bit halves
// most data; a cell of one standard deviation tells about four parts, the first of a
// random order more.
std::size_t hashes_for(Metric metric, std::size_t rows) {
  const double bits =
      std::log2(static_cast<double>(std::max<std::size_t>(rows, 1))) - 2;
  double wanted = bits / 4;
  if (metric == Metric::kCosine || metric == Metric::kHamming) wanted = bits;
  if (metric == Metric::kL2 || metric == Metric::kL1) wanted = bits / 2;
  return static_cast<std::size_t>(
      std::clamp(std::floor(wanted), 2.0, static_cast<double>(HashFamily::kMaxHashes)));
}

HashFamily::Options family_options(const LSHOptions& options) {
  return {.metric = options.metric,
          .dtype = options.dtype,
          .dim = options.dim,
          .groups = options.n_tables,
          .hashes = options.n_hashes,
          .width = options.width,
          .seed = options.seed};
}

SignSketch::Options sketch_options(const LSHOptions& options) {
  return {.metric = options.metric,
          .dtype = options.dtype,
          .dim = options.dim,
          .bits = options.sketch_bits,
          .seed = options.seed};
}

}  // namespace

LSHIndex::LSHIndex(const LSHOptions& options)
    : options_(options), stride_(row_bytes(options.dtype, options.dim)) {
  const auto refuse = [](const std::string& what) { throw InvalidArgument(what); };
  const bool bits =
      options.metric == Metric::kHamming || options.metric == Metric::kJaccard;
  if (bits != (options.dtype == DType::kBits)) {
    refuse("metric is '" + std::string(name_of(options.metric)) + "', which " +
           std::string(name_of(options.dtype)) + " vectors do not have");
  }
  if (options.metric == Metric::kInnerProduct) {
    refuse("metric is 'ip', for which there are no hash functions");
  }
  if (options.dim == 0 || options.dim >= 1u << 24 ||
      (search::is_byte(options.dtype) && options.dim > kernels::kMaxDim8)) {
    refuse("dim is " + std::to_string(options.dim) + ", out of range");
  }
  if (options.n_tables == 0 || options.n_tables > kMaxTables) {
    refuse("n_tables is " + std::to_string(options.n_tables) +
           "; it must be from 1 to " + std::to_string(kMaxTables));
  }
  if (options.n_hashes > HashFamily::kMaxHashes) {
    refuse("n_hashes is " + std::to_string(options.n_hashes) +
           "; it must be from 1 to " + std::to_string(HashFamily::kMaxHashes));
  }
  if (!(options.width >= 0)) refuse("width must be above 0");
  if (options.sketch_bits > SignSketch::kMaxBits || options.sketch_bits % 64 != 0 ||
      (bits && options.sketch_bits != 0)) {
    refuse("sketch_bits is " + std::to_string(options.sketch_bits) +
           "; it must be a multiple of 64 up to " +
           std::to_string(SignSketch::kMaxBits) + ", and 0 for bits");
  }
}

LSHIndex::LSHIndex(LSHIndex&& other) noexcept
    : options_(other.options_),
      stride_(other.stride_),
      rows_(std::move(other.rows_)),
      norms_(std::move(other.norms_)),
      ids_(std::move(other.ids_)),
      family_(std::move(other.family_)),
      sketch_(std::move(other.sketch_)),
      sketches_(std::move(other.sketches_)),
      tables_(std::move(other.tables_)),
      waiting_(std::move(other.waiting_)),
      holes_(other.holes_),
      version_(other.version_.load()) {}

LSHOptions LSHIndex::options() const {
  const std::shared_lock lock(mutex_);
  LSHOptions known = options_;
  if (family_) {
    known.n_hashes = family_->options().hashes;
    known.width = family_->options().width;
  }
  return known;
}

std::size_t LSHIndex::size() const {
  const std::shared_lock lock(mutex_);
  return ids_.size();
}

// --- tables --------------------------------------------------------------------------

// The tables with the rows of `fresh` slots, and without holes.
std::vector<BucketTable> LSHIndex::sorted_in(std::span<const std::uint32_t> fresh,
                                             std::size_t threads,
                                             Monitor* monitor) const {
  const std::size_t n_tables = options_.n_tables;
  std::vector<std::uint32_t> keys(fresh.size() * n_tables);
  parallel_for(
      fresh.size(), threads, 256,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        HashFamily::Space space;
        for (std::size_t i = begin; i < end; ++i) {
          const auto* row =
              reinterpret_cast<const std::byte*>(rows_.data() + fresh[i] * stride_);
          family_->hash(row, false, space);
          for (std::size_t t = 0; t < n_tables; ++t) {
            keys[t * fresh.size() + i] = HashFamily::key(family_->sum(t, space));
          }
        }
      },
      monitor);
  std::vector<BucketTable> tables(n_tables);
  parallel_for(
      n_tables, threads, 1,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<std::uint64_t> added(fresh.size());
        std::vector<std::uint64_t> entries;
        for (std::size_t t = begin; t < end; ++t) {
          for (std::size_t i = 0; i < fresh.size(); ++i) {
            added[i] = (static_cast<std::uint64_t>(keys[t * fresh.size() + i]) << 32) |
                       fresh[i];
          }
          std::sort(added.begin(), added.end());
          if (tables_.empty()) {
            tables[t] = BucketTable::make(added);
            continue;
          }
          tables_[t].merge(added, entries);
          tables[t] = BucketTable::make(entries);
        }
      },
      monitor);
  return tables;
}

// Sorts in what waits too long, and closes holes, if there is memory for it.
void LSHIndex::settle() {
  const bool full = waiting_.size() > most_waiting(ids_.slots());
  const std::size_t places = tables_.empty() ? 0 : tables_[0].slots.size();
  if (!full && holes_ * 2 <= places) return;
  try {
    tables_ = sorted_in(waiting_, resolve_threads(0), nullptr);
    waiting_.clear();
    holes_ = 0;
  } catch (const std::bad_alloc&) {
    return;  // they wait on, or stay
  }
}

// A row's slot in the tables or among those that wait becomes another, or none.
void LSHIndex::take_out(std::uint32_t slot, std::uint32_t instead) {
  if (const auto at = std::find(waiting_.begin(), waiting_.end(), slot);
      at != waiting_.end()) {
    if (instead != kNoSlot) {
      *at = instead;
    } else {
      waiting_.erase(at);
    }
    return;
  }
  thread_local HashFamily::Space space;
  family_->hash(reinterpret_cast<const std::byte*>(rows_.data() + slot * stride_),
                false, space);
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    tables_[t].replace(HashFamily::key(family_->sum(t, space)), slot, instead);
  }
  if (instead == kNoSlot) ++holes_;
}

std::size_t LSHIndex::buckets() const {
  std::size_t total = 0;
  for (const BucketTable& table : tables_) total += table.keys.size();
  return total;
}

// --- changes -------------------------------------------------------------------------

void LSHIndex::put(std::uint32_t slot, const std::byte* row, SignSketch::Space& space) {
  std::memcpy(rows_.mutable_data() + slot * stride_, row, stride_);
  if (options_.metric == Metric::kCosine) {
    search::row_norms(options_.dtype, {row, 1, stride_}, options_.dim,
                      norms_.mutable_data() + slot);
  }
  if (sketch_) {
    sketch_->write(row, false, space,
                   sketches_.mutable_data() + slot * sketch_->bytes());
  }
}

void LSHIndex::grow(std::size_t count) {
  if (count > std::numeric_limits<std::size_t>::max() / stride_) throw std::bad_alloc();
  rows_.resize(count * stride_);
  rows_.mutable_data();
  if (options_.metric == Metric::kCosine) {
    norms_.resize(count);
    norms_.mutable_data();
  }
  if (sketch_) {
    sketches_.resize(count * sketch_->bytes());
    sketches_.mutable_data();
  }
}

void LSHIndex::shrink(std::size_t count) {
  rows_.resize(count * stride_);
  if (options_.metric == Metric::kCosine) norms_.resize(count);
  if (sketch_) sketches_.resize(count * sketch_->bytes());
}

void LSHIndex::learn(RowsView rows) {
  HashFamily::Options wanted = family_options(options_);
  if (wanted.hashes == 0) wanted.hashes = hashes_for(options_.metric, rows.rows);
  HashFamily family(wanted, rows);
  if (options_.sketch_bits != 0) sketch_.emplace(sketch_options(options_), rows);
  family_.emplace(std::move(family));
}

void LSHIndex::add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
                   std::size_t threads, Monitor* monitor) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  const std::unique_lock lock(mutex_);
  ids_.check(rows.rows, ids);
  if (rows.rows == 0) return;
  threads = resolve_threads(threads);
  const bool first = !family_.has_value();
  const std::size_t before = ids_.slots();
  const std::size_t after = before + rows.rows;
  try {
    if (first) learn(rows);
    grow(after);
    std::vector<std::uint32_t> waiting(waiting_);
    for (std::size_t i = 0; i < rows.rows; ++i) {
      waiting.push_back(static_cast<std::uint32_t>(before + i));
    }
    parallel_for(
        rows.rows, threads, 256,
        [&](std::size_t begin, std::size_t end, std::size_t) {
          SignSketch::Space space;
          for (std::size_t i = begin; i < end; ++i) {
            put(static_cast<std::uint32_t>(before + i), rows.row(i), space);
          }
        },
        monitor);
    if (waiting.size() > most_waiting(after)) {
      std::vector<BucketTable> tables = sorted_in(waiting, threads, monitor);
      ids_.append(rows.rows, ids);
      tables_ = std::move(tables);
      waiting_.clear();
      holes_ = 0;
    } else {
      ids_.append(rows.rows, ids);
      waiting_ = std::move(waiting);
    }
  } catch (...) {
    shrink(before);
    if (first) {
      family_.reset();
      sketch_.reset();
    }
    throw;
  }
  for (std::size_t i = 0; out != nullptr && i < rows.rows; ++i) {
    out[i] = ids_.id_of(static_cast<std::uint32_t>(before + i));
  }
  version_.fetch_add(1, std::memory_order_release);
}

void LSHIndex::upsert(RowsView rows, const std::int64_t* ids) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  const std::unique_lock lock(mutex_);
  const auto fresh = ids_.missing({ids, rows.rows});
  if (rows.rows == 0) return;
  const bool first = !family_.has_value();
  const std::size_t before = ids_.slots();
  const std::size_t after = before + fresh.size();
  try {
    if (first) learn(rows);
    grow(after);
    for (BucketTable& table : tables_) table.slots.mutable_data();
    waiting_.reserve(waiting_.size() + rows.rows);
    if (!fresh.empty()) ids_.append(fresh.size(), fresh.data());
  } catch (...) {
    shrink(before);
    if (first) {
      family_.reset();
      sketch_.reset();
    }
    throw;
  }
  SignSketch::Space space;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const std::uint32_t slot = ids_.slot_of(ids[i]);
    if (slot < before) take_out(slot, kNoSlot);
    put(slot, rows.row(i), space);
    waiting_.push_back(slot);
  }
  settle();
  version_.fetch_add(1, std::memory_order_release);
}

void LSHIndex::remove(std::span<const std::int64_t> ids) {
  const std::unique_lock lock(mutex_);
  if (ids.empty()) return;
  ids_.check_held(ids);
  std::vector<std::uint32_t> slots;
  std::vector<bool> gone(ids_.slots(), false);
  for (const std::int64_t id : ids) {
    slots.push_back(ids_.slot_of(id));
    gone[slots.back()] = true;
  }
  std::uint8_t* rows = rows_.mutable_data();
  float* norms = options_.metric == Metric::kCosine ? norms_.mutable_data() : nullptr;
  const std::size_t sketch_bytes = sketch_ ? sketch_->bytes() : 0;
  std::uint8_t* sketches = sketch_ ? sketches_.mutable_data() : nullptr;
  for (BucketTable& table : tables_) table.slots.mutable_data();
  for (const std::uint32_t slot : slots) take_out(slot, kNoSlot);
  ids_.remove_dense(ids, [&](std::size_t last, std::size_t slot) {
    if (!gone[last]) {
      take_out(static_cast<std::uint32_t>(last), static_cast<std::uint32_t>(slot));
    }
    gone[slot] = gone[last];
    std::memcpy(rows + slot * stride_, rows + last * stride_, stride_);
    if (norms != nullptr) norms[slot] = norms[last];
    if (sketches != nullptr) {
      std::memcpy(sketches + slot * sketch_bytes, sketches + last * sketch_bytes,
                  sketch_bytes);
    }
  });
  shrink(ids_.slots());
  settle();
  version_.fetch_add(1, std::memory_order_release);
}

// --- reading -------------------------------------------------------------------------

bool LSHIndex::contains(std::int64_t id) const {
  const std::shared_lock lock(mutex_);
  return ids_.contains(id);
}

void LSHIndex::get(std::span<const std::int64_t> ids, std::byte* out) const {
  const std::shared_lock lock(mutex_);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::memcpy(out + i * stride_, rows_.data() + ids_.slot_of(ids[i]) * stride_,
                stride_);
  }
}

std::size_t LSHIndex::ids(std::int64_t* out, std::size_t room) const {
  const std::shared_lock lock(mutex_);
  return ids_.copy_ids(out, room);
}

storage::SlotSet LSHIndex::slot_set(std::span<const std::int64_t> ids) const {
  const std::shared_lock lock(mutex_);
  return ids_.slots_of(ids, version());
}

void LSHIndex::hash_values(RowsView rows, std::int32_t* out) const {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  const std::shared_lock lock(mutex_);
  if (!family_) throw NotTrained("hash functions are learnt from the first vectors");
  HashFamily::Space space;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    family_->hash(rows.row(i), false, space);
    out = std::copy(space.values.begin(), space.values.end(), out);
  }
}

// --- facts and files -----------------------------------------------------------------

LSHIndex::Stats LSHIndex::stats() const {
  const std::shared_lock lock(mutex_);
  Stats stats;
  stats.rows_bytes = rows_.held_bytes() + norms_.held_bytes();
  stats.ids_bytes = ids_.memory_bytes();
  if (family_) stats.hashes_bytes = family_->memory_bytes();
  if (sketch_) {
    stats.hashes_bytes += sketch_->memory_bytes();
    stats.sketches_bytes = sketches_.held_bytes();
  }
  stats.tables_bytes = waiting_.capacity() * sizeof(std::uint32_t);
  stats.waiting = waiting_.size();
  stats.buckets = buckets();
  for (const BucketTable& table : tables_) {
    stats.tables_bytes += table.memory_bytes();
    stats.largest = std::max(stats.largest, table.largest());
  }
  return stats;
}

void LSHIndex::save_to(storage::FileWriter& writer) const {
  writer.keep(std::shared_lock(mutex_));
  writer.number("dim", options_.dim);
  writer.text("metric", name_of(options_.metric));
  writer.text("dtype", name_of(options_.dtype));
  writer.number("n_tables", options_.n_tables);
  writer.number("seed", options_.seed);
  writer.number("count", ids_.slots());
  writer.real("wanted_width", options_.width);
  writer.number("wanted_hashes", options_.n_hashes);
  writer.number("n_hashes", family_ ? family_->options().hashes : 0);
  writer.number("sketch_bits", options_.sketch_bits);
  if (family_) family_->save_to(writer);
  if (sketch_) {
    sketch_->save_to(writer);
    writer.add("sketches", sketches_.bytes());
  }
  writer.add("rows", rows_.bytes());
  if (options_.metric == Metric::kCosine) writer.add("norms", norms_.bytes());
  writer.number("waiting", waiting_.size());
  writer.add("waiting_slots", std::as_bytes(std::span(waiting_)));
  writer.number("tables", tables_.size());
  writer.number("places", tables_.empty() ? 0 : tables_[0].slots.size());
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    tables_[t].save_to(writer, "table" + std::to_string(t) + ".");
  }
  ids_.save_to(writer);
}

LSHIndex LSHIndex::load_from(const storage::FileReader& reader) {
  const auto parsed = [&](const char* entry, auto parse) {
    try {
      return parse(reader.text(entry));
    } catch (const InvalidArgument& error) {
      reader.fail("meta", error.what());
    }
  };
  LSHOptions options;
  options.metric =
      parsed("metric", [](const std::string& t) { return parse_metric(t); });
  options.dtype = parsed("dtype", [](const std::string& t) { return parse_dtype(t); });
  options.dim = reader.number("dim", 1, (1u << 24) - 1);
  options.n_tables = reader.number("n_tables", 1, kMaxTables);
  options.seed = reader.number("seed");
  options.width = reader.real("wanted_width", 0, 1e300);
  options.n_hashes = reader.number("wanted_hashes", 0, HashFamily::kMaxHashes);
  options.sketch_bits = reader.number("sketch_bits", 0, SignSketch::kMaxBits);
  LSHIndex index(options);  // what it refuses is the file's fault (bindings/methods.h)
  const std::size_t count = reader.number("count", 0, IdMap::kMaxSlots);
  // dim is below 2^24 and count below 2^32: no product overflows.
  index.rows_ = reader.array<std::uint8_t>("rows", count * index.stride_);
  if (options.metric == Metric::kCosine) {
    index.norms_ = reader.array<float>("norms", count);
  }
  const std::size_t hashes = reader.number("n_hashes", 0, HashFamily::kMaxHashes);
  reader.require(hashes != 0 || count == 0, "meta", "n_hashes is 0");
  if (hashes != 0) {
    HashFamily::Options family = family_options(options);
    family.hashes = hashes;
    index.family_ = HashFamily::load_from(reader, family);
    if (options.sketch_bits != 0) {
      index.sketch_ = SignSketch::load_from(reader, sketch_options(options));
      index.sketches_ =
          reader.array<std::uint8_t>("sketches", count * index.sketch_->bytes());
    }
  }
  const std::size_t waiting = reader.number("waiting", 0, count);
  const auto slots = reader.array<std::uint32_t>("waiting_slots", waiting);
  // Every row once, in each table or outside of all.
  std::vector<bool> outside(count, false);
  for (const std::uint32_t slot : slots.span()) {
    reader.require(slot < count && !outside[slot], "waiting_slots",
                   "a slot out of range, or twice");
    outside[slot] = true;
  }
  index.waiting_.assign(slots.span().begin(), slots.span().end());
  const std::size_t tables = reader.number("tables", 0, options.n_tables);
  const std::size_t places = reader.number("places", 0, IdMap::kMaxSlots);
  reader.require(tables == (tables == 0 ? 0 : options.n_tables) &&
                     (tables != 0 || waiting == count) && places >= count - waiting &&
                     (hashes != 0 || tables == 0),
                 "meta", "tables do not hold the rows");
  for (std::size_t t = 0; t < tables; ++t) {
    const std::string name = "table" + std::to_string(t) + ".";
    BucketTable table = BucketTable::load_from(reader, name, places);
    std::vector<bool> met(outside);
    std::size_t held = 0;
    for (const std::uint32_t slot : table.slots.span()) {
      if (slot == kNoSlot) continue;
      reader.require(slot < count && !met[slot], name + "slots",
                     "a slot out of range, or twice");
      met[slot] = true;
      ++held;
    }
    reader.require(held == count - waiting, name + "slots", "rows are missing");
    index.tables_.push_back(std::move(table));
  }
  if (tables != 0) index.holes_ = places - (count - waiting);
  index.ids_ = IdMap::load_from(reader, count);
  return index;
}

}  // namespace annx::index
