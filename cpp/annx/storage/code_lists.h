// SPDX-License-Identifier: Apache-2.0
// Inverted lists of codes, in blocks of 32. A block is a payload whose meaning is the
// codec's, 64-byte aligned; the slots of its 32 codes lie apart, because a scan reads
// the few of those that pass. A code's place is the number of its block times 32 plus
// its lane.
//
// Blocks lie in slabs of at most kSlabBytes, so that a list grows without moving what
// is there: beside the codes, growing takes at most one slab of memory, and a list
// wastes less than a block. Blocks that a bulk add makes for one list are neighbours
// and are scanned as one run. A slab that was mapped from a file is copied when it is
// first changed, by itself.
//
// Every code of a list but those in its last block lies in a full block: removing moves
// the last code into the gap. Reading is thread-safe; so is writing to places of
// different blocks that grow() made room in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::storage {

class CodeLists {
 public:
  static constexpr std::uint32_t kBlock = 32;
  static constexpr std::size_t kSlabBytes = std::size_t{32} << 20;

  CodeLists() = default;
  // `payload_bytes` of a block, a multiple of 64.
  CodeLists(std::size_t lists, std::size_t payload_bytes);

  std::size_t lists() const { return sizes_.size(); }
  std::size_t size(std::size_t list) const { return sizes_[list]; }
  std::size_t stride() const { return payload_; }
  // Numbers of a list's blocks, in order.
  const std::vector<std::uint32_t>& blocks(std::size_t list) const {
    return blocks_[list];
  }
  // How many of the blocks from the `at`-th on, `most` at most, lie one after the
  // other.
  std::size_t run(std::size_t list, std::size_t at, std::size_t most) const;

  const std::byte* block(std::uint32_t number) const {
    return slabs_[number >> shift_].data() + (number & mask_) * payload_;
  }
  std::byte* block_to_write(std::uint32_t number) {
    return slabs_[number >> shift_].mutable_data() + (number & mask_) * payload_;
  }
  std::uint32_t slot(std::uint32_t place) const {
    const std::uint32_t block = place / kBlock;
    return slots_[block >> shift_][(block & mask_) * kBlock + place % kBlock];
  }
  void set_slot(std::uint32_t place, std::uint32_t slot) {
    const std::uint32_t block = place / kBlock;
    slots_[block >> shift_].mutable_data()[(block & mask_) * kBlock + place % kBlock] =
        slot;
  }

  // Makes room for `count` more codes at the end of a list. Several threads may then
  // write to them.
  void grow(std::size_t list, std::size_t count);
  // Drops the codes of a list from `count` on.
  void truncate(std::size_t list, std::size_t count);
  std::uint32_t place(std::size_t list, std::size_t i) const {
    return blocks_[list][i / kBlock] * kBlock + static_cast<std::uint32_t>(i % kBlock);
  }
  std::size_t list_of(std::uint32_t place) const { return owners_[place / kBlock]; }

  std::size_t memory_bytes() const;

  // As sections "lists.sizes", "lists.blocks", "lists.slab0", "lists.slots0"...;
  // borrowed.
  void save_to(FileWriter& writer) const;
  // Throws FormatError unless every block belongs to one list at most. The slots are
  // not looked at: who follows one checks it.
  static CodeLists load_from(const FileReader& reader, std::size_t lists,
                             std::size_t payload_bytes, std::size_t count);

 private:
  std::uint32_t new_block(std::size_t list);

  std::size_t payload_ = 0;
  std::uint32_t shift_ = 0;
  std::uint32_t mask_ = 0;
  std::vector<std::uint32_t> sizes_;
  std::vector<std::vector<std::uint32_t>> blocks_;
  std::vector<Array<std::byte>> slabs_;
  std::vector<Array<std::uint32_t>> slots_;  // [slab][block][lane]
  std::uint32_t used_ = 0;                   // blocks ever made
  std::vector<std::uint32_t> free_;          // blocks without a list
  std::vector<std::uint32_t> owners_;        // [block] its list
};

}  // namespace annx::storage
