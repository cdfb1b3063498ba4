// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/knn.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>

#include "annx/base/prefetch.h"
#include "annx/base/random.h"
#include "annx/base/types.h"
#include "annx/codec/kmeans.h"
#include "annx/graph/cell_rows.h"
#include "annx/graph/knn_cells.h"
#include "annx/graph/near_lists.h"
#include "annx/graph/squared_distance.h"
#include "annx/kernels/dispatch.h"
#include "annx/search/tiles.h"
#include "annx/storage/panels.h"

namespace annx::graph {
namespace {

using storage::Panels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kCellSize = 256;
// With recall 1 the time goes into meetings, and the memory into pairs of cells.
constexpr std::size_t kMostCellsOfAll = 2048;
// Vectors that visit a cell together: as many as the second cache can hold.
constexpr std::size_t kVisitors = 240;
// Cells among which a vector looks for those that it visits.
constexpr std::size_t kNearestCells = 2048;
// Visits are chosen and made for this share of the vectors at a time: all visits would
// take as much memory as the lists.
constexpr std::size_t kVisitGroups = 16;
constexpr std::size_t kSample = 400;
// Of the edges that may be missed, the share that is planned to be found all the same:
// the estimates of a projection lose some, and the sample that the plan is made from
// may promise more than the rest holds, with a projection or without.
constexpr double kReserve = 0.15;
// Below this share of the squared lengths a tile's value has lost digits that matter.
constexpr float kCancelled = 1e-3f;
using Entry = NearLists::Entry;

// Vectors on one side of a meeting.
struct Side {
  Panels panels;
  std::size_t count = 0;
  std::vector<std::uint32_t> places;
  std::vector<float> rows;
  std::vector<float> shares;  // padded
  std::vector<float> limits;  // padded

  explicit Side(Panels::Side side) : panels(kernels::active().tile, side) {}
};

class Knn {
 public:
  Knn(const KnnSource& source, const KnnOptions& options, Sketch sketch)
      : source_(source),
        options_(options),
        n_(source.count()),
        dim_(source.dim()),
        k_(std::min(options.k, n_ - 1)),
        kept_(sketch.projected && options.settled && options.recall < 1
                  ? std::min(n_ - 1, options.recall > 0.99 ? k_ * 4 : k_ * 5 / 2)
                  : k_),
        sketch_(std::move(sketch)) {}

  void run(Monitor* monitor, KnnGraph& out);

 private:
  struct Worker {
    Side left{Panels::Side::kQueries};
    Side right{Panels::Side::kRows};
    std::uint32_t loaded = kNoSlot;  // the cell on the left
    NearLists::Scratch lists;
    // Vectors that distance() has read.
    std::uint32_t slot = kNoSlot;
    std::uint32_t other = kNoSlot;
    std::vector<float> vector;
    std::vector<float> other_vector;
  };
  // Which vectors visit a cell: places by cell.
  struct Visits {
    std::vector<std::uint64_t> begins;
    std::vector<std::uint32_t> places;
  };
  // The visits that reach the recall wanted: a vector visits a cell where that
  // cell's mean is at most `reach` farther from it, in squares, than its own.
  struct Plan {
    float reach = 0;
    std::size_t nearest = 0;  // cells, from its own, among which it looks for them
  };

  void sort_into_cells(Monitor* monitor);
  const float* whole(std::uint32_t place) const {
    return plain_.row(moved_ ? place : cells_.order[place]);
  }
  void load(Side& side, float factor, std::uint32_t first, std::uint32_t last) const;
  void load_some(Side& side, float factor, const std::uint32_t* places,
                 std::size_t count) const;
  template <class Hit>
  void meet(Side& left, Side& right, bool same, Hit&& hit) const;
  bool all() const { return options_.recall >= 1; }
  // Whether nothing but the order of estimates is asked for: less will do to keep them.
  bool rough() const { return !options_.settled && !all(); }
  float distance(std::uint32_t slot, std::uint32_t other, Worker& worker) const;
  float settle(std::uint32_t u, std::uint32_t v, float value, Worker& worker) const;
  float low_limit(float key) const { return search::next_above(key * sketch_.widen); }
  float limit(std::uint32_t place) const {
    return limits_[place].load(std::memory_order_relaxed);
  }
  void expect_angles();
  void meet_both(Side& left, Side& right, bool same, Worker& worker);
  void meet_cells(std::uint32_t a, std::uint32_t b, Worker& worker);
  void meet_pairs(const CellPair* pairs, std::size_t count, Monitor* monitor);
  void find_truth(Monitor* monitor);
  double recall() const;
  float detour(std::uint32_t place, std::uint32_t cell) const;
  Plan make_plan() const;
  Visits choose_visits(const Plan& plan, std::size_t first_cell, std::size_t last_cell,
                       Monitor* monitor) const;
  void visit(const Visits& visits, Monitor* monitor);
  void give(std::uint32_t to, float key, std::uint32_t slot,
            NearLists::Scratch& scratch);
  void write_settled(Monitor* monitor, KnnGraph& out);

