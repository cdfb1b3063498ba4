// SPDX-License-Identifier: Apache-2.0
// The beam: the best `capacity` slots met so far, sorted, with a mark on those already
// expanded. One sorted array serves as candidate queue and result list; at the usual
// beam widths moving a few cache lines beats a heap's scattered swaps.
//
// An entry is one 64-bit word: the key as an order-preserving integer on top, then the
// slot (31 bits), then the mark, so that one comparison orders by key, then slot.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace annx::search {

// Monotone: a < b as floats iff the results are so as integers. NaN orders last.
inline std::uint32_t ordered_bits(float key) {
  const auto bits = std::bit_cast<std::uint32_t>(key);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

inline float from_ordered_bits(std::uint32_t bits) {
  return std::bit_cast<float>((bits & 0x80000000u) != 0 ? bits & 0x7FFFFFFFu : ~bits);
}

class CandidateList {
 public:
  void prepare(std::size_t capacity) {
    capacity_ = capacity;
    if (entries_.size() < capacity + 1) entries_.resize(capacity + 1);
    size_ = 0;
    next_ = 0;
    worst_ = ~std::uint64_t{0};
  }

  std::size_t size() const { return size_; }
  std::uint32_t slot(std::size_t i) const {
    return static_cast<std::uint32_t>(entries_[i] >> 1) & 0x7FFFFFFFu;
  }
  float key(std::size_t i) const {
    return from_ordered_bits(static_cast<std::uint32_t>(entries_[i] >> 32));
  }

  // Whether a key has a chance; cheap, for filtering before `insert`.
  bool admits(float key) const {
    return (static_cast<std::uint64_t>(ordered_bits(key)) << 32) < worst_;
  }

  // Inserts a slot that is not in the list; drops the worst when full. True if the slot
  // is now among the next to be expanded.
  bool insert(float key, std::uint32_t slot) {
    const std::uint64_t entry = (static_cast<std::uint64_t>(ordered_bits(key)) << 32) |
                                (static_cast<std::uint64_t>(slot) << 1);
    if (entry >= worst_) return false;
    std::uint64_t* const data = entries_.data();
    const std::size_t at = lower_bound(entry);
    const std::size_t moved = size_ - at;
    std::memmove(data + at + 1, data + at, moved * sizeof(std::uint64_t));
    data[at] = entry;
    if (size_ < capacity_) ++size_;
    if (size_ == capacity_) worst_ = data[size_ - 1];
    next_ = std::min(next_, at);
    return at <= next_ + 1;
  }

  // Marks the best entry not yet expanded and returns its slot, or false if none is
  // left whose key is at most `most`.
  bool expand_next(std::uint32_t& slot_out,
                   float most = std::numeric_limits<float>::infinity()) {
    while (next_ < size_ && (entries_[next_] & 1) != 0) ++next_;
    if (next_ == size_ || key(next_) > most) return false;
    entries_[next_] |= 1;
    slot_out = slot(next_);
    return true;
  }

  // A key that is below this enters; +inf while there is room.
  float limit() const {
    return size_ < capacity_ ? std::numeric_limits<float>::infinity() : key(size_ - 1);
  }

 private:
  // Branch-free, since the answers are as good as random to a predictor.
  std::size_t lower_bound(std::uint64_t entry) const {
    const std::uint64_t* base = entries_.data();
    std::size_t length = size_;
    while (length > 1) {
      const std::size_t half = length / 2;
      // By a mask: compilers make a branch of a conditional here.
      base +=
          half & (std::size_t{0} - static_cast<std::size_t>(base[half - 1] < entry));
      length -= half;
    }
    const auto at = static_cast<std::size_t>(base - entries_.data());
    return at + (length == 1 && *base < entry ? 1 : 0);
  }

  std::vector<std::uint64_t> entries_;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
  std::size_t next_ = 0;
  std::uint64_t worst_ = 0;  // an entry must be below this to enter
};

}  // namespace annx::search
