// SPDX-License-Identifier: Apache-2.0
#include "annx/index/lsh.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/prefetch.h"
#include "annx/search/topk.h"
#include "annx/search/visited.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using codec::HashFamily;
using codec::SignSketch;
using storage::IdMap;

// So few rows of a filter are measured without a look at the tables.
constexpr std::size_t kFewRows = 1024;

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

std::size_t LSHIndex::Table::find(std::uint32_t key) const {
  const std::size_t part =
      static_cast<std::size_t>(static_cast<std::uint64_t>(key) >> shift);
  for (std::size_t i = first[part]; i < first[part + 1]; ++i) {
    if (keys[i] == key) return i;
  }
  return keys.size();
}

// Of (key << 32) + slot, in order of the keys.
LSHIndex::Table LSHIndex::make_table(std::vector<std::uint64_t>& entries) {
  const auto key_of = [&](std::size_t i) {
    return static_cast<std::uint32_t>(entries[i] >> 32);
  };
  std::size_t buckets = entries.empty() ? 0 : 1;
  for (std::size_t i = 1; i < entries.size(); ++i) {
    buckets += key_of(i) != key_of(i - 1) ? 1 : 0;
  }
  Table table;
  const unsigned bits =
      std::clamp<unsigned>(static_cast<unsigned>(std::bit_width(buckets)), 1, 24);
  table.shift = 32 - bits;
  table.keys.reserve(buckets);
  table.keys.resize(buckets);
  table.starts.reserve(buckets + 1);
  table.starts.resize(buckets + 1);
  table.slots.reserve(entries.size());
  table.slots.resize(entries.size());
  const std::size_t parts = std::size_t{1} << bits;
  table.first.reserve(parts + 1);
  table.first.resize(parts + 1);
  std::uint32_t* keys = table.keys.mutable_data();
  std::uint32_t* starts = table.starts.mutable_data();
  std::uint32_t* slots = table.slots.mutable_data();
  std::uint32_t* first = table.first.mutable_data();
  std::size_t bucket = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i == 0 || key_of(i) != key_of(i - 1)) {
      keys[bucket] = key_of(i);
      starts[bucket++] = static_cast<std::uint32_t>(i);
      ++first[(keys[bucket - 1] >> table.shift) + 1];
    }
    slots[i] = static_cast<std::uint32_t>(entries[i]);
  }
  starts[buckets] = static_cast<std::uint32_t>(entries.size());
  for (std::size_t i = 0; i < parts; ++i) first[i + 1] += first[i];
  return table;
}

// The tables with the rows of `fresh` slots, and without holes.
std::vector<LSHIndex::Table> LSHIndex::sorted_in(std::span<const std::uint32_t> fresh,
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
  std::vector<Table> tables(n_tables);
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
          entries.clear();
          entries.reserve(added.size() +
                          (tables_.empty() ? 0 : tables_[t].slots.size()));
          std::size_t next = 0;
          for (std::size_t b = 0; !tables_.empty() && b < tables_[t].keys.size(); ++b) {
            const std::uint64_t key = tables_[t].keys[b];
            while (next < added.size() && added[next] >> 32 < key) {
              entries.push_back(added[next++]);
            }
            for (std::size_t i = tables_[t].starts[b]; i < tables_[t].starts[b + 1];
                 ++i) {
              const std::uint32_t slot = tables_[t].slots[i];
              if (slot != kNoSlot) entries.push_back((key << 32) | slot);
            }
          }
          entries.insert(entries.end(),
                         added.begin() + static_cast<std::ptrdiff_t>(next),
                         added.end());
          tables[t] = make_table(entries);
        }
      },
      monitor);
  return tables;
}

// Sorts in what waits too long, and closes holes, if there is memory for it.
void LSHIndex::settle(std::size_t threads, Monitor* monitor) {
  const bool full = waiting_.size() > most_waiting(ids_.slots());
  const std::size_t places = tables_.empty() ? 0 : tables_[0].slots.size();
  if (!full && holes_ * 2 <= places) return;
  try {
    tables_ = sorted_in(waiting_, threads, monitor);
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
    Table& table = tables_[t];
    std::uint32_t* slots = table.slots.mutable_data();
    const std::size_t bucket = table.find(HashFamily::key(family_->sum(t, space)));
    std::uint32_t* begin = slots;
    std::uint32_t* end = slots + table.slots.size();
    if (bucket < table.keys.size()) {
      std::uint32_t* last = slots + table.starts[bucket + 1];
      std::uint32_t* at = std::find(slots + table.starts[bucket], last, slot);
      if (at != last) {
        *at = instead;
        continue;
      }
    }
    // Elsewhere only in a file whose payload was damaged.
    if (std::uint32_t* at = std::find(begin, end, slot); at != end) *at = instead;
  }
  if (instead == kNoSlot) ++holes_;
}

