// SPDX-License-Identifier: Apache-2.0
#include "annx/search/exact.h"

#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "annx/search/tiles.h"
#include "annx/search/topk.h"

namespace annx::search {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kPassBytes = std::size_t{64} << 20;
// Fewer queries than this do not repay packing the rows.
constexpr std::size_t kFewQueries = 4;

// Reports work on a part of the queries as progress on all of them.
class PartMonitor final : public Monitor {
 public:
  PartMonitor(Monitor* outer, std::size_t before, std::size_t part, std::size_t total)
      : outer_(outer), before_(before), part_(part), total_(total) {}
  void poll(std::size_t done, std::size_t total) override {
    outer_->poll(before_ + part_ * done / std::max<std::size_t>(total, 1), total_);
  }
  Monitor* get() { return outer_ == nullptr ? nullptr : this; }

 private:
  Monitor* outer_;
  std::size_t before_;
  std::size_t part_;
  std::size_t total_;
};

template <class Key>
using Scorers = std::vector<Canonical<Key>>;

template <class Key>
Scorers<Key> make_scorers(const RowSet& set, RowsView queries) {
  Scorers<Key> scorers;
  scorers.reserve(queries.rows);
  for (std::size_t i = 0; i < queries.rows; ++i)
    scorers.emplace_back(set, queries.row(i));
  return scorers;
}

// How rows and queries are divided among threads: by rows, which each thread packs
// once, unless there are too few of them.
struct Division {
  std::size_t rows = 0;  // in a block
  std::size_t blocks = 0;
  std::size_t queries = 0;  // in a group: all, if divided by rows
  bool by_rows = true;

  // Blocks hold a multiple of `unit` rows.
  Division(std::size_t count, std::size_t block_rows, std::size_t unit,
           std::size_t n_queries, std::size_t threads) {
    rows = block_rows;
    blocks = (count + rows - 1) / rows;
    by_rows = threads == 1 || blocks >= 4 * threads || n_queries < 16 * threads;
    if (by_rows && threads > 1 && blocks < 4 * threads) {
      // Few rows and few queries: smaller blocks.
      rows = std::max(unit, count / (4 * threads) / unit * unit);
      blocks = (count + rows - 1) / rows;
    }
    queries = by_rows ? n_queries
                      : std::max<std::size_t>(16, n_queries / (8 * threads) / 16 * 16);
  }
};

// --- by canonical distances alone ----------------------------------------------------

// Entries [begin, end) of the set against each of the scorers.
template <class Key, class Take>
void stream(const Scorers<Key>& scorers, std::size_t first, std::size_t last,
            std::size_t begin, std::size_t end, Take&& take) {
  Key keys[Canonical<Key>::kStretch];
  // Several scorers find the rows near after the first one.
  const std::size_t most =
      last - first == 1 ? Canonical<Key>::kStretch : Canonical<Key>::kBlock;
  for (std::size_t at = begin; at < end; at += most) {
    const std::size_t n = std::min(end - at, most);
    for (std::size_t i = first; i < last; ++i) {
      scorers[i].block(at, n, keys);
      take(i, at, n, keys);
    }
  }
}

template <class Key>
void take_best(TopK<Key>& top, const RowSet& set, std::size_t begin, std::size_t count,
               const Key* keys) {
  Key limit = top.limit();
  for (std::size_t i = 0; i < count; i += 32) {
    const std::size_t end = std::min(count, i + 32);
    // Almost always nothing gets in; the compiler does this test in vectors.
    unsigned any = 0;
    for (std::size_t j = i; j < end; ++j) any |= keys[j] <= limit ? 1u : 0u;
    if (any == 0) continue;
    for (std::size_t j = i; j < end; ++j) {
      if (keys[j] > limit) continue;
      top.push(keys[j], set.id(begin + j));
      limit = top.limit();
    }
  }
}

template <class Key>
std::vector<TopK<Key>> stream_topk(const RowSet& set, RowsView queries, std::size_t k,
                                   std::size_t threads, Monitor* monitor) {
  const Scorers<Key> scorers = make_scorers<Key>(set, queries);
  // Several queries share rows that stay in the second cache; a single one wants long
  // stretches of them.
  const std::size_t bytes = static_cast<std::size_t>(queries.rows == 1 ? 16 : 1) << 20;
  const std::size_t block =
      std::max<std::size_t>(32, bytes / 4 / std::max<std::size_t>(set.stride, 1));
  const Division parts(set.count, std::min<std::size_t>(block, 8192), 32, queries.rows,
                       threads);
  std::vector<TopK<Key>> best(queries.rows, TopK<Key>(k));
  if (!parts.by_rows) {
    parallel_for(
        queries.rows, threads, parts.queries,
        [&](std::size_t first, std::size_t last, std::size_t) {
          for (std::size_t begin = 0; begin < set.count; begin += parts.rows) {
            stream<Key>(scorers, first, last, begin,
                        std::min(set.count, begin + parts.rows),
                        [&](std::size_t q, std::size_t at, std::size_t n,
                            const Key* keys) { take_best(best[q], set, at, n, keys); });
          }
        },
        monitor);
    return best;
  }
  std::vector<std::vector<TopK<Key>>> others(threads - 1);
  parallel_for(
      parts.blocks, threads, 1,
      [&](std::size_t first, std::size_t last, std::size_t worker) {
        std::vector<TopK<Key>>& mine = worker == 0 ? best : others[worker - 1];
        if (mine.empty()) mine.assign(queries.rows, TopK<Key>(k));
        stream<Key>(scorers, 0, queries.rows, first * parts.rows,
                    std::min(set.count, last * parts.rows),
                    [&](std::size_t q, std::size_t at, std::size_t n, const Key* keys) {
                      take_best(mine[q], set, at, n, keys);
                    });
      },
      monitor);
  for (const auto& other : others) {
    for (std::size_t q = 0; q < other.size(); ++q) best[q].merge(other[q]);
  }
  return best;
}

// --- by tiles ------------------------------------------------------------------------

struct Candidate {
  float low;
  float high;
  std::uint32_t entry;
};

// One thread's candidates for the queries of a pass.
template <class Key>
class Shortlist {
 public:
  // Room for candidates of a query; when it is full, most are thrown away.
  static std::size_t room(std::size_t k) { return std::max<std::size_t>(64, 4 * k); }

