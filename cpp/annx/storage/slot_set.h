// SPDX-License-Identifier: Apache-2.0
// A set of slots as a bitmap: what a filter is to a search. It belongs to one state of
// one index, told by the index's version number.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/error.h"

namespace annx::storage {

class SlotSet {
 public:
  SlotSet(std::size_t slots, std::uint64_t version)
      : words_((slots + 63) / 64), version_(version) {}

  void insert(std::uint32_t slot) {
    std::uint64_t& word = words_[slot / 64];
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    count_ += (word & bit) == 0 ? 1u : 0u;
    word |= bit;
  }
  bool test(std::uint32_t slot) const {
    return ((words_[slot / 64] >> (slot % 64)) & 1) != 0;
  }

  std::size_t count() const { return count_; }
  // Slots at or beyond are not in the set, and must not be asked for.
  std::size_t capacity() const { return words_.size() * 64; }
  std::uint64_t version() const { return version_; }
  // Throws InvalidArgument unless it was made for this version.
  void require(std::uint64_t version) const {
    if (version_ != version) {
      throw InvalidArgument("filter was made for another state of the index");
    }
  }
  const std::uint64_t* words() const { return words_.data(); }

  // The slots in rising order.
  std::vector<std::uint32_t> slots() const {
    std::vector<std::uint32_t> result;
    result.reserve(count_);
    for (std::size_t w = 0; w < words_.size(); ++w) {
      for (std::uint64_t bits = words_[w]; bits != 0; bits &= bits - 1) {
        result.push_back(static_cast<std::uint32_t>(w * 64) +
                         static_cast<std::uint32_t>(std::countr_zero(bits)));
      }
    }
    return result;
  }

 private:
  std::vector<std::uint64_t> words_;
  std::size_t count_ = 0;
  std::uint64_t version_ = 0;
};

}  // namespace annx::storage
