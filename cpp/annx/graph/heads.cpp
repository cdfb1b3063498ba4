// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/heads.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "annx/base/parallel.h"
#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::graph {
namespace {

// Entries besides slot 0.
constexpr std::size_t kMostEntries = 64;
// So many candidates are drawn for each head; and at most so many are looked at.
constexpr std::size_t kDrawn = 16;
constexpr std::size_t kMostCandidates = 65536;
constexpr std::size_t kRange = 512;

// A candidate, and how far it is from the nearest of the heads that it has met.
struct Waiting {
  float far = std::numeric_limits<float>::infinity();
  std::size_t met = 0;
  std::size_t place = 0;

  void meet(const float* row, const float* heads, std::size_t count, std::size_t dim,
            std::vector<float>& fresh) {
    fresh.resize(count - met);
    kernels::active().float_rows[kernels::kOpL2][0](
        row, reinterpret_cast<const std::byte*>(heads + met * dim), dim * sizeof(float),
        count - met, dim, fresh.data());
    for (const float distance : fresh) far = std::min(far, distance);
    met = count;
  }
  // The first of those that are equally far is the greatest.
  bool operator<(const Waiting& other) const {
    return far != other.far ? far < other.far : place > other.place;
  }
};

// Up to `most` slots of a level, of all `rows` if it is the lowest.
std::vector<std::uint32_t> evenly(const Level& level, std::size_t rows,
                                  std::size_t most) {
  const std::size_t size = level.slots.empty() ? rows : level.slots.size();
  std::vector<std::uint32_t> slots(std::min(size, most));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i] = level.slot(i * size / slots.size());
  }
  return slots;
}

}  // namespace

std::size_t entries_of(std::size_t rows) {
  // Few enough that they cost less than the hops they save.
  return 1 + std::min(kMostEntries, rows / 16);
}

void spread(const codec::RowCodec& rows, std::span<const std::uint32_t> candidates,
            std::size_t count, std::size_t threads, std::vector<std::uint32_t>& heads) {
  const std::size_t dim = rows.dim();
  const std::size_t n = candidates.size();
  if (heads.size() >= count || n == 0) return;
  std::vector<float> vectors(count * dim);
  for (std::size_t h = 0; h < heads.size(); ++h) {
    rows.vector(heads[h], vectors.data() + h * dim);
  }
  // Distances only shrink as heads come, so what a candidate had with fewer of them, at
  // first with one, says how far it may be at most. Most are never asked for the rest.
  std::vector<Waiting> waiting(n);
  parallel_for(n, threads, kRange,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 std::vector<float> row(dim), fresh;
                 for (std::size_t i = begin; i < end; ++i) {
                   rows.vector(candidates[i], row.data());
                   waiting[i].place = i;
                   waiting[i].meet(row.data(), vectors.data(), 1, dim, fresh);
                 }
               });
  std::make_heap(waiting.begin(), waiting.end());
  std::vector<float> row(dim), fresh;
  while (heads.size() < count && waiting.front().far > 0) {
    std::pop_heap(waiting.begin(), waiting.end());
    Waiting& farthest = waiting.back();
    const std::uint32_t slot = candidates[farthest.place];
    rows.vector(slot, row.data());
    if (farthest.met == heads.size()) {
      std::copy_n(row.data(), dim, vectors.data() + heads.size() * dim);
      heads.push_back(slot);
      farthest.far = 0;
    } else {
      farthest.meet(row.data(), vectors.data(), heads.size(), dim, fresh);
    }
    std::push_heap(waiting.begin(), waiting.end());
  }
}

void spread_drawn(const codec::RowCodec& rows, std::size_t rows_used,
                  std::uint64_t seed, std::size_t count, std::size_t threads,
                  std::vector<std::uint32_t>& heads) {
  if (rows_used == 0) return;
  if (heads.empty()) heads.push_back(0);
  const Random random(seed, rows_used);
  std::vector<std::uint32_t> drawn(kDrawn * count);
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    drawn[i] = static_cast<std::uint32_t>(random.below(i, rows_used));
  }
  std::sort(drawn.begin(), drawn.end());
  drawn.erase(std::unique(drawn.begin(), drawn.end()), drawn.end());
  spread(rows, drawn, count, threads, heads);
}

std::vector<std::uint32_t> choose_entries(const codec::RowCodec& rows,
                                          const std::vector<Level>& levels,
                                          std::size_t count, std::size_t threads) {
  std::vector<std::uint32_t> entries = {0};
  const Level& level = levels[levels.size() > 1 ? 1 : 0];
  spread(rows, evenly(level, rows.size(), kMostCandidates), count, threads, entries);
  return entries;
}

std::vector<std::uint32_t> choose_heads(const codec::RowCodec& rows,
                                        const std::vector<Level>& levels,
                                        std::size_t count, std::size_t threads,
                                        std::vector<std::uint32_t> entries) {
  std::vector<std::uint32_t> candidates =
      evenly(levels[0], rows.size(), kMostCandidates / 2);
  if (levels.size() > 1) {
    const auto others = evenly(levels[1], rows.size(), kMostCandidates / 2);
    candidates.insert(candidates.end(), others.begin(), others.end());
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  spread(rows, candidates, count, threads, entries);
  return entries;
}

}  // namespace annx::graph