  const KnnSource& source_;
  KnnOptions options_;
  std::size_t n_;
  std::size_t dim_;
  std::size_t k_;     // neighbours wanted, and there
  std::size_t kept_;  // as many as a list has at last, some by estimate
  Sketch sketch_;     // by position, once sorted; then without its rows
  CellRows rows_;
  KnnCells cells_;
  std::vector<std::uint32_t> place_;  // by slot
  bool moved_ = false;                // plain_ is by position
  MatrixView<float> plain_;           // whole vectors, where sketches are short
  AlignedBuffer copies_;
  std::vector<std::uint32_t> nearest_;      // cells of each cell
  std::size_t neighbours_ = 0;              // how many
  NearLists lists_;                         // by position
  std::vector<std::atomic<float>> limits_;  // values from which on nothing gets in
  std::vector<std::mutex> locks_;           // of the lists of a cell, with threads
  std::vector<std::uint32_t> sample_;       // positions
  std::vector<Entry> truth_;                // k_ for each of the sample
};

// --- cells ---------------------------------------------------------------------------

void Knn::sort_into_cells(Monitor* monitor) {
  const std::size_t size =
      all() ? std::max(kCellSize, n_ / kMostCellsOfAll) : kCellSize;
  cells_ = make_cells(sketch_, n_, size, options_.seed, options_.threads, monitor);
  plain_ = source_.plain();
  if (all()) {
    moved_ = plain_.data == nullptr;
    if (moved_) {
      copies_ = AlignedBuffer(n_ * dim_ * sizeof(float));
      plain_ = {reinterpret_cast<const float*>(copies_.data()), n_, dim_, dim_};
    }
  }
  std::vector<float> shares(n_), rests(n_);
  parallel_for(
      n_, options_.threads, 1024,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        auto* copies = reinterpret_cast<float*>(copies_.data());
        for (std::size_t p = begin; p < end; ++p) {
          const std::uint32_t slot = cells_.order[p];
          shares[p] = sketch_.shares[slot];
          rests[p] = sketch_.rests[slot];
          if (moved_) source_.vector(slot, copies + p * dim_);
        }
      },
      monitor);
  sketch_.shares = std::move(shares);
  sketch_.rests = std::move(rests);
  rows_ = CellRows(std::move(sketch_.rows), sketch_.width, cells_, rough(),
                   options_.threads);
  if (rows_.halves()) {
    // Of the rows as they are kept: what is rounded differently does not cancel.
    parallel_for(n_, options_.threads, 1024,
                 [&](std::size_t begin, std::size_t end, std::size_t) {
                   std::vector<float> row(rows_.width());
                   const std::vector<float> zero(rows_.width());
                   for (std::size_t p = begin; p < end; ++p) {
                     rows_.copy(p, row.data());
                     sketch_.shares[p] =
                         squared_distance(row.data(), zero.data(), row.size());
                     sketch_.rests[p] = 0;
                   }
                 });
  }
  place_.resize(n_);
  for (std::size_t p = 0; p < n_; ++p) {
    place_[cells_.order[p]] = static_cast<std::uint32_t>(p);
  }
}

// --- meetings ------------------------------------------------------------------------

// Loads positions [first, last).
void Knn::load(Side& side, float factor, std::uint32_t first,
               std::uint32_t last) const {
  side.count = last - first;
  const std::size_t width = rows_.width();
  side.rows.resize(rows_.halves() ? side.count * width : 0);
  const float* rows = rows_.read(first, side.rows.data());
  for (std::size_t i = 1; i < side.count && rows_.halves(); ++i) {
    rows_.read(first + i, side.rows.data() + i * width);
  }
  side.panels.pack({rows, side.count, width, width}, {.factor = factor});
  const std::size_t padded = side.panels.padded();
  side.places.resize(side.count);
  side.shares.assign(padded, kInfinity);
  side.limits.assign(padded, -kInfinity);
  for (std::size_t i = 0; i < side.count; ++i) {
    side.places[i] = first + static_cast<std::uint32_t>(i);
    side.shares[i] = sketch_.shares[first + i];
  }
}

// Calls hit(i, j, value) for pairs below a limit; with `same` the left vectors are the
// first of the right ones, and every pair comes once.
template <class Hit>
void Knn::meet(Side& left, Side& right, bool same, Hit&& hit) const {
  const kernels::KernelTable& table = kernels::active();
  const std::size_t queries = table.tile.queries;
  const std::size_t rows = table.tile.rows;
  const std::size_t dim = sketch_.width;
  float sums[kernels::kMaxTileQueries * kernels::kMaxTileRows];
  std::uint32_t hits[kernels::kMaxTileQueries];
  for (std::size_t p = 0; p < right.panels.panels(); ++p) {
    const std::size_t first_row = p * rows;
    std::size_t last = left.panels.panels();
    if (same) last = std::min(last, (first_row + rows + queries - 1) / queries);
    std::size_t g = 0;
    while ((g = table.tile_meet(
                left.panels.data(), g, last, right.panels.panel(p), dim,
                {left.shares.data(), left.limits.data()},
                {right.shares.data() + first_row, right.limits.data() + first_row},
                sums, hits)) < last) {
      for (std::size_t i = 0; i < queries; ++i) {
        for (std::uint32_t bits = hits[i]; bits != 0; bits &= bits - 1) {
          const auto lane = static_cast<std::size_t>(std::countr_zero(bits));
          const std::size_t a = g * queries + i;
          const std::size_t b = first_row + lane;
          if (same && a >= b) continue;
          hit(a, b, sums[i * rows + lane]);
        }
      }
      ++g;
    }
  }
}

// The key of a pair that a tile let through.
float Knn::settle(std::uint32_t u, std::uint32_t v, float value, Worker& worker) const {
  if (all()) return squared_distance(whole(u), whole(v), dim_);
  if (!sketch_.projected &&
      value < kCancelled * (sketch_.shares[u] + sketch_.shares[v])) {
    worker.vector.resize(dim_);
    worker.other_vector.resize(dim_);
    worker.slot = worker.other = kNoSlot;
    return squared_distance(rows_.read(u, worker.vector.data()),
                            rows_.read(v, worker.other_vector.data()), dim_);
  }
  return std::max(value + (sketch_.rests[u] + sketch_.rests[v]), 0.0f);
}

// The squared distance of two vectors, which need not lie in memory.
float Knn::distance(std::uint32_t slot, std::uint32_t other, Worker& worker) const {
  const auto vector = [&](std::uint32_t wanted, std::uint32_t& held,
                          std::vector<float>& to) {
    if (!moved_ && plain_.data != nullptr) return plain_.row(wanted);
    to.resize(dim_);
    if (held != wanted) source_.vector(wanted, to.data());
    held = wanted;
    return static_cast<const float*>(to.data());
  };
  const float* x = vector(slot, worker.slot, worker.vector);
  return squared_distance(x, vector(other, worker.other, worker.other_vector), dim_);
}

void Knn::give(std::uint32_t to, float key, std::uint32_t slot,
               NearLists::Scratch& scratch) {
  std::unique_lock<std::mutex> lock;
  if (!locks_.empty()) lock = std::unique_lock(locks_[rows_.cell_of(to)]);
  if (!lists_.give(to, NearLists::entry(key, slot), scratch)) return;
  limits_[to].store(low_limit(lists_.last_key(to)), std::memory_order_relaxed);
}

// Everything that a tile lets through, to both sides.
void Knn::meet_both(Side& left, Side& right, bool same, Worker& worker) {
  for (std::size_t i = 0; i < left.count; ++i) left.limits[i] = limit(left.places[i]);
  for (std::size_t j = 0; j < right.count; ++j) {
    right.limits[j] = limit(right.places[j]);
  }
  const auto judge = [&](std::size_t i, std::size_t j, float value) {
    const std::uint32_t u = left.places[i];
    const std::uint32_t v = right.places[j];
    // Limits may have fallen since the tile looked at them.
    const bool first = value < limit(u);
    const bool second = value < limit(v);
    if (!first && !second) return;
    const float key = settle(u, v, value, worker);
    if (first) {
      give(u, key, cells_.order[v], worker.lists);
      left.limits[i] = limit(u);
    }
    if (second) {
      give(v, key, cells_.order[u], worker.lists);
      right.limits[j] = limit(v);
    }
  };
  meet(left, right, same, judge);
}

void Knn::meet_cells(std::uint32_t a, std::uint32_t b, Worker& worker) {
  if (worker.loaded != a) {
    load(worker.left, -2.0f, cells_.begins[a], cells_.begins[a + 1]);
    worker.loaded = a;
  }
  load(worker.right, 1.0f, cells_.begins[b], cells_.begins[b + 1]);
  meet_both(worker.left, worker.right, a == b, worker);
}

void Knn::load_some(Side& side, float factor, const std::uint32_t* places,
                    std::size_t count) const {
  const std::size_t width = rows_.width();
  side.rows.resize(count * width);
  constexpr std::size_t kAhead = 8;
  for (std::size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) {
      const std::uint32_t next = places[i + kAhead];
      rows_.prefetch(next);
      prefetch(&limits_[next]);
      prefetch(&sketch_.shares[next]);
      prefetch(lists_.count(next));
    }
    rows_.copy(places[i], side.rows.data() + i * width);
  }
  side.count = count;
  side.panels.pack({side.rows.data(), count, width, width}, {.factor = factor});
  const std::size_t padded = side.panels.padded();
  side.places.assign(places, places + count);
  side.shares.assign(padded, kInfinity);
  side.limits.assign(padded, -kInfinity);
  for (std::size_t i = 0; i < count; ++i) side.shares[i] = sketch_.shares[places[i]];
}