std::size_t LSHIndex::buckets() const {
  std::size_t total = 0;
  for (const Table& table : tables_) total += table.keys.size();
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
      std::vector<Table> tables = sorted_in(waiting, threads, monitor);
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

void LSHIndex::upsert(RowsView rows, const std::int64_t* ids, std::size_t threads,
                      Monitor* monitor) {
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
    for (Table& table : tables_) table.slots.mutable_data();
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
  settle(threads, monitor);
  version_.fetch_add(1, std::memory_order_release);
}

void LSHIndex::remove(std::span<const std::int64_t> ids) {
  const std::unique_lock lock(mutex_);
  if (ids.empty()) return;
  std::vector<std::uint32_t> slots;
  std::vector<bool> gone(ids_.slots(), false);
  for (const std::int64_t id : ids) {
    slots.push_back(ids_.slot_of(id));
    if (gone[slots.back()]) {
      throw InvalidArgument("ids holds " + std::to_string(id) +
                            " more than once; ids must be unique");
    }
    gone[slots.back()] = true;
  }
  std::uint8_t* rows = rows_.mutable_data();
  float* norms = options_.metric == Metric::kCosine ? norms_.mutable_data() : nullptr;
  const std::size_t sketch_bytes = sketch_ ? sketch_->bytes() : 0;
  std::uint8_t* sketches = sketch_ ? sketches_.mutable_data() : nullptr;
  for (Table& table : tables_) table.slots.mutable_data();
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
  settle(resolve_threads(0), nullptr);
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

search::RowSet LSHIndex::row_set() const {
  return {.metric = options_.metric,
          .dtype = options_.dtype,
          .dim = options_.dim,
          .rows = rows_.bytes().data(),
          .stride = stride_,
          .count = ids_.slots(),
          .slots = nullptr,
          .norms = norms_.data(),
          .ids = ids_.identity() ? nullptr : &ids_};
}

void LSHIndex::check_filter(const storage::SlotSet* filter) const {
  if (filter != nullptr && filter->version() != version()) {
    throw InvalidArgument("filter was made for another state of the index");
  }
}

// --- searching -----------------------------------------------------------------------

// One thread's searches; the index is locked for reading.
template <class Key>
class LSHIndex::Searcher {
 public:
  Searcher(const LSHIndex& index, const storage::SlotSet* filter)
      : index_(index), filter_(filter), set_(index.row_set()) {}

  void run(const std::byte* query, std::size_t k, std::size_t n_probe,
           std::size_t rerank, std::int64_t* ids, float* distances) {
    const search::Canonical<Key> scorer(set_, query);
    search::TopK<Key> top(k);
    visited_.prepare(index_.ids_.slots());
    met_.clear();
    buckets_.clear();
    all_slots_ = false;
    std::size_t rows = index_.waiting_.size();
    if (!index_.tables_.empty()) {
      index_.family_->hash(query, true, space_);
      choose(n_probe);
      for (std::size_t i = 0; i < probes_.size(); i += kTogether) {
        rows += look(i, std::min(kTogether, probes_.size() - i));
      }
    }
    // So many that all sketches in order take less time than these one by one.
    const bool all = index_.sketch_ && rows * 2 >= index_.ids_.slots() && rows > rerank;
    if (all) {
      meet_all();
    } else {
      take(index_.waiting_);
      for (const std::span<const std::uint32_t> bucket : buckets_) take(bucket);
    }
    if (index_.sketch_ && (all_slots_ || met_.size() > rerank)) sift(query, rerank);
    measure(scorer, top);
    const auto& hits = top.sort();
    for (std::size_t i = 0; i < k; ++i) {
      const bool held = i < hits.size();
      ids[i] = held ? hits[i].id : IdMap::kNoId;
      distances[i] = held ? search::Canonical<Key>::distance(hits[i].key)
                          : std::numeric_limits<float>::infinity();
    }
  }

 private:
  static constexpr std::size_t kTogether = 32;
  using Moves = HashFamily::Move[HashFamily::kMaxMoves];
  struct Probe {
    std::uint32_t table;
    std::uint32_t key;
  };
  // A set of moves of one table, as bits in the order of their costs.
  struct Step {
    float cost;
    std::uint32_t table;
    std::uint64_t moves;
    friend bool operator<(const Step& a, const Step& b) {  // cheapest first in a heap
      if (a.cost != b.cost) return a.cost > b.cost;
      return a.table != b.table ? a.table > b.table : a.moves > b.moves;
    }
  };

  // The likeliest buckets: those of the query, then by the cost of moves. A set of
  // moves comes after the set that its last move, or the one before that, gives it.
  void choose(std::size_t n_probe) {
    const HashFamily& family = *index_.family_;
    const std::size_t n_tables = index_.options_.n_tables;
    probes_.clear();
    sums_.resize(n_tables);
    for (std::size_t t = 0; t < n_tables && probes_.size() < n_probe; ++t) {
      sums_[t] = family.sum(t, space_);
      probes_.push_back({static_cast<std::uint32_t>(t), HashFamily::key(sums_[t])});
    }
    if (n_probe <= n_tables) return;
    moves_.resize(n_tables * HashFamily::kMaxMoves);
    counts_.resize(n_tables);
    steps_.clear();
    for (std::size_t t = 0; t < n_tables; ++t) {
      HashFamily::Move* mine = moves_.data() + t * HashFamily::kMaxMoves;
      counts_[t] = family.moves(t, space_, mine);
      if (counts_[t] != 0) {
        steps_.push_back({mine[0].cost, static_cast<std::uint32_t>(t), 1});
      }
    }
    std::make_heap(steps_.begin(), steps_.end());
    while (!steps_.empty() && probes_.size() < n_probe) {
      std::pop_heap(steps_.begin(), steps_.end());
      const Step step = steps_.back();
      steps_.pop_back();
      const HashFamily::Move* mine = moves_.data() + step.table * HashFamily::kMaxMoves;
      std::uint64_t sum = sums_[step.table];
      std::uint32_t functions = 0;
      bool once = true;
      for (std::uint64_t left = step.moves; left != 0; left &= left - 1) {
        const HashFamily::Move& move = mine[std::countr_zero(left)];
        const std::uint32_t function = 1u << move.function;
        once = once && (functions & function) == 0;
        functions |= function;
        sum += move.add;
      }
      if (once) probes_.push_back({step.table, HashFamily::key(sum)});
      const auto last = static_cast<std::size_t>(std::bit_width(step.moves)) - 1;
      if (last + 1 >= counts_[step.table]) continue;
      const std::uint64_t next = std::uint64_t{1} << (last + 1);
      const float more = step.cost + mine[last + 1].cost;
      steps_.push_back({more, step.table, step.moves | next});
      std::push_heap(steps_.begin(), steps_.end());
      steps_.push_back(
          {more - mine[last].cost, step.table, (step.moves ^ (next >> 1)) | next});
      std::push_heap(steps_.begin(), steps_.end());
    }
  }

  // The buckets of some probes, step by step, so that what each waits for comes from
  // memory at the same time.
  // Returns how many places they have.
  std::size_t look(std::size_t first, std::size_t count) {
    const Probe* probes = probes_.data() + first;
    for (std::size_t i = 0; i < count; ++i) {
      const Table& table = index_.tables_[probes[i].table];
      prefetch(table.first.data() + (probes[i].key >> table.shift));
    }
    for (std::size_t i = 0; i < count; ++i) {
      const Table& table = index_.tables_[probes[i].table];
      prefetch(table.keys.data() + table.first[probes[i].key >> table.shift]);
    }
    std::size_t places = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Table& table = index_.tables_[probes[i].table];
      const std::size_t bucket = table.find(probes[i].key);
      if (bucket == table.keys.size()) continue;
      const std::size_t begin = table.starts[bucket];
      const std::size_t size = table.starts[bucket + 1] - begin;
      prefetch(table.slots.data() + begin);
      buckets_.push_back(table.slots.span().subspan(begin, size));
      places += size;
    }
    return places;
  }

  // Every slot: without a filter there is no list of them.
  void meet_all() {
    all_slots_ = filter_ == nullptr;
    if (filter_ != nullptr) met_ = filter_->slots();
  }

  // Those of the slots that were not met before and pass the filter.
  void take(std::span<const std::uint32_t> slots) {
    visited_.make_room(slots.size());
    std::size_t n = met_.size();
    met_.resize(n + slots.size());
    for (const std::uint32_t slot : slots) {
      if (slot == kNoSlot) continue;
      met_[n] = slot;
      const bool passes = filter_ == nullptr || filter_->test(slot);
      n += passes ? visited_.insert(slot) : 0;
    }
    met_.resize(n);
  }

  // Keeps the slots met whose sketches differ least: `rerank` of them, and those that
  // differ as little as the last of these.
  void sift(const std::byte* query, std::size_t rerank) {
    const SignSketch& sketch = *index_.sketch_;
    bits_.resize(sketch.bytes());
    sketch.write(query, true, sketch_space_, bits_.data());
    const auto* bits = reinterpret_cast<const std::byte*>(bits_.data());
    const std::byte* sketches = index_.sketches_.bytes().data();
    const std::size_t count = all_slots_ ? index_.ids_.slots() : met_.size();
    differing_.resize(count);
    if (all_slots_) {
      kernels::active().hamming_rows(bits, sketches, sketch.bytes(), count,
                                     sketch.bytes(), differing_.data());
    } else {
      kernels::active().hamming_gather(bits, sketches, sketch.bytes(), met_.data(),
                                       count, sketch.bytes(), differing_.data());
    }
    const auto limit = static_cast<std::int32_t>(nth_least(rerank, sketch.bits() + 1));
    if (!all_slots_) {
      std::size_t n = 0;
      for (std::size_t i = 0; i < count; ++i) {
        met_[n] = met_[i];
        n += differing_[i] <= limit ? 1 : 0;
      }
      met_.resize(n);
      return;
    }
    met_.clear();
    for (std::size_t i = 0; i < count; i += 32) {
      const std::size_t end = std::min(count, i + 32);
      // Almost always none is kept; the compiler does this test in vectors.
      unsigned any = 0;
      for (std::size_t j = i; j < end; ++j) any |= differing_[j] <= limit ? 1u : 0u;
      if (any == 0) continue;
      for (std::size_t j = i; j < end; ++j) {
        if (differing_[j] <= limit) met_.push_back(static_cast<std::uint32_t>(j));
      }
    }
  }

  // The value of the n-th least of differing_, which has more; all are below `values`.
  // Four counters a value, because neighbours that are equal would wait for each other.
  std::size_t nth_least(std::size_t n, std::size_t values) {
    tally_.assign(4 * values, 0);
    std::size_t i = 0;
    for (; i + 4 <= differing_.size(); i += 4) {
      for (std::size_t j = 0; j < 4; ++j) {
        ++tally_[j * values + static_cast<std::size_t>(differing_[i + j])];
      }
    }
    for (; i < differing_.size(); ++i)
      ++tally_[static_cast<std::size_t>(differing_[i])];
    std::size_t held = 0;
    for (std::size_t v = 0; v + 1 < values; ++v) {
      for (std::size_t j = 0; j < 4; ++j) held += tally_[j * values + v];
      if (held >= n) return v;
    }
    return values - 1;
  }

  void measure(const search::Canonical<Key>& scorer, search::TopK<Key>& top) {
    constexpr std::size_t kBlock = search::Canonical<Key>::kBlock;
    Key keys[kBlock];
    for (std::size_t begin = 0; begin < met_.size(); begin += kBlock) {
      const std::size_t n = std::min(kBlock, met_.size() - begin);
      const std::uint32_t* slots = met_.data() + begin;
      scorer.some(slots, n, keys);
      for (std::size_t i = 0; i < n; ++i) {
        if (keys[i] <= top.limit()) top.push(keys[i], index_.ids_.id_of(slots[i]));
      }
    }
  }

  const LSHIndex& index_;
  const storage::SlotSet* filter_;
  search::RowSet set_;
  HashFamily::Space space_;
  std::vector<Probe> probes_;
  std::vector<std::uint64_t> sums_;
  std::vector<HashFamily::Move> moves_;
  std::vector<std::size_t> counts_;
  std::vector<Step> steps_;
  search::VisitedSet visited_;
  std::vector<std::span<const std::uint32_t>> buckets_;
  std::vector<std::uint32_t> met_;  // slots
  SignSketch::Space sketch_space_;
  std::vector<std::uint8_t> bits_;
  std::vector<std::int32_t> differing_;  // of the slots met
  std::vector<std::uint32_t> tally_;
  bool all_slots_ = false;  // instead of those in met_
};

template <class Key>
void LSHIndex::probe(RowsView queries, std::size_t k, std::size_t n_probe,
                     std::size_t rerank, const storage::SlotSet* filter,
                     std::size_t threads, Monitor* monitor, std::int64_t* ids,
                     float* distances) const {
  parallel_for(
      queries.rows, threads, 16,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        Searcher<Key> searcher(*this, filter);
        for (std::size_t i = begin; i < end; ++i) {
          searcher.run(queries.row(i), k, n_probe, rerank, ids + i * k,
                       distances + i * k);
        }
      },
      monitor);
}

