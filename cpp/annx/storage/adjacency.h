// SPDX-License-Identifier: Apache-2.0
// The links of a graph: one block a node, of a fixed number of bytes, without pointers.
//
//     word    32 bits    x degree   neighbours: used words first, the others kNoEdge.
//     The
//                                   top bit marks a tree edge (graph/builder.h), the
//                                   rest is the neighbour's slot.
//     offset  float16    x lanes    } with link codes only (codec/link_codec.h); lanes
//     are scale   float16    x lanes    } the degree rounded up to whole groups codes
//     bytes      x groups   }
//
// A link whose word has changed since it was coded has a NaN for a scale: searching
// sees by that that it must ask the row itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "annx/kernels/table.h"
#include "annx/storage/array.h"

namespace annx::storage {

inline constexpr std::uint32_t kNoEdge = 0xFFFFFFFFu;
inline constexpr std::uint32_t kTreeEdge = 0x80000000u;
inline constexpr std::uint32_t kSlotMask = 0x7FFFFFFFu;
// Slots stay below this, so that no marked slot looks like kNoEdge.
inline constexpr std::size_t kMaxSlots = 0x7FFFFFFFu;

class Adjacency {
 public:
  explicit Adjacency(std::size_t degree, std::size_t parts = 0)
      : degree_(degree), parts_(parts), stride_(stride_of(degree, parts)) {}

  std::size_t degree() const { return degree_; }
  // Code parts of a link; 0 without codes.
  std::size_t parts() const { return parts_; }
  std::size_t groups() const {
    return (degree_ + kernels::kLinkGroup - 1) / kernels::kLinkGroup;
  }
  std::size_t block_bytes() const { return stride_ * sizeof(std::uint32_t); }
  std::size_t size() const { return words_.size() / stride_; }

  const std::uint32_t* block(std::size_t slot) const {
    return words_.data() + slot * stride_;
  }
  std::uint32_t word(std::size_t slot, std::size_t place) const {
    return block(slot)[place];
  }
  // At which byte of a block the offsets, the scales and the codes of a group begin.
  std::size_t offsets_at(std::size_t group) const {
    return degree_ * 4 + group * kernels::kLinkGroup * 2;
  }
  std::size_t scales_at(std::size_t group) const {
    return offsets_at(groups() + group);
  }
  std::size_t codes_at(std::size_t group) const {
    return offsets_at(2 * groups()) + group * code_bytes();
  }
  const std::byte* offsets(const std::uint32_t* block, std::size_t group) const {
    return reinterpret_cast<const std::byte*>(block) + offsets_at(group);
  }
  const std::byte* scales(const std::uint32_t* block, std::size_t group) const {
    return reinterpret_cast<const std::byte*>(block) + scales_at(group);
  }
  const std::uint8_t* codes(const std::uint32_t* block, std::size_t group) const {
    return reinterpret_cast<const std::uint8_t*>(block) + codes_at(group);
  }
  // Bytes of the codes of one group.
  std::size_t code_bytes() const { return parts_ / 2 * kernels::kLinkGroup; }

  // Used words of a block.
  std::size_t count(std::size_t slot) const {
    const std::uint32_t* words = block(slot);
    std::size_t n = 0;
    while (n < degree_ && words[n] != kNoEdge) ++n;
    return n;
  }

  // Writes one link; if it leads elsewhere than before, its code is void.
  void set(std::size_t slot, std::size_t place, std::uint32_t word) {
    std::uint32_t* words = words_.mutable_data() + slot * stride_;
    const bool same = ((words[place] ^ word) & kSlotMask) == 0;
    words[place] = word;
    if (parts_ != 0 && !same) put_scale(words, place, kNotCoded);
  }
  // Whether a link lacks its code.
  bool stale(std::size_t slot, std::size_t place) const {
    std::uint16_t scale;
    std::memcpy(&scale, scales(block(slot), 0) + 2 * place, 2);
    return (scale & 0x7FFFu) > kInfinity;
  }
  bool any_stale(std::size_t slot) const {
    for (std::size_t place = 0; place < degree_; ++place) {
      if (stale(slot, place)) return true;
    }
    return false;
  }
  // The whole block for writing; for link codes, whose bytes lie as declared above.
  std::byte* mutable_bytes(std::size_t slot) {
    return reinterpret_cast<std::byte*>(words_.mutable_data() + slot * stride_);
  }

  void reserve(std::size_t nodes) { words_.reserve(nodes * stride_); }
  // New blocks are empty.
  void resize(std::size_t nodes) {
    const std::size_t before = size();
    words_.resize(nodes * stride_);
    for (std::size_t slot = before; slot < nodes; ++slot) clear(slot);
  }

  // Makes room for codes of so many parts (or takes it away): all links are kept, all
  // codes are void. Strong guarantee.
  void set_parts(std::size_t parts) {
    Adjacency other(degree_, parts);
    const std::size_t nodes = size();
    other.reserve(nodes);
    other.resize(nodes);
    for (std::size_t slot = 0; slot < nodes; ++slot) {
      for (std::size_t place = 0; place < degree_; ++place) {
        const std::uint32_t link = word(slot, place);
        if (link != kNoEdge) other.set(slot, place, link);
      }
    }
    *this = std::move(other);
  }

  Array<std::uint32_t>& words() { return words_; }
  const Array<std::uint32_t>& words() const { return words_; }
  // Words of a block.
  std::size_t stride() const { return stride_; }

 private:
  static constexpr std::uint16_t kInfinity = 0x7C00;  // of float16
  static constexpr std::uint16_t kNotCoded = 0x7E00;  // NaN

  static std::size_t stride_of(std::size_t degree, std::size_t parts) {
    if (parts == 0) return degree;
    const std::size_t group = kernels::kLinkGroup;
    const std::size_t lanes = (degree + group - 1) / group * group;
    const std::size_t bytes = degree * 4 + lanes * 4 + lanes * parts / 2;
    return (bytes + 63) / 64 * 64 / 4;
  }
  static void put(std::uint32_t* words, std::size_t at, std::uint16_t value) {
    std::memcpy(reinterpret_cast<std::byte*>(words) + at, &value, 2);
  }
  void put_scale(std::uint32_t* words, std::size_t place, std::uint16_t value) {
    put(words, scales_at(0) + place * 2, value);
  }
  void clear(std::size_t slot) {
    std::uint32_t* words = words_.mutable_data() + slot * stride_;
    for (std::size_t i = 0; i < degree_; ++i) words[i] = kNoEdge;
    if (parts_ == 0) return;
    // Infinitely far, so that no search looks at an unused lane.
    for (std::size_t i = 0; i < groups() * kernels::kLinkGroup; ++i) {
      put(words, offsets_at(0) + i * 2, kInfinity);
      put_scale(words, i, 0);
    }
  }

  std::size_t degree_;
  std::size_t parts_;
  std::size_t stride_;
  Array<std::uint32_t> words_;
};

}  // namespace annx::storage