  Shortlist(const TilePass& pass, const Scorers<Key>& scorers, std::size_t k,
            std::size_t queries)
      : pass_(pass),
        scorers_(scorers),
        k_(k),
        room_(room(k)),
        limits_(pass.padded(), -kInfinity),
        counts_(queries, 0),
        seen_(queries, 0),
        candidates_(queries * room_),
        highs_(queries * k),
        best_(queries) {
    for (std::size_t q = 0; q < counts_.size(); ++q) {
      if (!pass.direct(q)) limits_[q] = kInfinity;
    }
  }

  const float* limits() const { return limits_.data(); }

  void add(std::size_t query, std::uint32_t entry, float low, float gap) {
    // The tile's limit may be older than ours.
    if (!(low < limits_[query])) return;
    const float high = pass_.high(query, low, gap);
    candidates_[query * room_ + counts_[query]] = {low, high, entry};
    tighten(query, high);
    if (++counts_[query] == room_) prune(query);
  }

  // Canonical distances to entries that no bound could judge.
  void settle_block(std::size_t begin, std::size_t count) {
    Key keys[Canonical<Key>::kBlock];
    for (std::size_t q = 0; q < counts_.size(); ++q) {
      if (pass_.direct(q)) continue;
      for (std::size_t at = 0; at < count; at += Canonical<Key>::kBlock) {
        const std::size_t n = std::min(count - at, Canonical<Key>::kBlock);
        scorers_[q].block(begin + at, n, keys);
        take_best(top(q), pass_.set(), begin + at, n, keys);
      }
      lower(q);
    }
  }

  // Moves what is left of a query's candidates into `all`, and settled ones into
  // `into`.
  void hand_over(std::size_t query, std::vector<Candidate>& all, TopK<Key>& into) {
    const Candidate* list = candidates_.data() + query * room_;
    all.insert(all.end(), list, list + counts_[query]);
    if (best_[query]) into.merge(*best_[query]);
  }

