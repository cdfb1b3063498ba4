// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/id_map.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "annx/base/error.h"
#include "annx/base/random.h"

namespace annx::storage {
namespace {

constexpr std::int64_t kMaxId = std::numeric_limits<std::int64_t>::max() - 1;

[[noreturn]] void repeated(std::int64_t id, const char* where) {
  throw InvalidArgument("ids holds " + std::to_string(id) + " " + where +
                        "; ids must be unique");
}

// The first repeated value, by a sorted copy; strictly rising ids need none.
void check_unique(std::span<const std::int64_t> ids) {
  bool rising = true;
  for (std::size_t i = 1; i < ids.size() && rising; ++i) rising = ids[i - 1] < ids[i];
  if (rising) return;
  std::vector<std::int64_t> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) repeated(*twice, "more than once");
}

}  // namespace

void IdMap::check(std::size_t count, const std::int64_t* ids) const {
  if (count > kMaxSlots - slots_) {
    throw InvalidArgument("the index would hold " + std::to_string(slots_ + count) +
                          " vectors; it can hold " + std::to_string(kMaxSlots));
  }
  if (ids == nullptr) {
    // From next_id_ to kMaxId; none where next_id_ has passed it.
    if (count > static_cast<std::size_t>(kMaxId + 1 - next_id_)) {
      throw InvalidArgument("no automatic ids are left above " +
                            std::to_string(next_id_));
    }
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] > kMaxId) {
      throw InvalidArgument("ids holds " + std::to_string(ids[i]) +
                            "; ids must be >= 0 and below 2^63 - 1");
    }
    if (size_ != 0 && contains(ids[i])) repeated(ids[i], "which the index has already");
  }
  check_unique({ids, count});
}

void IdMap::reserve(std::size_t count) {
  if (ids_.empty()) return;
  ids_.reserve(slots_ + count);
  rehash(size_ + count);
}

std::uint32_t IdMap::append(std::size_t count, const std::int64_t* ids) {
  check(count, ids);
  const auto first = static_cast<std::uint32_t>(slots_);
  if (count == 0) return first;
  bool same = ids_.empty();
  if (same && ids == nullptr) {
    same = next_id_ == static_cast<std::int64_t>(slots_);
  } else if (same) {
    for (std::size_t i = 0; i < count && same; ++i) {
      same = ids[i] == static_cast<std::int64_t>(slots_ + i);
    }
  }
  if (same) {
    slots_ += count;
    size_ += count;
    next_id_ = std::max(next_id_, static_cast<std::int64_t>(slots_));
    return first;
  }
  if (ids_.empty()) {
    ids_.reserve(slots_ + count);
    materialize();
  }
  rehash(size_ + count);  // everything that can fail for memory, before any change
  ids_.resize(slots_ + count);
  std::int64_t* stored = ids_.mutable_data() + slots_;
  if (ids != nullptr) {
    std::memcpy(stored, ids, count * sizeof *ids);
    next_id_ = std::max(next_id_, *std::max_element(ids, ids + count) + 1);
  } else {
    std::iota(stored, stored + count, next_id_);
    next_id_ += static_cast<std::int64_t>(count);
  }
  slots_ += count;
  size_ += count;
  for (std::size_t slot = first; slot < slots_; ++slot) {
    table_insert(static_cast<std::uint32_t>(slot));
  }
  return first;
}

std::uint32_t IdMap::find(std::int64_t id) const {
  if (ids_.empty()) {
    return id >= 0 && id < static_cast<std::int64_t>(slots_)
               ? static_cast<std::uint32_t>(id)
               : kNoSlot;
  }
  if (table_.empty() || id < 0) return kNoSlot;
  for (std::size_t at = home(id);; at = (at + 1) & (table_.size() - 1)) {
    if (table_[at] == kNoSlot || ids_[table_[at]] == id) return table_[at];
  }
}

