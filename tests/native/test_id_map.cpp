// SPDX-License-Identifier: Apache-2.0
// storage::IdMap: against a plain map, under random changes; saved maps that are
// damaged.
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/storage/id_map.h"
#include "check.h"

namespace annx::storage {
namespace {

Array<std::int64_t> array_of(const std::vector<std::int64_t>& values) {
  Array<std::int64_t> array(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) array.mutable_data()[i] = values[i];
  return array;
}

ANNX_TEST(id_map_is_free_while_ids_equal_slots) {
  IdMap map;
  CHECK_EQ(map.append(3), 0u);
  const std::int64_t ids[] = {3, 4};
  CHECK_EQ(map.append(2, ids), 3u);
  CHECK(map.identity());
  CHECK_EQ(map.memory_bytes(), 0u);
  CHECK_EQ(map.next_id(), 5);
  CHECK_EQ(map.slot_of(4), 4u);
  CHECK_THROWS(map.slot_of(5), UnknownId);
  CHECK_THROWS(map.slot_of(-1), UnknownId);
}

ANNX_TEST(id_map_refuses_without_change) {
  IdMap map;
  map.append(2);
  const std::int64_t twice[] = {7, 8, 7};
  const std::int64_t held[] = {9, 1};
  const std::int64_t negative[] = {-1};
  CHECK_THROWS(map.append(3, twice), InvalidArgument);
  CHECK_THROWS(map.append(2, held), InvalidArgument);
  CHECK_THROWS(map.append(1, negative), InvalidArgument);
  CHECK_EQ(map.slots(), 2u);
  CHECK(map.identity());
}

ANNX_TEST(id_map_agrees_with_a_plain_map) {
  const Random random(7);
  std::uint64_t draw = 0;
  IdMap map;
  std::map<std::int64_t, std::uint32_t> truth;
  std::vector<std::int64_t> by_slot;
  for (int step = 0; step < 4000; ++step) {
    const std::uint64_t kind = random.below(draw++, 10);
    if (kind < 4 || by_slot.empty()) {
      const auto id = static_cast<std::int64_t>(random.below(draw++, 5000));
      if (truth.count(id) != 0) continue;
      CHECK_EQ(map.append(1, &id), by_slot.size());
      truth[id] = static_cast<std::uint32_t>(by_slot.size());
      by_slot.push_back(id);
    } else if (kind < 6) {
      const std::int64_t id = map.next_id();
      const std::uint32_t slot = map.append(1);
      CHECK_EQ(map.id_of(slot), id);
      truth[id] = slot;
      by_slot.push_back(id);
    } else if (kind < 9) {
      const std::size_t at = random.below(draw++, by_slot.size());
      const std::int64_t id = by_slot[at];
      CHECK_EQ(map.remove(id), at);
      CHECK(!map.contains(id));
      map.pop_into(static_cast<std::uint32_t>(at));
      truth.erase(id);
      if (at + 1 != by_slot.size())
        truth[by_slot.back()] = static_cast<std::uint32_t>(at);
      by_slot[at] = by_slot.back();
      by_slot.pop_back();
    } else {
      const std::size_t at = random.below(draw++, by_slot.size());
      const std::int64_t id = by_slot[at];
      map.remove(id);
      CHECK_EQ(map.id_of(static_cast<std::uint32_t>(at)), IdMap::kNoId);
      map.assign(static_cast<std::uint32_t>(at), id);
    }
    CHECK_EQ(map.size(), truth.size());
    CHECK_EQ(map.slots(), by_slot.size());
  }
  for (const auto& [id, slot] : truth) {
    CHECK_EQ(map.slot_of(id), slot);
    CHECK_EQ(map.id_of(slot), id);
  }
  map.truncate(by_slot.size() / 2);
  for (const auto& [id, slot] : truth) {
    CHECK_EQ(map.contains(id), slot < by_slot.size() / 2);
  }
}

ANNX_TEST(id_map_restores_what_was_saved_and_nothing_else) {
  IdMap map = IdMap::restore(4, 9, array_of({8, -1, 0, 3}));
  CHECK_EQ(map.size(), 3u);
  CHECK_EQ(map.slot_of(3), 3u);
  CHECK_EQ(map.append(1), 4u);
  CHECK_EQ(map.id_of(4), 9);
  CHECK_THROWS(IdMap::restore(4, 9, array_of({8, 8, 0, 3})), FormatError);
  CHECK_THROWS(IdMap::restore(4, 9, array_of({9, 1, 0, 3})), FormatError);
  CHECK_THROWS(IdMap::restore(4, 9, array_of({-2, 1, 0, 3})), FormatError);
  CHECK_THROWS(IdMap::restore(3, 9, array_of({8, 1, 0, 3})), FormatError);
  CHECK_THROWS(IdMap::restore(4, 3, {}), FormatError);
  CHECK_THROWS(IdMap::restore(4, -1, {}), FormatError);
}

}  // namespace
}  // namespace annx::storage
