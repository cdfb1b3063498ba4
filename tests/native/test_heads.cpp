// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "annx/base/types.h"
#include "annx/codec/row_codec.h"
#include "annx/graph/heads.h"
#include "annx/graph/levels.h"
#include "check.h"

namespace annx::graph {
namespace {

using Slots = std::vector<std::uint32_t>;

codec::RowCodec line(const std::vector<float>& places) {
  codec::RowCodec rows(1, Metric::kL2, DType::kFloat32);
  rows.append(reinterpret_cast<const std::byte*>(places.data()), sizeof(float),
              places.size());
  return rows;
}

Slots spread_of(const codec::RowCodec& rows, const Slots& candidates, std::size_t count,
                Slots heads) {
  spread(rows, candidates, count, 1, heads);
  return heads;
}

ANNX_TEST(heads_are_the_farthest_from_all_before) {
  const auto rows = line({0, 1, 9, 5, 5, 6, 0});
  CHECK(spread_of(rows, {1, 2, 3, 4, 5, 6}, 4, {0}) == Slots({0, 2, 3, 1}));
  CHECK(spread_of(rows, {1, 2, 3, 4, 5, 6}, 2, {0, 2}) == Slots({0, 2}));
  CHECK(spread_of(rows, {1, 3, 5}, 3, {0, 2}) == Slots({0, 2, 3}));
  // What equals a head is none.
  CHECK(spread_of(rows, {1, 2, 3, 4, 5, 6}, 100, {0}) == Slots({0, 2, 3, 1, 5}));
  CHECK(spread_of(rows, {0, 6}, 5, {0}) == Slots({0}));
  CHECK(spread_of(rows, {}, 5, {3}) == Slots({3}));
  const float most = std::numeric_limits<float>::max();
  CHECK(spread_of(line({most, -most, 0, 1}), {1, 2, 3}, 4, {0}) == Slots({0, 1, 2, 3}));
}

ANNX_TEST(heads_are_the_same_on_any_number_of_threads) {
  std::vector<float> places(3000);
  for (std::size_t i = 0; i < places.size(); ++i) {
    places[i] = static_cast<float>((i * i * 7919) % 10007);
  }
  const auto rows = line(places);
  Slots drawn[2];
  for (std::size_t threads = 1; threads <= 2; ++threads) {
    spread_drawn(rows, places.size(), 5, 100, threads, drawn[threads - 1]);
  }
  CHECK_EQ(drawn[0].size(), std::size_t{100});
  CHECK_EQ(drawn[0][0], 0u);
  CHECK(drawn[0] == drawn[1]);
  Slots none;
  spread_drawn(rows, 0, 5, 100, 1, none);
  CHECK(none.empty());
}

ANNX_TEST(entries_are_of_the_first_level_and_heads_of_all_rows) {
  const auto rows = line({0, 1, 2, 3, 4, 5, 6, 20});
  std::vector<Level> levels(1);
  CHECK(choose_entries(rows, levels, 2, 1) == Slots({0, 7}));
  levels.resize(3);
  levels[1].slots = {2, 5, 6};
  levels[2].slots = {5};
  CHECK(choose_entries(rows, levels, 1, 1) == Slots({0}));
  CHECK(choose_entries(rows, levels, 100, 1) == Slots({0, 6, 2, 5}));
  CHECK(choose_heads(rows, levels, 4, 1, {0, 6}) == Slots({0, 6, 7, 3}));
  CHECK_EQ(choose_heads(rows, levels, 100, 1, {0}).size(), std::size_t{8});
}

ANNX_TEST(heads_of_many_rows_are_evenly_of_all_and_of_the_first_level) {
  std::vector<float> places(20000);
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<float>(i);
  const auto rows = line(places);
  std::vector<Level> levels(2);
  for (std::uint32_t slot = 7; slot < 10000; slot += 2) {
    levels[1].slots.push_back(slot);
  }
  const Slots entries = choose_entries(rows, levels, 50, 1);
  CHECK_EQ(entries.size(), std::size_t{50});
  for (std::size_t i = 1; i < entries.size(); ++i) {
    CHECK(levels[1].place(entries[i]) != kNoSlot);
  }
  const Slots heads = choose_heads(rows, levels, 100, 1, entries);
  CHECK_EQ(heads.size(), std::size_t{100});
  for (std::size_t i = 0; i < 50; ++i) CHECK_EQ(heads[i], entries[i]);
  CHECK(*std::max_element(heads.begin(), heads.end()) > 19900);
}

}  // namespace
}  // namespace annx::graph