void Knn::meet_pairs(const CellPair* pairs, std::size_t count, Monitor* monitor) {
  std::vector<Worker> workers(options_.threads);
  // In stretches sorted by their first cell, which then need not be loaded each time.
  const std::size_t stretch = 16 * cells_.count();
  std::vector<CellPair> some;
  for (std::size_t begin = 0; begin < count; begin += stretch) {
    some.assign(pairs + begin, pairs + std::min(count, begin + stretch));
    std::sort(some.begin(), some.end(), [](const CellPair& x, const CellPair& y) {
      return std::tuple(x.a, x.rank, x.b) < std::tuple(y.a, y.rank, y.b);
    });
    parallel_for(
        some.size(), options_.threads, 8,
        [&](std::size_t first, std::size_t last, std::size_t number) {
          for (std::size_t p = first; p < last; ++p) {
            meet_cells(some[p].a, some[p].b, workers[number]);
          }
        },
        monitor);
  }
}

// --- the sample ----------------------------------------------------------------------

void Knn::find_truth(Monitor* monitor) {
  const std::size_t count = std::min(n_, kSample);
  const std::vector<std::uint32_t> drawn =
      codec::draw_distinct(n_, count, options_.seed, 0x73616d);
  sample_.assign(drawn.begin(), drawn.end());
  truth_.assign(count * k_, NearLists::kNobody);
  // Divided by sample: each thread has lists of its own.
  parallel_for(
      count, options_.threads, 64,
      [&](std::size_t first, std::size_t last, std::size_t) {
        Worker worker;
        Side& left = worker.left;
        load_some(left, -2.0f, sample_.data() + first, last - first);
        std::fill_n(left.limits.begin(), left.count, kInfinity);
        for (std::size_t c = 0; c < cells_.count(); ++c) {
          load(worker.right, 1.0f, cells_.begins[c], cells_.begins[c + 1]);
          meet(left, worker.right, false,
               [&](std::size_t i, std::size_t j, float value) {
                 const std::uint32_t u = left.places[i];
                 const std::uint32_t v = worker.right.places[j];
                 if (u == v || !(value < left.limits[i])) return;
                 Entry* list = truth_.data() + (first + i) * k_;
                 const Entry entry = NearLists::entry(
                     sketch_.projected
                         ? distance(cells_.order[u], cells_.order[v], worker)
                         : settle(u, v, value, worker),
                     cells_.order[v]);
                 std::size_t at = k_;
                 for (; at != 0 && entry < list[at - 1]; --at) {
                   if (at != k_) list[at] = list[at - 1];
                 }
                 if (at == k_) return;
                 list[at] = entry;
                 if (list[k_ - 1] != NearLists::kNobody) {
                   left.limits[i] = low_limit(NearLists::key_of(list[k_ - 1]));
                 }
               });
        }
      },
      monitor);
}