  // Keeps those of `list` that can be among the k nearest; returns how many.
  static std::size_t keep(Candidate* list, std::size_t count, std::size_t k,
                          float* bound) {
    if (count < k) return count;
    std::nth_element(
        list, list + (k - 1), list + count,
        [](const Candidate& a, const Candidate& b) { return a.high < b.high; });
    *bound = list[k - 1].high;
    return static_cast<std::size_t>(
        std::partition(list, list + count,
                       [&](const Candidate& c) { return c.low <= *bound; }) -
        list);
  }

 private:
  TopK<Key>& top(std::size_t query) {
    if (!best_[query]) best_[query] = std::make_unique<TopK<Key>>(k_);
    return *best_[query];
  }

  void lower(std::size_t query) {
    if (!top(query).full()) return;
    limits_[query] = std::min(
        limits_[query], pass_.limit(query, static_cast<double>(top(query).limit())));
  }

  // Takes the upper bound of one more row into the query's k smallest, the largest of
  // which is the limit: at every row and not only when the room is full, because each
  // row let through costs as much as dozens of multiply-adds.
  void tighten(std::size_t query, float high) {
    float* heap = highs_.data() + query * k_;
    std::size_t& seen = seen_[query];
    if (seen < k_) {
      heap[seen++] = high;
      if (seen < k_) return;
      std::make_heap(heap, heap + k_);
    } else {
      if (!(high < heap[0])) return;
      std::pop_heap(heap, heap + k_);
      heap[k_ - 1] = high;
      std::push_heap(heap, heap + k_);
    }
    limits_[query] = std::min(limits_[query], next_above(heap[0]));
  }

  void prune(std::size_t query) {
    Candidate* list = candidates_.data() + query * room_;
    const auto kept = static_cast<std::size_t>(
        std::partition(list, list + counts_[query],
                       [&](const Candidate& c) { return c.low < limits_[query]; }) -
        list);
    counts_[query] = static_cast<std::uint32_t>(kept);
    if (kept <= room_ / 2) return;
    // Too many within the bound of each other (duplicates, or clusters far from the
    // centre): only their true distances can tell.
    settle(list, kept, top(query), scorers_[query], pass_.set());
    counts_[query] = 0;
    lower(query);
  }

 public:
  static void settle(const Candidate* list, std::size_t count, TopK<Key>& into,
                     const Canonical<Key>& scorer, const RowSet& set) {
    std::uint32_t entries[Canonical<Key>::kBlock];
    Key keys[Canonical<Key>::kBlock];
    for (std::size_t at = 0; at < count; at += Canonical<Key>::kBlock) {
      const std::size_t n = std::min(count - at, Canonical<Key>::kBlock);
      for (std::size_t i = 0; i < n; ++i) entries[i] = list[at + i].entry;
      scorer.some(entries, n, keys);
      for (std::size_t i = 0; i < n; ++i) {
        if (keys[i] <= into.limit()) into.push(keys[i], set.id(entries[i]));
      }
    }
  }

