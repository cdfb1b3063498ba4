// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/near_lists.h"

#include <algorithm>
#include <cstring>

#include "annx/base/types.h"

namespace annx::graph {
namespace {

constexpr std::size_t kLeastSpare = 16;

}  // namespace

NearLists::NearLists(std::size_t count, std::size_t kept, bool cut)
    : kept_(kept),
      cut_(cut),
      width_(cut ? 6 : 8),
      room_(kept + std::max(kLeastSpare, kept / (cut ? 4 : 2))),
      bytes_(count * room_ * width_),
      counts_(count),
      sorted_(count) {}

NearLists::Entry NearLists::at(std::size_t list, std::size_t i) const {
  const std::byte* from = bytes_.data() + place(list, i);
  if (!cut_) {
    Entry entry;
    std::memcpy(&entry, from, 8);
    return entry;
  }
  // The slot, with the lowest bit of the key on top, and the rest of the key.
  std::uint32_t low;
  std::uint16_t high;
  std::memcpy(&low, from, 4);
  std::memcpy(&high, from + 4, 2);
  const Entry key = Entry{high} << 1 | low >> kSlotBits;
  return key << (kSlotBits + kCutBits) | slot_of(low);
}

void NearLists::put(std::size_t list, std::size_t i, Entry entry) {
  std::byte* to = bytes_.data() + place(list, i);
  if (!cut_) {
    std::memcpy(to, &entry, 8);
    return;
  }
  const Entry key = entry >> (kSlotBits + kCutBits);
  const auto low = static_cast<std::uint32_t>(key << kSlotBits) | slot_of(entry);
  const auto high = static_cast<std::uint16_t>(key >> 1);
  std::memcpy(to, &low, 4);
  std::memcpy(to + 4, &high, 2);
}

bool NearLists::give(std::size_t list, Entry entry, Scratch& scratch) {
  put(list, counts_[list], entry);
  if (++counts_[list] < room_) return false;
  shrink(list, scratch);
  return counts_[list] == kept_;
}

void NearLists::shrink(std::size_t list, Scratch& scratch) {
  const std::size_t sorted = sorted_[list];
  std::vector<Entry>& fresh = scratch.fresh;
  fresh.clear();
  for (std::size_t i = sorted; i < counts_[list]; ++i) fresh.push_back(at(list, i));
  std::sort(fresh.begin(), fresh.end());
  fresh.push_back(kNobody);
  std::vector<Entry>& merged = scratch.merged;
  merged.resize(kept_);
  std::size_t old = 0;   // entries of the sorted part that are merged
  std::size_t same = 0;  // entries at the front that stay where they are
  std::size_t count = 0;
  Entry next = sorted != 0 ? at(list, 0) : kNobody;
  Entry last = kNobody;
  for (auto from = fresh.begin(); count < kept_;) {
    const bool takes_new = *from < next;
    const Entry entry = takes_new ? *from : next;
    if (entry == kNobody) break;
    if (takes_new) {
      ++from;
    } else {
      if (old == count) ++same;
      next = ++old < sorted ? at(list, old) : kNobody;
    }
    merged[count] = entry;
    count += entry != last ? 1 : 0;
    last = entry;
  }
  for (std::size_t i = same; i < count; ++i) put(list, i, merged[i]);
  counts_[list] = sorted_[list] = static_cast<std::uint32_t>(count);
}

float NearLists::last_key(std::size_t list) const {
  Entry last = at(list, kept_ - 1);
  // A key that was cut stands for all that begin with the same bits.
  if (cut_) last |= ((Entry{1} << kCutBits) - 1) << kSlotBits;
  return key_of(last);
}

AlignedBuffer NearLists::take_slots(std::size_t k) {
  const std::size_t bytes = counts_.size() * k * sizeof(std::uint32_t);
  // Slots are narrower than entries, so none is written over an entry still to be read.
  const bool in_place = k <= kept_;
  AlignedBuffer fresh;
  if (!in_place) fresh = AlignedBuffer(bytes);
  std::byte* to = in_place ? bytes_.data() : fresh.data();
  for (std::size_t list = 0; list < counts_.size(); ++list) {
    for (std::size_t i = 0; i < k; ++i, to += sizeof(std::uint32_t)) {
      const std::uint32_t slot = i < counts_[list] ? slot_of(at(list, i)) : kNoSlot;
      std::memcpy(to, &slot, sizeof(slot));
    }
  }
  if (in_place) {
    fresh = std::move(bytes_);
    fresh.shrink(bytes);
  }
  *this = NearLists();
  return fresh;
}

}  // namespace annx::graph