// The share of the sample's first k edges that the lists hold.
double Knn::recall() const {
  std::size_t found = 0;
  for (std::size_t s = 0; s < sample_.size(); ++s) {
    for (std::size_t i = 0; i < k_; ++i) {
      const std::uint32_t slot = NearLists::slot_of(truth_[s * k_ + i]);
      for (std::size_t j = 0; j < lists_.size(sample_[s]); ++j) {
        found += NearLists::slot_of(lists_.at(sample_[s], j)) == slot ? 1 : 0;
      }
    }
  }
  return static_cast<double>(found) / static_cast<double>(k_ * sample_.size());
}

// What a sketch leaves out of two neighbours is at some angle, not parallel as the
// bound must assume. From here on a value is the distance if that angle is what it is
// for most of the sample's edges: an estimate, by which more neighbours are kept than
// are wanted.
void Knn::expect_angles() {
  if (!sketch_.projected) return;
  const std::size_t width = sketch_.width;
  std::vector<float> cosines, own(width), other(width);
  for (std::size_t s = 0; s < sample_.size(); ++s) {
    const float* x = rows_.read(sample_[s], own.data());
    for (std::size_t i = 0; i < k_; ++i) {
      const Entry entry = truth_[s * k_ + i];
      const float* y = rows_.read(place_[NearLists::slot_of(entry)], other.data());
      const double a = x[width - 1];
      const double b = y[width - 1];
      const double along = squared_distance(x, y, width) - (a - b) * (a - b);
      cosines.push_back(
          static_cast<float>((along + a * a + b * b - NearLists::key_of(entry)) /
                             std::max(2 * a * b, 1e-30)));
    }
  }
  const auto middle = cosines.begin() + static_cast<std::ptrdiff_t>(cosines.size() / 2);
  std::nth_element(cosines.begin(), middle, cosines.end());
  rows_.scale_last(std::sqrt(std::clamp(*middle, 0.0f, 1.0f)));
}

