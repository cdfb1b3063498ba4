// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/heads.h"

#include <algorithm>
#include <limits>

#include "annx/base/parallel.h"
#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::graph {
namespace {

// So many candidates are drawn for each head; and at most so many are looked at.
constexpr std::size_t kDrawn = 16;
constexpr std::size_t kMostCandidates = 8192;
constexpr std::size_t kRange = 512;

}  // namespace

void spread(const codec::RowCodec& rows, std::span<const std::uint32_t> candidates,
            std::size_t count, std::size_t threads, std::vector<std::uint32_t>& heads) {
  const auto distances = kernels::active().float_rows[kernels::kOpL2][0];
  const std::size_t dim = rows.dim();
  const std::size_t n = candidates.size();
  if (heads.size() >= count || n == 0) return;
  std::vector<float> vectors(n * dim), head(dim);
  std::vector<float> least(n, std::numeric_limits<float>::infinity());
  parallel_for(n, threads, kRange,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) {
                   rows.vector(candidates[i], vectors.data() + i * dim);
                 }
               });
  for (std::size_t number = 0;; ++number) {
    rows.vector(heads[number], head.data());
    parallel_for(
        n, threads, kRange, [&](std::size_t begin, std::size_t end, std::size_t) {
          float fresh[kRange];
          distances(head.data(),
                    reinterpret_cast<const std::byte*>(vectors.data() + begin * dim),
                    dim * sizeof(float), end - begin, dim, fresh);
          for (std::size_t i = begin; i < end; ++i) {
            least[i] = std::min(least[i], fresh[i - begin]);
          }
        });
    if (number + 1 < heads.size()) continue;
    const auto farthest = std::max_element(least.begin(), least.end());
    if (!(*farthest > 0)) return;
    heads.push_back(candidates[static_cast<std::size_t>(farthest - least.begin())]);
    if (heads.size() == count) return;
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

std::vector<std::uint32_t> choose_heads(const codec::RowCodec& rows,
                                        const std::vector<Level>& levels,
                                        std::size_t count, std::size_t threads) {
  const Level& level = levels[levels.size() > 1 ? 1 : 0];
  const std::size_t size = level.slots.empty() ? rows.size() : level.slots.size();
  std::vector<std::uint32_t> candidates(std::min(size, kMostCandidates));
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = level.slot(i * size / candidates.size());
  }
  std::vector<std::uint32_t> heads = {0};
  spread(rows, candidates, count, threads, heads);
  return heads;
}

}  // namespace annx::graph
