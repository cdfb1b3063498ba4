// SPDX-License-Identifier: Apache-2.0
// Second lists for an IvfIndex (Sun, Simcha, Dopson, Guo and Kumar, "SOAR: improved
// indexing for approximate nearest neighbor search", 2023). A row x with the residual
// r = x - c in its own list goes into a second one as well, that of the centroid c2
// with the least
//     |x - c2|^2 + spill <r / |r|, x - c2>^2 :
// a query misses the first list when it lies along r, and then the second residual
// should not point that way too. O(n_lists dim) a row.
#include <algorithm>
#include <cmath>
#include <limits>

#include "annx/index/ivf_scratch.h"
#include "annx/kernels/dispatch.h"

namespace annx::index {
namespace {

// Centroids that are looked at first, to know how far others can be.
constexpr std::size_t kNearest = 32;
// Rows that a thread takes at a time.
constexpr std::size_t kRowsTogether = 40 * kernels::kScorePoints;

}  // namespace

// cells[2 i] is the list of row i; sets cells[2 i + 1].
void IvfIndex::choose_second(const Trained& to, RowsView rows, DType dtype,
                             std::vector<std::uint32_t>& cells, std::size_t threads,
                             Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const MatrixView<float> centroids = to.coarse.centroids();
  const std::size_t lists = centroids.rows;
  const auto* base = reinterpret_cast<const std::byte*>(centroids.data);
  const auto gather = kernels::active().float_gather[kernels::kOpDot][0];
  const auto spill = static_cast<float>(options_.spill);
  // What <q, c> lacks for the distance.
  std::vector<float> squares(to.products ? lists : 0);
  if (to.products) {
    kernels::active().float_squares[0](base, dim * sizeof(float), lists, dim,
                                       squares.data());
  }
  parallel_for(
      rows.rows, resolve_threads(threads), kRowsTogether,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const ScratchPool<Scratch>::Lease lease(scratch_);
        Scratch& scratch = *lease;
        std::vector<float> residual(dim), dots;
        for (std::size_t at = begin; at < end; at += kernels::kScorePoints) {
          const std::size_t part = std::min(kernels::kScorePoints, end - at);
          score_lists(to, scratch, rows, dtype, at, part);
          for (std::size_t r = 0; r < part; ++r) {
            const float* x = scratch.vectors.data() + r * dim;
            float* keys = scratch.list_keys.data() + r * scratch.stride;
            if (to.products) {
              // From -<x, c> to |c|^2 - 2 <x, c>; the mean is 0.
              for (std::size_t l = 0; l < lists; ++l) {
                keys[l] = squares[l] + 2 * keys[l];
              }
            }
            const std::uint32_t own = cells[2 * (at + r)];
            float square = 0;
            float along = 0;
            for (std::size_t k = 0; k < dim; ++k) {
              residual[k] = x[k] - centroids.row(own)[k];
              square += residual[k] * residual[k];
              along += residual[k] * x[k];
            }
            const float share = square > 0 ? spill / square : 0.0f;
            // Where no loss is a number, the list after its own.
            auto second = static_cast<std::uint32_t>((own + 1) % lists);
            float best = std::numeric_limits<float>::infinity();
            const auto look = [&] {
              dots.resize(scratch.probes.size());
              gather(residual.data(), base, dim * sizeof(float), scratch.probes.data(),
                     dots.size(), dim, dots.data());
              for (std::size_t p = 0; p < dots.size(); ++p) {
                const std::uint32_t list = scratch.probes[p];
                const float across = along - dots[p];
                const float loss = std::max(0.0f, keys[list] + scratch.squares[r]) +
                                   share * across * across;
                if (list == own || loss > best || (loss == best && list > second)) {
                  continue;
                }
                best = loss;
                second = list;
              }
            };
            scratch.choose(r, lists, std::min(kNearest, lists), false);
            look();
            // No loss is below its distance: of the others these can be less.
            const float limit = best - scratch.squares[r];
            if (keys[scratch.probes.back()] <= limit) {
              scratch.probes.clear();
              for (std::size_t l = 0; l < lists; ++l) {
                if (keys[l] <= limit) {
                  scratch.probes.push_back(static_cast<std::uint32_t>(l));
                }
              }
              look();
            }
            cells[2 * (at + r) + 1] = second;
          }
        }
      },
      monitor);
}

// Keeps one of the candidates that are codes of the same row: that of the list that is
// nearer, whose estimate is the better.
void IvfIndex::Scratch::drop_doubles(const storage::CodeLists& lists) {
  constexpr std::uint32_t kFree = 0xFFFFFFFFu;
  std::size_t room = 64;
  while (room < 2 * size) room *= 2;
  seen.assign(room, kFree);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t slot = lists.slot(places[i]) >> 1;
    std::size_t at = slot * std::size_t{0x9E3779B1u} & (room - 1);
    while (seen[at] != kFree && seen[at] != slot) at = (at + 1) & (room - 1);
    if (seen[at] == slot) continue;
    seen[at] = slot;
    keys[kept] = keys[i];
    places[kept] = places[i];
    origins[kept] = origins[i];
    ++kept;
  }
  size = kept;
}

}  // namespace annx::index