// By how much the mean of a cell is farther from a vector than that of its own, in
// squares.
float Knn::detour(std::uint32_t place, std::uint32_t cell) const {
  std::vector<float> scratch(rows_.width());
  const float* row = rows_.read(place, scratch.data());
  const auto far = [&](std::uint32_t c) {
    return squared_distance(row, rows_.mean(c), rows_.width());
  };
  return far(cell) - far(rows_.cell_of(place));
}

Knn::Plan Knn::make_plan() const {
  struct Edge {
    float detour;
    std::uint32_t from;  // cells
    std::uint32_t to;
  };
  std::vector<Edge> edges;
  std::size_t found = 0;
  for (std::size_t s = 0; s < sample_.size(); ++s) {
    const std::uint32_t u = sample_[s];
    for (std::size_t i = 0; i < k_; ++i) {
      const std::uint32_t v = place_[NearLists::slot_of(truth_[s * k_ + i])];
      const std::uint32_t a = rows_.cell_of(u);
      const std::uint32_t b = rows_.cell_of(v);
      if (a == b) {
        ++found;
        continue;
      }
      // Either may visit the other.
      const Edge there{detour(u, b), a, b};
      const Edge back{detour(v, a), b, a};
      edges.push_back(there.detour <= back.detour ? there : back);
    }
  }
  std::sort(edges.begin(), edges.end(),
            [](const Edge& x, const Edge& y) { return x.detour < y.detour; });
  const auto needed = static_cast<std::size_t>(
      std::ceil((options_.recall + kReserve * (1 - options_.recall)) *
                static_cast<double>(k_ * sample_.size())));
  Plan plan;
  plan.reach = -kInfinity;
  for (std::size_t e = 0; e + found < needed; ++e) {
    const std::uint32_t* list = nearest_.data() + edges[e].from * neighbours_;
    const auto rank = static_cast<std::size_t>(
        std::find(list, list + neighbours_, edges[e].to) - list);
    plan.nearest = std::max(plan.nearest, std::min(rank + 1, neighbours_));
    plan.reach = std::max(plan.reach, edges[e].detour);
  }
  return plan;
}

