// SPDX-License-Identifier: Apache-2.0
// graph/near_lists.h, graph/cell_rows.h, storage/half_rows.h: what all-pairs search
// keeps while it runs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "annx/base/random.h"
#include "annx/base/types.h"
#include "annx/graph/cell_rows.h"
#include "annx/graph/near_lists.h"
#include "annx/storage/half_rows.h"
#include "check.h"
#include "noise.h"

namespace annx::graph {
namespace {

// The key that a list with cut keys sorts by: nine bits of mantissa.
float cut_key(float key) {
  std::uint32_t bits;
  std::memcpy(&bits, &key, 4);
  bits &= ~((1u << 14) - 1);
  std::memcpy(&key, &bits, 4);
  return key;
}

ANNX_TEST(near_lists_keep_the_best_in_any_order) {
  constexpr std::uint32_t kLast = 0x7FFFFFFEu;
  for (const bool cut : {false, true}) {
    for (const std::size_t kept : {1u, 3u, 20u, 125u}) {
      NearLists lists(3, kept, cut);
      NearLists::Scratch scratch;
      std::vector<std::vector<NearLists::Entry>> all(3);
      const Random random(kept, cut ? 1 : 0);
      for (std::size_t i = 0; i < 3000; ++i) {
        const std::size_t list = random.below(3 * i, 3);
        // Few different keys, so that ties and repeats come.
        const auto key = static_cast<float>(random.below(3 * i + 1, 200)) * 0.37f;
        const auto slot =
            kLast - static_cast<std::uint32_t>(random.below(3 * i + 2, 40));
        all[list].push_back(NearLists::entry(cut ? cut_key(key) : key, slot));
        if (lists.give(list, NearLists::entry(key, slot), scratch)) {
          // Whatever is left out from here on is no better than the last.
          std::sort(all[list].begin(), all[list].end());
          all[list].erase(std::unique(all[list].begin(), all[list].end()),
                          all[list].end());
          const float worst = NearLists::key_of(all[list][kept - 1]);
          CHECK(lists.last_key(list) >= worst);
          CHECK_EQ(cut ? cut_key(lists.last_key(list)) : lists.last_key(list), worst);
        }
      }
      for (std::size_t list = 0; list < 3; ++list) {
        lists.shrink(list, scratch);
        std::sort(all[list].begin(), all[list].end());
        all[list].erase(std::unique(all[list].begin(), all[list].end()),
                        all[list].end());
        CHECK_EQ(lists.size(list), std::min(kept, all[list].size()));
        for (std::size_t i = 0; i < lists.size(list); ++i) {
          CHECK_EQ(lists.at(list, i), all[list][i]);
        }
      }
    }
  }
}

ANNX_TEST(near_lists_hand_their_slots_over) {
  for (const bool cut : {false, true}) {
    for (const std::size_t k : {1u, 4u, 5u, 40u}) {  // more than are kept, too
      constexpr std::size_t kLists = 50000;          // more than a huge page
      NearLists lists(kLists, 5, cut);
      NearLists::Scratch scratch;
      for (std::size_t list = 0; list < kLists; ++list) {
        for (std::uint32_t i = 0; i < list % 8; ++i) {
          lists.give(list,
                     NearLists::entry(static_cast<float>(8 - i),
                                      static_cast<std::uint32_t>(list) + i),
                     scratch);
        }
        lists.shrink(list, scratch);
      }
      const AlignedBuffer slots = lists.take_slots(k);
      CHECK_EQ(slots.size(), kLists * k * sizeof(std::uint32_t));
      const auto* from = reinterpret_cast<const std::uint32_t*>(slots.data());
      for (std::size_t list = 0; list < kLists; ++list) {
        for (std::size_t i = 0; i < k; ++i) {
          const std::size_t held = std::min<std::size_t>(list % 8, 5);
          const std::uint32_t expected =
              i < held ? static_cast<std::uint32_t>(list + list % 8 - 1 - i) : kNoSlot;
          CHECK_EQ(from[list * k + i], expected);
        }
      }
    }
  }
}

ANNX_TEST(half_rows_keep_eleven_bits_of_any_magnitude) {
  const std::vector<float> units = random_floats(200, 3);
  for (const float scale : {1e-42f, 1e-30f, 1e-6f, 1.0f, 1e6f, 1e38f}) {
    for (const std::size_t width : {1u, 2u, 7u, 64u, 65u, 200u}) {
      std::vector<float> row(units.begin(),
                             units.begin() + static_cast<std::ptrdiff_t>(width));
      float most = 0;
      for (float& x : row) {
        x *= scale;
        most = std::max(most, std::abs(x));
      }
      std::vector<std::byte> bytes(storage::half_row_bytes(width));
      storage::put_half_row(row.data(), width, bytes.data());
      std::vector<float> back(width);
      storage::get_half_row(bytes.data(), width, back.data());
      for (std::size_t k = 0; k < width; ++k) {
        const float allowed =
            std::max(std::abs(row[k]) * 0x1.0p-11f, most * 0x1.0p-27f);
        CHECK(std::abs(back[k] - row[k]) <= std::max(allowed, 1.5e-45f));
      }
      // Twice is once, also in place.
      if (width == 1) continue;
      std::vector<float> place = row;
      auto* to = reinterpret_cast<std::byte*>(place.data());
      storage::put_half_row(place.data(), width, to);
      std::vector<float> again(width);
      storage::get_half_row(to, width, again.data());
      CHECK(again == back);
    }
  }
  const std::vector<float> zero(9);
  std::vector<std::byte> bytes(storage::half_row_bytes(9));
  std::vector<float> back(9, 1.0f);
  storage::put_half_row(zero.data(), 9, bytes.data());
  storage::get_half_row(bytes.data(), 9, back.data());
  CHECK(back == zero);
}

// Two cells far from one another and tight: halves still tell their rows apart.
ANNX_TEST(cell_rows_are_in_order_and_as_exact_as_their_cells_are_tight) {
  for (const std::size_t width : {1u, 13u, 128u}) {
    constexpr std::size_t kRows = 600;
    const std::vector<float> noise = random_floats(kRows * width, width);
    std::vector<float> rows(kRows * width);
    KnnCells cells;
    for (std::uint32_t i = 0; i < kRows; ++i) {
      cells.order.push_back((i * 7 + 3) % kRows);
      for (std::size_t k = 0; k < width; ++k) {
        // Even rows here, odd ones there.
        rows[i * width + k] =
            (i % 2 == 0 ? 100.0f : -100.0f) + 1e-3f * noise[i * width + k];
      }
    }
    std::stable_partition(cells.order.begin(), cells.order.end(),
                          [](std::uint32_t slot) { return slot % 2 == 0; });
    cells.begins = {0, kRows / 2, kRows};
    for (const bool halves : {false, true}) {
      AlignedBuffer buffer(rows.size() * sizeof(float));
      std::memcpy(buffer.data(), rows.data(), buffer.size());
      CellRows kept(std::move(buffer), width, cells, halves, 2);
      // Nothing is gained by halves of very short rows.
      CHECK_EQ(kept.halves(), halves && width > 2);
      // 100 in float32 is known to 8e-6; differences of 2e-3 by halves to 1e-6.
      const float allowed = kept.halves() ? 1.2e-5f : 0.0f;
      std::vector<float> row(width);
      for (std::size_t p = 0; p < kRows; ++p) {
        CHECK_EQ(kept.cell_of(p), p < kRows / 2 ? 0u : 1u);
        kept.copy(p, row.data());
        const float* expected = rows.data() + cells.order[p] * width;
        for (std::size_t k = 0; k < width; ++k) {
          CHECK(std::abs(row[k] - expected[k]) <= allowed);
        }
      }
      CHECK(std::abs(kept.mean(0)[0] - 100.0f) < 1e-2f);
      kept.scale_last(0.5f);
      kept.copy(5, row.data());
      const float last = rows[cells.order[5] * width + width - 1];
      CHECK(std::abs(row[width - 1] - 0.5f * last) <= allowed);
      CHECK(std::abs(kept.mean(0)[width - 1] - 50.0f) < 1e-2f);
    }
  }
}

}  // namespace
}  // namespace annx::graph