 private:
  const TilePass& pass_;
  const Scorers<Key>& scorers_;
  std::size_t k_;
  std::size_t room_;
  std::vector<float> limits_;
  std::vector<std::uint32_t> counts_;
  std::vector<std::size_t> seen_;
  std::vector<Candidate> candidates_;
  std::vector<float> highs_;  // k a query: a heap, the largest on top
  std::vector<std::unique_ptr<TopK<Key>>> best_;
};

// Rows of one block through the tiles.
template <class Key>
void shortlist_block(Shortlist<Key>& list, TileRows& rows, std::size_t begin,
                     std::size_t count) {
  if (!rows.load(begin, count)) {
    list.settle_block(begin, count);
    return;
  }
  rows.run(list.limits(), [&](std::size_t query, std::uint32_t entry, float low,
                              float gap) { list.add(query, entry, low, gap); });
}

template <class Key>
struct TileWorker {
  Shortlist<Key> list;
  TileRows rows;
};

// All queries of one pass, divided by rows.
template <class Key>
std::vector<TopK<Key>> tile_topk(const RowSet& set, RowsView queries, std::size_t k,
                                 std::size_t threads, const std::vector<float>& centre,
                                 std::size_t block_rows, Monitor* monitor) {
  const TilePass pass(set, queries, centre);
  const Scorers<Key> scorers = make_scorers<Key>(set, queries);
  const std::size_t blocks = (set.count + block_rows - 1) / block_rows;
  std::vector<std::unique_ptr<TileWorker<Key>>> workers(threads);
  parallel_for(
      blocks, threads, 1,
      [&](std::size_t first, std::size_t last, std::size_t worker) {
        auto& mine = workers[worker];
        if (!mine) {
          mine = std::make_unique<TileWorker<Key>>(TileWorker<Key>{
              Shortlist<Key>(pass, scorers, k, queries.rows), TileRows(pass)});
        }
        for (std::size_t b = first; b < last; ++b) {
          const std::size_t begin = b * block_rows;
          shortlist_block(mine->list, mine->rows, begin,
                          std::min(block_rows, set.count - begin));
        }
      },
      monitor);
  std::vector<TopK<Key>> best(queries.rows, TopK<Key>(k));
  parallel_for(
      queries.rows, threads, 16, [&](std::size_t first, std::size_t last, std::size_t) {
        std::vector<Candidate> all;
        for (std::size_t q = first; q < last; ++q) {
          if (pass.direct(q)) {
            stream<Key>(scorers, q, q + 1, 0, set.count,
                        [&](std::size_t, std::size_t at, std::size_t n,
                            const Key* keys) { take_best(best[q], set, at, n, keys); });
            continue;
          }
          all.clear();
          for (const auto& worker : workers) {
            if (worker) worker->list.hand_over(q, all, best[q]);
          }
          float bound = kInfinity;
          const std::size_t kept =
              Shortlist<Key>::keep(all.data(), all.size(), k, &bound);
          Shortlist<Key>::settle(all.data(), kept, best[q], scorers[q], set);
        }
      });
  return best;
}

template <class Key>
void write(TopK<Key>& top, Metric metric, std::size_t k, std::int64_t* ids,
           float* distances) {
  const auto& hits = top.sort();
  for (std::size_t i = 0; i < k; ++i) {
    ids[i] = i < hits.size() ? hits[i].id : storage::IdMap::kNoId;
    distances[i] = i < hits.size() ? distance_of(metric, hits[i].key) : kInfinity;
  }
}

RowsView part_of(RowsView queries, std::size_t first, std::size_t count) {
  return {queries.row(first), count, queries.stride};
}

template <class Key>
void topk(const RowSet& set, RowsView queries, std::size_t k_wanted,
          std::size_t threads, Monitor* monitor, std::int64_t* ids, float* distances) {
  const std::size_t k = std::max<std::size_t>(1, std::min(k_wanted, set.count));
  const bool tiles = tiles_serve(set.metric, set.dtype) &&
                     queries.rows >= kFewQueries && k <= set.count / 8;
  const std::vector<float> centre =
      tiles ? TilePass::centre_of(set) : std::vector<float>();
  // Queries of a pass: what packed queries, and one thread's candidates, may take.
  const std::size_t query_bytes =
      tiles ? std::max(set.dim * sizeof(float),
                       Shortlist<Key>::room(k) * sizeof(Candidate) + k * sizeof(float))
            : k * sizeof(Hit<Key>);
  const std::size_t pass =
      std::max<std::size_t>(1, std::min<std::size_t>(4096, kPassBytes / query_bytes));
  const Division parts(set.count, TileRows::block_rows(set.dim),
                       kernels::active().tile.rows, queries.rows, threads);
  if (tiles && !parts.by_rows) {
    // Few rows: threads take groups of queries, each of which packs the rows.
    const std::size_t group = std::min(pass, std::max<std::size_t>(96, parts.queries));
    parallel_for(
        queries.rows, threads, group,
        [&](std::size_t first, std::size_t last, std::size_t) {
          auto best = tile_topk<Key>(set, part_of(queries, first, last - first), k, 1,
                                     centre, parts.rows, nullptr);
          for (std::size_t q = first; q < last; ++q) {
            write(best[q - first], set.metric, k_wanted, ids + q * k_wanted,
                  distances + q * k_wanted);
          }
        },
        monitor);
    return;
  }
  for (std::size_t first = 0; first < queries.rows; first += pass) {
    const std::size_t count = std::min(pass, queries.rows - first);
    const RowsView some = part_of(queries, first, count);
    PartMonitor part(monitor, first, count, queries.rows);
    auto best =
        tiles ? tile_topk<Key>(set, some, k, threads, centre, parts.rows, part.get())
              : stream_topk<Key>(set, some, k, threads, part.get());
    for (std::size_t q = 0; q < count; ++q) {
      write(best[q], set.metric, k_wanted, ids + (first + q) * k_wanted,
            distances + (first + q) * k_wanted);
    }
  }
}

// --- within a radius -----------------------------------------------------------------

template <class Key>
using Found = std::vector<std::vector<Hit<Key>>>;  // by query

template <class Key, class Take>
void settle_inside(const Canonical<Key>& scorer,
                   const std::vector<std::uint32_t>& entries, double radius,
                   Take&& take) {
  Key keys[Canonical<Key>::kBlock];
  for (std::size_t at = 0; at < entries.size(); at += Canonical<Key>::kBlock) {
    const std::size_t n = std::min(entries.size() - at, Canonical<Key>::kBlock);
    scorer.some(entries.data() + at, n, keys);
    for (std::size_t i = 0; i < n; ++i) {
      if (inside(keys[i], radius)) take(keys[i], entries[at + i]);
    }
  }
}

template <class Key>
Found<Key> within(const RowSet& set, RowsView queries, double radius,
                  std::size_t threads, const std::vector<float>& centre,
                  Monitor* monitor, std::vector<std::int64_t>* counts) {
  const bool tiles = !centre.empty();
  const Scorers<Key> scorers = make_scorers<Key>(set, queries);
  std::optional<TilePass> pass;
  std::vector<float> limits;
  if (tiles) {
    pass.emplace(set, queries, centre);
    limits.assign(pass->padded(), -kInfinity);
    for (std::size_t q = 0; q < queries.rows; ++q) {
      if (!pass->direct(q)) limits[q] = pass->limit(q, radius);
    }
  }
  struct Worker {
    Found<Key> found;
    std::unique_ptr<TileRows> rows;
    std::vector<std::vector<std::uint32_t>> entries;
    std::vector<std::int64_t> counts;

    void take(std::size_t q, Key key, const RowSet& from, std::size_t entry) {
      if (counts.empty()) {
        found[q].push_back({key, from.id(entry)});
      } else {
        ++counts[q];
      }
    }
  };
  std::vector<Worker> workers(threads);
  const std::size_t rows = TileRows::block_rows(set.dim);
  parallel_for((set.count + rows - 1) / rows, threads, 1,
               [&](std::size_t first, std::size_t last, std::size_t number) {
                 Worker& worker = workers[number];
                 worker.found.resize(queries.rows);
                 if (counts != nullptr) worker.counts.resize(queries.rows);
                 const std::size_t begin = first * rows;
                 const std::size_t end = std::min(set.count, last * rows);
                 const auto take = [&](std::size_t q, std::size_t at, std::size_t n,
                                       const Key* keys) {
                   for (std::size_t i = 0; i < n; ++i) {
                     if (inside(keys[i], radius)) worker.take(q, keys[i], set, at + i);
                   }
                 };
                 if (!tiles) {
                   stream<Key>(scorers, 0, queries.rows, begin, end, take);
                   return;
                 }
                 if (!worker.rows) worker.rows = std::make_unique<TileRows>(*pass);
                 const bool bounded = worker.rows->load(begin, end - begin);
                 for (std::size_t q = 0; q < queries.rows; ++q) {
                   if (!bounded || pass->direct(q)) {
                     stream<Key>(scorers, q, q + 1, begin, end, take);
                   }
                 }
                 if (!bounded) return;
                 worker.entries.resize(queries.rows);
                 worker.rows->run(limits.data(),
                                  [&](std::size_t q, std::uint32_t entry, float,
                                      float) { worker.entries[q].push_back(entry); });
                 for (std::size_t q = 0; q < queries.rows; ++q) {
                   settle_inside(scorers[q], worker.entries[q], radius,
                                 [&](Key key, std::uint32_t entry) {
                                   worker.take(q, key, set, entry);
                                 });
                   worker.entries[q].clear();
                 }
               },
               monitor);
  Found<Key> found(queries.rows);
  if (counts != nullptr) {
    counts->assign(queries.rows, 0);
    for (const Worker& worker : workers) {
      for (std::size_t q = 0; q < worker.counts.size(); ++q) {
        (*counts)[q] += worker.counts[q];
      }
    }
    return found;
  }
  parallel_for(queries.rows, threads, 16,
               [&](std::size_t first, std::size_t last, std::size_t) {
                 for (std::size_t q = first; q < last; ++q) {
                   for (Worker& worker : workers) {
                     if (worker.found.empty()) continue;
                     found[q].insert(found[q].end(), worker.found[q].begin(),
                                     worker.found[q].end());
                   }
                   std::sort(found[q].begin(), found[q].end());
                 }
               });
  return found;
}

template <class Key>
Ragged all_within(const RowSet& set, RowsView queries, double radius, bool counting,
                  std::size_t threads, Monitor* monitor) {
  Ragged result;
  const bool tiles = tiles_serve(set.metric, set.dtype) &&
                     queries.rows >= kFewQueries && set.count != 0;
  const std::vector<float> centre =
      tiles ? TilePass::centre_of(set) : std::vector<float>();
  const std::size_t pass = std::max<std::size_t>(
      1, std::min<std::size_t>(4096, kPassBytes / (set.dim * sizeof(float))));
  for (std::size_t first = 0; first < queries.rows; first += pass) {
    const std::size_t count = std::min(pass, queries.rows - first);
    PartMonitor part(monitor, first, count, queries.rows);
    std::vector<std::int64_t> counts;
    const Found<Key> found =
        within<Key>(set, part_of(queries, first, count), radius, threads, centre,
                    part.get(), counting ? &counts : nullptr);
    for (const std::int64_t n : counts) {
      result.offsets.push_back(result.offsets.back() + n);
    }
    if (counting) continue;
    for (const auto& hits : found) {
      result.append(hits, [&](Key key) { return distance_of(set.metric, key); });
    }
  }
  return result;
}

template <class Key>
void pairs(const RowSet& set, RowsView queries, std::size_t threads, Monitor* monitor,
           float* out) {
  parallel_for(
      queries.rows, threads, 16,
      [&](std::size_t first, std::size_t last, std::size_t) {
        const Scorers<Key> scorers =
            make_scorers<Key>(set, part_of(queries, first, last - first));
        stream<Key>(scorers, 0, last - first, 0, set.count,
                    [&](std::size_t q, std::size_t at, std::size_t n, const Key* keys) {
                      float* to = out + (first + q) * set.count + at;
                      for (std::size_t i = 0; i < n; ++i) {
                        to[i] = distance_of(set.metric, keys[i]);
                      }
                    });
      },
      monitor);
}

}  // namespace

