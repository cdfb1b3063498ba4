// SPDX-License-Identifier: Apache-2.0
// The slots that a search has met: one bit a slot, so that 400k rows take 50 kB and
// stay in the second-level cache. Clearing walks the list of what was set, so a query
// costs nothing for the rows that it did not touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annx::search {

class VisitedSet {
 public:
  // All bits clear, for slots below `count`.
  void prepare(std::size_t count) {
    clear();
    const std::size_t words = (count + 63) / 64;
    if (words > bits_.size()) bits_.resize(words);
  }

  // Marks `slot` and returns 1 the first time that it is called with it, else 0. No
  // branch: in a graph search the answer is close to a coin toss. The caller has made
  // room.
  std::size_t insert(std::uint32_t slot) {
    std::uint64_t& word = bits_[slot >> 6];
    const std::size_t fresh = ((word >> (slot & 63)) & 1) ^ 1;
    word |= std::uint64_t{1} << (slot & 63);
    touched_[met_] = slot;
    met_ += fresh;
    return fresh;
  }

  // Room for `count` more calls of insert.
  void make_room(std::size_t count) {
    if (met_ + count > touched_.size()) touched_.resize(2 * (met_ + count));
  }

  // How many slots were met.
  std::size_t size() const { return met_; }

  void clear() {
    for (std::size_t i = 0; i < met_; ++i) bits_[touched_[i] >> 6] = 0;
    met_ = 0;
  }

 private:
  std::vector<std::uint64_t> bits_;
  std::vector<std::uint32_t> touched_;
  std::size_t met_ = 0;
};

}  // namespace annx::search
