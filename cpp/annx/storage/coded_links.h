// SPDX-License-Identifier: Apache-2.0
// Links with their codes, as a search reads them: for each node one record, a run of
// groups of kLinkGroup links, that says everything about a hop.
//
//     word    32 bits  x kLinkGroup  neighbours' slots, kNoEdge for unused lanes; in
//     the
//                                    first the top bit says that another group follows
//     offset  float16  x kLinkGroup  } codec/link_codec.h
//     scale   float16  x kLinkGroup  } NaN for a link that has no code
//     codes   link_code_bytes(parts)
//
// All groups have the same size, in whole cache lines, and lie in one array; a node's
// handle is the place of its first group there, and a node with few links takes and
// reads few bytes. Records repeat what the graph's own blocks say (storage/adjacency.h)
// and may lag behind them: a stale record is not read by searches, but its codes serve
// again when the node is coded anew. Runs that are given up are used again.
//
// Nothing here relies on what a file held: every place is checked against the array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/kernels/table.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::storage {

class CodedLinks {
 public:
  explicit CodedLinks(std::size_t parts = kernels::kLinkPartsStep)
      : parts_(parts), group_words_(group_bytes_of(parts) / sizeof(std::uint32_t)) {}

  std::size_t parts() const { return parts_; }
  std::size_t group_bytes() const { return group_words_ * sizeof(std::uint32_t); }
  // Nodes.
  std::size_t size() const { return handles_.size(); }

  // The first group of a node's record; null if it has none, or a stale one.
  const std::byte* record(std::size_t slot) const {
    return group_or_null(handles_[slot]);
  }
  // The same, stale or not.
  const std::byte* kept(std::size_t slot) const {
    return group_or_null(handles_[slot] & ~kStale);
  }
  // What `record` reads first.
  const void* handle(std::size_t slot) const { return handles_.data() + slot; }
  // The group after one of the same record; null after the last.
  const std::byte* next(const std::byte* group) const {
    if (!more(group)) return nullptr;
    const std::byte* after = group + group_bytes();
    const auto* end = reinterpret_cast<const std::byte*>(words_.data() + words_.size());
    return after < end ? after : nullptr;
  }

  static const std::uint32_t* words(const std::byte* group) {
    return reinterpret_cast<const std::uint32_t*>(group);
  }
  static const std::byte* offsets(const std::byte* group) { return group + kOffsets; }
  static const std::byte* scales(const std::byte* group) { return group + kScales; }
  static const std::uint8_t* codes(const std::byte* group) {
    return reinterpret_cast<const std::uint8_t*>(group + kCodes);
  }

  // New nodes have no record; those of nodes that go are given up.
  void resize(std::size_t nodes);
  void mark_stale(std::size_t slot) { handles_.mutable_data()[slot] |= kStale; }
  // Room for so many more groups, exactly.
  void reserve_groups(std::size_t more) {
    words_.reserve(words_.size() + more * group_words_);
  }
  // Copies `count` groups into a record for the node, in place of the one it has; none
  // leaves it without. Only the words' marks of what follows are set here.
  void replace(std::size_t slot, const std::byte* groups, std::size_t count);

  // Bytes of memory held.
  std::size_t memory_bytes() const {
    return handles_.held_bytes() + words_.held_bytes();
  }

  // Sections `name`.handles and `name`.groups. The writer borrows them.
  void save_to(FileWriter& file, const std::string& name) const;
  static CodedLinks load_from(const FileReader& file, const std::string& name,
                              std::size_t nodes, std::size_t parts);

  // An unused lane: infinitely far, so that no search looks at it.
  static void clear_lane(std::byte* group, std::size_t lane);
  static void put_half(std::byte* at, std::uint16_t value);
  static std::byte* offset_of(std::byte* group, std::size_t lane) {
    return group + kOffsets + 2 * lane;
  }
  static std::byte* scale_of(std::byte* group, std::size_t lane) {
    return group + kScales + 2 * lane;
  }
  static constexpr std::uint16_t kNotCoded = 0x7E00;              // NaN as float16
  static constexpr std::size_t kCodes = kernels::kLinkGroup * 8;  // where codes begin

 private:
  static constexpr std::uint32_t kStale = 0x80000000u;
  static constexpr std::uint32_t kNone = 0xFFFFFFFFu;
  static constexpr std::size_t kOffsets = kernels::kLinkGroup * 4;
  static constexpr std::size_t kScales = kernels::kLinkGroup * 6;

  static std::size_t group_bytes_of(std::size_t parts) {
    return (kCodes + kernels::link_code_bytes(parts) + 63) / 64 * 64;
  }
  std::size_t groups() const { return words_.size() / group_words_; }
  const std::byte* group_at(std::size_t place) const {
    return reinterpret_cast<const std::byte*>(words_.data() + place * group_words_);
  }
  // Without a division, which a hop would feel: there are whole groups only.
  const std::byte* group_or_null(std::size_t place) const {
    return place * group_words_ < words_.size() ? group_at(place) : nullptr;
  }
  static bool more(const std::byte* group) { return (words(group)[0] & kStale) != 0; }
  std::size_t run_length(std::size_t place) const;
  void give_up(std::size_t slot);
  void find_free();

  std::size_t parts_;
  std::size_t group_words_;
  Array<std::uint32_t> handles_;  // places of first groups
  Array<std::uint32_t> words_;    // the groups
  // Places of free runs by their length; known once something has been given up.
  std::vector<std::vector<std::uint32_t>> free_;
  bool free_known_ = true;
};

}  // namespace annx::storage