void search_topk(const RowSet& set, RowsView queries, std::size_t k,
                 std::size_t threads, Monitor* monitor, std::int64_t* ids,
                 float* distances) {
  threads = resolve_threads(threads);
  if (has_integer_key(set.metric, set.dtype)) {
    topk<std::int32_t>(set, queries, k, threads, monitor, ids, distances);
  } else {
    topk<float>(set, queries, k, threads, monitor, ids, distances);
  }
}

namespace {

Ragged ragged_within(const RowSet& set, RowsView queries, double radius, bool counting,
                     std::size_t threads, Monitor* monitor) {
  threads = resolve_threads(threads);
  radius = comparable_radius(set.metric, set.dtype, radius);
  return has_integer_key(set.metric, set.dtype)
             ? all_within<std::int32_t>(set, queries, radius, counting, threads,
                                        monitor)
             : all_within<float>(set, queries, radius, counting, threads, monitor);
}

}  // namespace

Ragged search_within(const RowSet& set, RowsView queries, double radius,
                     std::size_t threads, Monitor* monitor) {
  return ragged_within(set, queries, radius, false, threads, monitor);
}

std::vector<std::int64_t> count_within(const RowSet& set, RowsView queries,
                                       double radius, std::size_t threads,
                                       Monitor* monitor) {
  return ragged_within(set, queries, radius, true, threads, monitor).offsets;
}

void all_pairs(const RowSet& set, RowsView queries, std::size_t threads,
               Monitor* monitor, float* out) {
  threads = resolve_threads(threads);
  if (has_integer_key(set.metric, set.dtype)) {
    pairs<std::int32_t>(set, queries, threads, monitor, out);
  } else {
    pairs<float>(set, queries, threads, monitor, out);
  }
}

}  // namespace annx::search
