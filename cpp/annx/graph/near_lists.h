// SPDX-License-Identifier: Apache-2.0
// For many vectors at once the nearest ones that each has met so far: lists that
// all-pairs search fills from many sides.
//
// A list takes what it is given at its end until it is full; then what is new is sorted
// and merged with the rest, repeats go, and the best by (key, slot) stay. That is
// cheaper than to keep it sorted, and what is left in the end depends on no order.
//
// Memory: 8 bytes an entry, with room for half as many more as are kept; or 6 bytes and
// room for a quarter more, where keys are cut to 17 bits (nine of the mantissa), for
// estimates that are off by more than that.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/aligned_buffer.h"

namespace annx::graph {

class NearLists {
 public:
  // A key, not negative, and below it a slot: as numbers they sort by key, then slot.
  using Entry = std::uint64_t;
  static constexpr Entry kNobody = ~Entry{0};
  static Entry entry(float key, std::uint32_t slot) {
    const Entry bits = std::bit_cast<std::uint32_t>(key) & 0x7FFFFFFFu;
    return bits << kSlotBits | slot;
  }
  static float key_of(Entry entry) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(entry >> kSlotBits));
  }
  static std::uint32_t slot_of(Entry entry) {
    return static_cast<std::uint32_t>(entry & ((Entry{1} << kSlotBits) - 1));
  }

  struct Scratch {
    std::vector<Entry> fresh;
    std::vector<Entry> merged;
  };

  NearLists() = default;
  // `count` lists of the best `kept`, of slots below 2^31.
  NearLists(std::size_t count, std::size_t kept, bool cut);

  // Whether the list was full and has been shrunk. No two threads may call this for
  // one list at the same time.
  bool give(std::size_t list, Entry entry, Scratch& scratch);
  // Leaves the best, in order.
  void shrink(std::size_t list, Scratch& scratch);

  std::size_t size(std::size_t list) const { return counts_[list]; }
  // For prefetching.
  const std::uint32_t* count(std::size_t list) const { return &counts_[list]; }
  Entry at(std::size_t list, std::size_t i) const;
  // Of a list that has been shrunk to `kept`: nothing from the next key on gets in.
  float last_key(std::size_t list) const;

  // The first k slots of every list, kNoSlot where there are fewer, in the lists' own
  // memory if that can be; the lists are gone.
  AlignedBuffer take_slots(std::size_t k);

 private:
  static constexpr int kSlotBits = 31;
  static constexpr int kCutBits = 14;  // of a key

  std::size_t place(std::size_t list, std::size_t i) const {
    return (list * room_ + i) * width_;
  }
  void put(std::size_t list, std::size_t i, Entry entry);

  std::size_t kept_ = 0;
  bool cut_ = false;
  std::size_t width_ = 0;  // bytes an entry
  std::size_t room_ = 0;   // entries a list
  AlignedBuffer bytes_;
  std::vector<std::uint32_t> counts_;
  std::vector<std::uint32_t> sorted_;  // how many of these come first, in order
};

}  // namespace annx::graph
