// SPDX-License-Identifier: Apache-2.0
// The links of a graph: one block a node, `degree` words of 32 bits, without pointers.
// Used words come first, the others are kNoEdge. The top bit of a word marks a tree
// edge (graph/builder.h), the rest is the neighbour's slot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "annx/storage/array.h"

namespace annx::storage {

inline constexpr std::uint32_t kNoEdge = 0xFFFFFFFFu;
inline constexpr std::uint32_t kTreeEdge = 0x80000000u;
inline constexpr std::uint32_t kSlotMask = 0x7FFFFFFFu;
// Slots stay below this, so that no marked slot looks like kNoEdge.
inline constexpr std::size_t kMaxSlots = 0x7FFFFFFFu;

class Adjacency {
 public:
  explicit Adjacency(std::size_t degree) : degree_(degree) {}

  std::size_t degree() const { return degree_; }
  std::size_t block_bytes() const { return degree_ * sizeof(std::uint32_t); }
  std::size_t size() const { return words_.size() / degree_; }

  const std::uint32_t* block(std::size_t slot) const {
    return words_.data() + slot * degree_;
  }
  std::uint32_t word(std::size_t slot, std::size_t place) const {
    return block(slot)[place];
  }
  // Used words of a block.
  std::size_t count(std::size_t slot) const {
    const std::uint32_t* words = block(slot);
    std::size_t n = 0;
    while (n < degree_ && words[n] != kNoEdge) ++n;
    return n;
  }
  void set(std::size_t slot, std::size_t place, std::uint32_t word) {
    words_.mutable_data()[slot * degree_ + place] = word;
  }

  void reserve(std::size_t nodes) { words_.reserve(nodes * degree_); }
  // New blocks are empty.
  void resize(std::size_t nodes) {
    const std::size_t before = words_.size();
    words_.resize(nodes * degree_);
    std::uint32_t* words = words_.mutable_data();
    for (std::size_t i = before; i < words_.size(); ++i) words[i] = kNoEdge;
  }

  Array<std::uint32_t>& words() { return words_; }
  const Array<std::uint32_t>& words() const { return words_; }

 private:
  std::size_t degree_;
  Array<std::uint32_t> words_;
};

}  // namespace annx::storage
