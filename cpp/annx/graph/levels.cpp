// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/levels.h"

#include <algorithm>
#include <utility>

#include "annx/base/disjoint_sets.h"
#include "annx/codec/kmeans.h"

namespace annx::graph {
namespace {

// A level holds one in so many rows of the level below.
constexpr std::size_t kSampled = 16;
// And so many of each component of it, or all. Four of at least far_k + 1 rows, and a
// sixteenth: a level is always much smaller than the one below.
constexpr std::size_t kPerComponent = 4;
// Levels end with one that hangs together and has at most so many rows: about as many
// as a search begins from.
constexpr std::size_t kTopRows = 256;

class LevelRows final : public KnnSource {
 public:
  LevelRows(const codec::RowCodec& rows, const Level& level)
      : rows_(rows), level_(level) {}
  std::size_t count() const override {
    return level_.slots.empty() ? rows_.size() : level_.slots.size();
  }
  std::size_t dim() const override { return rows_.dim(); }
  void vector(std::uint32_t place, float* out) const override {
    rows_.vector(level_.slot(place), out);
  }

 private:
  const codec::RowCodec& rows_;
  const Level& level_;
};

// The slots of the level above `level`, of `count` rows; none if that is the last.
std::vector<std::uint32_t> sample_of(const Level& level, std::size_t count,
                                     std::uint64_t seed, std::size_t stream) {
  DisjointSets components(count);
  for (std::size_t i = 0; i < count; ++i) {
    for (const std::uint32_t near : level.near.list(i)) {
      if (near != kNoSlot) components.join(static_cast<std::uint32_t>(i), near);
    }
  }
  std::vector<char> drawn(count);
  for (const std::uint32_t place :
       codec::draw_distinct(count, count / kSampled, seed, stream)) {
    drawn[place] = 1;
  }
  // A component is known by its least row, which therefore comes first.
  std::vector<std::uint32_t> held(count);
  std::size_t roots = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t root = components.root(i);
    if (root == i) ++roots;
    if (drawn[i] != 0) ++held[root];
  }
  std::vector<std::uint32_t> slots;
  if (roots == 1 && count <= kTopRows) return slots;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t root = components.root(i);
    const bool needed = held[root] < kPerComponent && drawn[i] == 0;
    if (needed) ++held[root];
    if (needed || drawn[i] != 0) slots.push_back(level.slot(i));
  }
  return slots;
}

}  // namespace

std::vector<Level> find_levels(const codec::RowCodec& rows, const LevelOptions& options,
                               KnnGraph near, Monitor* monitor) {
  std::vector<Level> levels(1);
  levels[0].near = std::move(near);
  KnnOptions search;
  search.k = options.k;
  search.recall = options.recall;
  search.seed = options.seed;
  search.threads = options.threads;
  search.settled = false;
  for (;;) {
    Level& level = levels.back();
    const LevelRows source(rows, level);
    if (level.near.k == 0) level.near = build_knn(source, search, monitor);
    if (level.near.k == 0) return {};
    Level above;
    above.slots = sample_of(level, source.count(), options.seed, levels.size());
    if (above.slots.empty()) return levels;
    levels.push_back(std::move(above));
    search.k = options.far_k;
  }
}

}  // namespace annx::graph