// Those of the vectors of some cells.
Knn::Visits Knn::choose_visits(const Plan& plan, std::size_t first_cell,
                               std::size_t last_cell, Monitor* monitor) const {
  struct Visit {
    std::uint32_t cell;
    std::uint32_t place;
  };
  const std::size_t width = sketch_.width;
  const std::size_t nearest = plan.nearest;
  std::vector<std::vector<Visit>> chosen(last_cell - first_cell);
  parallel_for(
      chosen.size(), options_.threads, 4,
      [&](std::size_t first, std::size_t last, std::size_t) {
        Worker worker;
        Side& left = worker.left;
        Side& right = worker.right;
        std::vector<float> row(width);
        for (std::size_t number = first; number < last; ++number) {
          const std::size_t a = first_cell + number;
          const std::uint32_t begin = cells_.begins[a];
          load(left, -2.0f, begin, cells_.begins[a + 1]);
          const std::uint32_t* others = nearest_.data() + a * neighbours_;
          right.rows.resize(nearest * width);
          for (std::size_t r = 0; r < nearest; ++r) {
            std::copy_n(rows_.mean(others[r]), width, right.rows.data() + r * width);
          }
          right.count = nearest;
          right.panels.pack({right.rows.data(), nearest, width, width});
          right.shares.assign(right.panels.padded(), kInfinity);
          right.limits.assign(right.panels.padded(), -kInfinity);
          std::copy_n(right.panels.squares(), nearest, right.shares.begin());
          for (std::size_t i = 0; i < left.count; ++i) {
            const float* x = rows_.read(begin + i, row.data());
            const float own = squared_distance(x, rows_.mean(a), width);
            left.shares[i] = left.panels.squares()[i];
            // The tile rounds otherwise than detour().
            left.limits[i] = own + plan.reach + 1e-5f * (own + left.shares[i]);
          }
          meet(left, right, false, [&](std::size_t i, std::size_t j, float) {
            chosen[number].push_back(
                {others[j], begin + static_cast<std::uint32_t>(i)});
          });
        }
      },
      monitor);
  Visits visits;
  visits.begins.assign(cells_.count() + 1, 0);
  for (const auto& list : chosen) {
    for (const Visit& visit : list) ++visits.begins[visit.cell + 1];
  }
  for (std::size_t c = 0; c < cells_.count(); ++c) {
    visits.begins[c + 1] += visits.begins[c];
  }
  visits.places.resize(visits.begins.back());
  std::vector<std::uint64_t> next(visits.begins.begin(), visits.begins.end() - 1);
  for (const auto& list : chosen) {
    for (const Visit& visit : list) visits.places[next[visit.cell]++] = visit.place;
  }
  return visits;
}

void Knn::visit(const Visits& visits, Monitor* monitor) {
  std::vector<Worker> workers(options_.threads);
  parallel_for(
      cells_.count(), options_.threads, 1,
      [&](std::size_t first, std::size_t last, std::size_t number) {
        Worker& worker = workers[number];
        for (std::size_t c = first; c < last; ++c) {
          const std::uint64_t end = visits.begins[c + 1];
          if (visits.begins[c] == end) continue;
          load(worker.right, 1.0f, cells_.begins[c], cells_.begins[c + 1]);
          for (std::uint64_t at = visits.begins[c]; at < end; at += kVisitors) {
            const auto count =
                static_cast<std::size_t>(std::min<std::uint64_t>(end - at, kVisitors));
            load_some(worker.left, -2.0f, visits.places.data() + at, count);
            meet_both(worker.left, worker.right, false, worker);
          }
        }
      },
      monitor);
}

// --- the whole -----------------------------------------------------------------------