std::uint32_t IdMap::slot_of(std::int64_t id) const {
  const std::uint32_t slot = find(id);
  if (slot == kNoSlot) {
    throw UnknownId("id " + std::to_string(id) + " is not in the index");
  }
  return slot;
}

SlotSet IdMap::slots_of(std::span<const std::int64_t> ids,
                        std::uint64_t version) const {
  SlotSet set(slots_, version);
  for (const std::int64_t id : ids) {
    const std::uint32_t slot = find(id);
    if (slot != kNoSlot) set.insert(slot);
  }
  return set;
}

std::vector<std::int64_t> IdMap::missing(std::span<const std::int64_t> ids) const {
  check_unique(ids);
  std::vector<std::int64_t> result;
  for (const std::int64_t id : ids) {
    if (!contains(id)) result.push_back(id);
  }
  check(result.size(), result.data());
  return result;
}

void IdMap::check_held(std::span<const std::int64_t> ids) const {
  check_unique(ids);
  for (const std::int64_t id : ids) slot_of(id);
}

std::uint32_t IdMap::remove(std::int64_t id) {
  const std::uint32_t slot = slot_of(id);
  if (ids_.empty()) materialize();
  std::int64_t* stored = ids_.mutable_data();
  table_erase(id);
  stored[slot] = kNoId;
  --size_;
  return slot;
}

void IdMap::assign(std::uint32_t slot, std::int64_t id) {
  if (id < 0 || id > kMaxId || contains(id)) {
    throw InvalidArgument("id " + std::to_string(id) + " cannot be given to a slot");
  }
  if (ids_.empty()) materialize();
  rehash(size_ + 1);
  ids_.mutable_data()[slot] = id;
  table_insert(slot);
  ++size_;
  next_id_ = std::max(next_id_, id + 1);
}

void IdMap::pop_into(std::uint32_t slot) {
  const auto last = static_cast<std::uint32_t>(slots_ - 1);
  if (ids_.empty()) materialize();
  const std::int64_t moved = ids_[last];
  if (moved != kNoId && last != slot) {
    table_erase(moved);
    ids_.mutable_data()[slot] = moved;
    ids_.mutable_data()[last] = kNoId;
    table_insert(slot);
  } else if (moved != kNoId) {
    table_erase(moved);
    --size_;
  }
  --slots_;
  ids_.resize(slots_);
}

void IdMap::truncate(std::size_t count) {
  if (count >= slots_) return;
  if (ids_.empty()) {
    size_ = slots_ = count;
    // next_id_ stays: ids that were seen once are not given again. The next automatic
    // id then differs from its slot, which append() notices.
    return;
  }
  for (std::size_t slot = count; slot < slots_; ++slot) {
    if (ids_[slot] == kNoId) continue;
    table_erase(ids_[slot]);
    --size_;
  }
  slots_ = count;
  ids_.resize(count);
}

void IdMap::copy_ids(std::int64_t* out) const {
  if (!ids_.empty()) {
    std::memcpy(out, ids_.data(), slots_ * sizeof *out);
  } else {
    std::iota(out, out + slots_, std::int64_t{0});
  }
}

std::size_t IdMap::copy_ids(std::int64_t* out, std::size_t room) const {
  const std::size_t count = std::min(room, slots_);
  for (std::size_t slot = 0; slot < count; ++slot) {
    out[slot] = id_of(static_cast<std::uint32_t>(slot));
  }
  return count;
}

std::size_t IdMap::memory_bytes() const {
  return ids_.held_bytes() + table_.capacity() * sizeof(std::uint32_t);
}

