// SPDX-License-Identifier: Apache-2.0
// Searching an LSHIndex: which buckets to probe, which of the rows met there to
// measure, and exact search over all.
#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>

#include "annx/base/prefetch.h"
#include "annx/index/lsh.h"
#include "annx/search/topk.h"
#include "annx/search/visited.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using codec::HashFamily;
using storage::BucketTable;

// So few rows of a filter are measured without a look at the tables.
constexpr std::size_t kFewRows = 1024;

}  // namespace

search::RowSet LSHIndex::row_set() const {
  return search::stored_rows(options_.metric, options_.dtype, options_.dim,
                             rows_.bytes().data(), norms_.data(), ids_);
}

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
      ids[i] = held ? hits[i].id : storage::IdMap::kNoId;
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
      const BucketTable& table = index_.tables_[probes[i].table];
      prefetch(table.first.data() + (probes[i].key >> table.shift));
    }
    for (std::size_t i = 0; i < count; ++i) {
      const BucketTable& table = index_.tables_[probes[i].table];
      prefetch(table.keys.data() + table.first[probes[i].key >> table.shift]);
    }
    std::size_t places = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const BucketTable& table = index_.tables_[probes[i].table];
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
    const codec::SignSketch& sketch = *index_.sketch_;
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
  codec::SignSketch::Space sketch_space_;
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

void LSHIndex::search(RowsView queries, std::size_t k, std::size_t n_probe,
                      std::size_t rerank, const storage::SlotSet* filter,
                      std::size_t threads, Monitor* monitor, std::int64_t* ids,
                      float* distances) const {
  storage::check_rows(search::query_dtype(options_.dtype), queries, options_.dim,
                      "queries");
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  threads = resolve_threads(threads);
  if (n_probe == 0) n_probe = 4 * options_.n_tables;
  if (rerank == 0) rerank = std::max<std::size_t>(256, 32 * k);
  if (n_probe >= buckets() || (filter != nullptr && filter->count() <= kFewRows)) {
    const search::FilteredRows rows(row_set(), filter);
    search::search_topk(rows.set(), queries, k, threads, monitor, ids, distances);
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
  if (filter != nullptr) filter->require(version());
  const search::FilteredRows rows(row_set(), filter);
  return search::search_within(rows.set(), queries, radius, threads, monitor);
}

}  // namespace annx::index