void Knn::run(Monitor* monitor, KnnGraph& out) {
  sort_into_cells(monitor);
  lists_ = NearLists(n_, kept_, rough());
  limits_ = std::vector<std::atomic<float>>(n_);
  for (auto& l : limits_) l.store(kInfinity, std::memory_order_relaxed);
  if (options_.threads > 1) locks_ = std::vector<std::mutex>(cells_.count());
  const std::size_t count = cells_.count();
  if (!all()) {
    find_truth(monitor);
    expect_angles();
  }
  std::vector<CellPair> own(count);
  for (std::uint32_t c = 0; c < count; ++c) own[c] = {0, c, c};
  meet_pairs(own.data(), count, monitor);
  neighbours_ = all() ? count - 1 : std::min(count - 1, kNearestCells);
  nearest_ = nearest_cells(rows_.means(), count, neighbours_, options_.threads);
  if (all()) {
    const std::vector<CellPair> pairs = rank_pairs(nearest_, count);
    meet_pairs(pairs.data(), pairs.size(), monitor);
  } else {
    const Plan plan = make_plan();
    const std::size_t at_once = std::max<std::size_t>(1, count / kVisitGroups);
    for (std::size_t c = 0; c < count && plan.nearest != 0; c += at_once) {
      visit(choose_visits(plan, c, std::min(count, c + at_once), monitor), monitor);
    }
  }
  parallel_for(n_, options_.threads, 1024,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 NearLists::Scratch scratch;
                 for (std::size_t p = begin; p < end; ++p) lists_.shrink(p, scratch);
               });
  out.recall = all() ? 1.0 : recall();
  out.k = options_.k;
  if (options_.settled) {
    write_settled(monitor, out);
  } else {
    out.slots = lists_.take_slots(out.k);
    out.places = std::move(place_);
  }
  out.order = std::move(cells_.order);
}

// The lists in order of slot, by distances between whole vectors.
void Knn::write_settled(Monitor* monitor, KnnGraph& out) {
  out.slots = AlignedBuffer(n_ * out.k * sizeof(std::uint32_t));
  auto* slots = reinterpret_cast<std::uint32_t*>(out.slots.data());
  std::fill_n(slots, n_ * out.k, kNoSlot);
  out.keys.assign(n_ * out.k, kInfinity);
  parallel_for(
      n_, options_.threads, 256,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        Worker worker;
        std::vector<Entry> list;
        for (std::size_t p = begin; p < end; ++p) {
          const std::uint32_t slot = cells_.order[p];
          list.resize(lists_.size(p));
          for (std::size_t i = 0; i < list.size(); ++i) list[i] = lists_.at(p, i);
          if (!all()) {
            for (std::size_t i = 0; i < list.size(); ++i) {
              if (i + 1 < list.size() && plain_.data != nullptr) {
                prefetch_run(plain_.row(NearLists::slot_of(list[i + 1])),
                             dim_ * sizeof(float));
              }
              const std::uint32_t other = NearLists::slot_of(list[i]);
              list[i] = NearLists::entry(distance(slot, other, worker), other);
            }
            std::sort(list.begin(), list.end());
          }
          const std::size_t to = slot * out.k;
          for (std::size_t i = 0; i < std::min(k_, list.size()); ++i) {
            slots[to + i] = NearLists::slot_of(list[i]);
            out.keys[to + i] = NearLists::key_of(list[i]);
          }
        }
      },
      monitor);
}

}  // namespace

KnnGraph build_knn(const KnnSource& source, const KnnOptions& options,
                   Monitor* monitor) {
  KnnGraph graph;
  const std::size_t n = source.count();
  if (n >= std::size_t{1} << 31) return graph;
  if (n < 2) {
    graph.k = options.k;
    graph.slots = AlignedBuffer(n * options.k * sizeof(std::uint32_t));
    std::fill_n(reinterpret_cast<std::uint32_t*>(graph.slots.data()), n * options.k,
                kNoSlot);
    graph.keys.assign(n * options.k, kInfinity);
    graph.recall = 1;
    return graph;
  }
  KnnOptions checked = options;
  checked.threads = resolve_threads(options.threads);
  Sketch sketch =
      make_sketch(source, options.recall >= 1, options.seed, checked.threads, monitor);
  if (sketch.width == 0) return graph;
  Knn(source, checked, std::move(sketch)).run(monitor, graph);
  return graph;
}

}  // namespace annx::graph