IdMap IdMap::restore(std::size_t slots, std::int64_t next_id, Array<std::int64_t> ids) {
  const auto damaged = [](const char* why) {
    throw FormatError(std::string("ids: ") + why);
  };
  IdMap map;
  if (slots > kMaxSlots || next_id < 0 || next_id > kMaxId + 1) damaged("out of range");
  map.slots_ = slots;
  map.size_ = slots;
  map.next_id_ = next_id;
  if (ids.empty()) {
    if (next_id < static_cast<std::int64_t>(slots))
      damaged("next id below an id in use");
    return map;
  }
  if (ids.size() != slots) damaged("count differs from the rows'");
  map.size_ = 0;
  map.ids_ = std::move(ids);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const std::int64_t id = map.ids_[slot];
    if (id < kNoId || id >= next_id) damaged("out of range");
    map.size_ += id != kNoId ? 1u : 0u;
  }
  const std::size_t live = map.size_;
  map.table_.clear();
  map.rehash(live);
  std::size_t found = 0;
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const std::int64_t id = map.ids_[slot];
    if (id == kNoId) continue;
    found += map.find(id) == static_cast<std::uint32_t>(slot) ? 1u : 0u;
  }
  if (found != live) damaged("an id appears twice");
  return map;
}

void IdMap::save_to(FileWriter& writer) const {
  writer.number("next_id", static_cast<std::uint64_t>(next_id_));
  writer.number("identity", ids_.empty() ? 1 : 0);
  if (!ids_.empty()) writer.add("ids", ids_.bytes());
}

IdMap IdMap::load_from(const FileReader& reader, std::size_t slots) {
  const auto next_id = static_cast<std::int64_t>(
      reader.number("next_id", 0, std::numeric_limits<std::int64_t>::max()));
  Array<std::int64_t> ids;
  if (reader.number("identity", 0, 1) == 0) {
    ids = reader.array<std::int64_t>("ids", slots);
  }
  IdMap map;
  try {
    map = restore(slots, next_id, std::move(ids));
  } catch (const FormatError& error) {
    reader.fail("ids", error.what());
  }
  reader.require(map.size() == slots, "ids", "a slot without an id");
  return map;
}

void IdMap::materialize() {
  Array<std::int64_t> ids;
  ids.reserve(
      std::max<std::size_t>(ids_.capacity_bytes() / sizeof(std::int64_t), slots_));
  ids.resize(slots_);
  std::iota(ids.mutable_data(), ids.mutable_data() + slots_, std::int64_t{0});
  ids_ = std::move(ids);
  table_.clear();
  rehash(size_);
}

// At most three quarters full for `entries`, counting those held.
void IdMap::rehash(std::size_t entries) {
  std::size_t capacity = std::max<std::size_t>(table_.size(), 16);
  while (entries > capacity / 4 * 3) capacity *= 2;
  if (capacity == table_.size()) return;
  table_ = std::vector<std::uint32_t>(capacity, kNoSlot);
  for (std::size_t slot = 0; slot < ids_.size(); ++slot) {
    if (ids_[slot] != kNoId) table_insert(static_cast<std::uint32_t>(slot));
  }
}

std::size_t IdMap::home(std::int64_t id) const {
  return mix64(static_cast<std::uint64_t>(id)) & (table_.size() - 1);
}

void IdMap::table_insert(std::uint32_t slot) {
  std::size_t at = home(ids_[slot]);
  while (table_[at] != kNoSlot) at = (at + 1) & (table_.size() - 1);
  table_[at] = slot;
}

// Closes the gap by moving back every entry whose probe passed over it, so that lookups
// never meet a tombstone.
void IdMap::table_erase(std::int64_t id) {
  const std::size_t mask = table_.size() - 1;
  std::size_t gap = home(id);
  while (ids_[table_[gap]] != id) gap = (gap + 1) & mask;
  for (std::size_t at = (gap + 1) & mask; table_[at] != kNoSlot; at = (at + 1) & mask) {
    const std::size_t from = home(ids_[table_[at]]);
    if (((at - from) & mask) >= ((at - gap) & mask)) {
      table_[gap] = table_[at];
      gap = at;
    }
  }
  table_[gap] = kNoSlot;
}

}  // namespace annx::storage