// Runs `run` on the rows, those of the filter if there is one.
template <class Run>
auto LSHIndex::exactly(const storage::SlotSet* filter, Run&& run) const {
  search::RowSet set = row_set();
  std::vector<std::uint32_t> slots;
  if (filter != nullptr) {
    slots = filter->slots();
    slots.push_back(0);  // never null, even when nothing passes
    set.slots = slots.data();
    set.count = filter->count();
  }
  return run(set);
}

void LSHIndex::search(RowsView queries, std::size_t k, std::size_t n_probe,
                      std::size_t rerank, const storage::SlotSet* filter,
                      std::size_t threads, Monitor* monitor, std::int64_t* ids,
                      float* distances) const {
  storage::check_rows(search::query_dtype(options_.dtype), queries, options_.dim,
                      "queries");
  const std::shared_lock lock(mutex_);
  check_filter(filter);
  threads = resolve_threads(threads);
  if (n_probe == 0) n_probe = 4 * options_.n_tables;
  if (rerank == 0) rerank = std::max<std::size_t>(256, 32 * k);
  if (n_probe >= buckets() || (filter != nullptr && filter->count() <= kFewRows)) {
    exactly(filter, [&](const search::RowSet& set) {
      search::search_topk(set, queries, k, threads, monitor, ids, distances);
    });
  } else if (search::has_integer_key(options_.metric, options_.dtype)) {
    probe<std::int32_t>(queries, k, n_probe, rerank, filter, threads, monitor, ids,
                        distances);
  } else {
    probe<float>(queries, k, n_probe, rerank, filter, threads, monitor, ids, distances);
  }
}

search::Ragged LSHIndex::search_radius(RowsView queries, double radius,
                                       const storage::SlotSet* filter,
                                       std::size_t threads, Monitor* monitor) const {
  storage::check_rows(search::query_dtype(options_.dtype), queries, options_.dim,
                      "queries");
  const std::shared_lock lock(mutex_);
  check_filter(filter);
  return exactly(filter, [&](const search::RowSet& set) {
    return search::search_within(set, queries, radius, threads, monitor);
  });
}

// --- facts and files -----------------------------------------------------------------

LSHIndex::Stats LSHIndex::stats() const {
  const std::shared_lock lock(mutex_);
  Stats stats;
  stats.rows_bytes = rows_.capacity_bytes() + norms_.capacity_bytes();
  stats.ids_bytes = ids_.memory_bytes();
  if (family_) stats.hashes_bytes = family_->memory_bytes();
  if (sketch_) {
    stats.hashes_bytes += sketch_->memory_bytes();
    stats.sketches_bytes = sketches_.capacity_bytes();
  }
  stats.tables_bytes = waiting_.capacity() * sizeof(std::uint32_t);
  stats.waiting = waiting_.size();
  stats.buckets = buckets();
  for (const Table& table : tables_) {
    stats.tables_bytes += table.keys.capacity_bytes() + table.starts.capacity_bytes() +
                          table.slots.capacity_bytes() + table.first.capacity_bytes();
    for (std::size_t b = 0; b < table.keys.size(); ++b) {
      stats.largest =
          std::max<std::size_t>(stats.largest, table.starts[b + 1] - table.starts[b]);
    }
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
    const Table& table = tables_[t];
    const std::string name = "table" + std::to_string(t) + ".";
    writer.number(name + "buckets", table.keys.size());
    writer.number(name + "shift", table.shift);
    writer.add(name + "keys", table.keys.bytes());
    writer.add(name + "starts", table.starts.bytes());
    writer.add(name + "slots", table.slots.bytes());
    writer.add(name + "first", table.first.bytes());
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
  LSHIndex index(options);  // what it refuses is the file's fault (persist.h)
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
    Table table;
    const std::size_t buckets = reader.number(name + "buckets", 0, places);
    table.shift = static_cast<unsigned>(reader.number(name + "shift", 8, 31));
    table.keys = reader.array<std::uint32_t>(name + "keys", buckets);
    table.starts = reader.array<std::uint32_t>(name + "starts", buckets + 1);
    table.slots = reader.array<std::uint32_t>(name + "slots", places);
    const std::size_t parts = std::size_t{1} << (32 - table.shift);
    table.first = reader.array<std::uint32_t>(name + "first", parts + 1);
    const auto rising = [&](const storage::Array<std::uint32_t>& values,
                            const char* section, std::size_t end) {
      bool right = values[0] == 0 && values[values.size() - 1] == end;
      for (std::size_t i = 1; i < values.size(); ++i) {
        right = right && values[i - 1] <= values[i];
      }
      reader.require(right, name + section, "places out of order");
    };
    rising(table.starts, "starts", places);
    rising(table.first, "first", buckets);
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
