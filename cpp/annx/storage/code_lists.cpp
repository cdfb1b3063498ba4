// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/code_lists.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <string>

#include "annx/base/error.h"
#include "annx/base/types.h"

namespace annx::storage {
namespace {

// Places are 32 bits.
constexpr std::uint32_t kMaxBlocks = 0xFFFFFFFFu / CodeLists::kBlock;

}  // namespace

CodeLists::CodeLists(std::size_t lists, std::size_t payload_bytes)
    : payload_(payload_bytes), sizes_(lists), blocks_(lists) {
  const std::size_t fit = std::max<std::size_t>(kSlabBytes / payload_, 1);
  shift_ = static_cast<std::uint32_t>(std::bit_width(fit) - 1);
  mask_ = (std::uint32_t{1} << shift_) - 1;
}

std::size_t CodeLists::run(std::size_t list, std::size_t at, std::size_t most) const {
  const std::vector<std::uint32_t>& blocks = blocks_[list];
  const std::uint32_t first = blocks[at];
  std::size_t n = 1;
  const std::size_t end = std::min(blocks.size() - at, most);
  while (n < end && blocks[at + n] == first + n && ((first + n) & mask_) != 0) {
    ++n;
  }
  return n;
}

std::uint32_t CodeLists::new_block(std::size_t list) {
  if (!free_.empty()) {
    const std::uint32_t block = free_.back();
    free_.pop_back();
    owners_[block] = static_cast<std::uint32_t>(list);
    return block;
  }
  if (used_ == kMaxBlocks) throw InvalidArgument("vectors: the index is full");
  const std::size_t slab = used_ >> shift_;
  const std::size_t blocks = (used_ & mask_) + 1;
  const std::size_t whole = std::size_t{mask_} + 1;
  if (slab == slabs_.size()) {
    slabs_.emplace_back();
    slots_.emplace_back();
  }
  if (blocks * payload_ > slabs_[slab].capacity_bytes()) {
    // By half again, but a later slab at once: it will be filled.
    const std::size_t room = slab > 0 ? whole : std::min(whole, blocks + blocks / 2);
    slabs_[slab].reserve(room * payload_);
    slots_[slab].reserve(room * kBlock);
  }
  slabs_[slab].resize(blocks * payload_);
  slots_[slab].resize(blocks * kBlock);
  owners_.push_back(static_cast<std::uint32_t>(list));
  return used_++;
}

void CodeLists::grow(std::size_t list, std::size_t count) {
  const std::size_t size = sizes_[list] + count;
  std::vector<std::uint32_t>& blocks = blocks_[list];
  const std::size_t needed = (size + kBlock - 1) / kBlock;
  const std::size_t before = blocks.size();
  try {
    if (needed > blocks.capacity()) {
      blocks.reserve(std::max(needed, before + before / 2));
    }
    while (blocks.size() < needed) blocks.push_back(new_block(list));
    // Slabs that are borrowed are copied now, not by the thread that comes first.
    for (std::size_t b = sizes_[list] / kBlock; b < needed; ++b) {
      slabs_[blocks[b] >> shift_].mutable_data();
      slots_[blocks[b] >> shift_].mutable_data();
    }
  } catch (...) {
    truncate(list, sizes_[list]);
    throw;
  }
  sizes_[list] = static_cast<std::uint32_t>(size);
}

void CodeLists::truncate(std::size_t list, std::size_t count) {
  std::vector<std::uint32_t>& blocks = blocks_[list];
  const std::size_t needed = (count + kBlock - 1) / kBlock;
  while (blocks.size() > needed) {
    free_.push_back(blocks.back());
    blocks.pop_back();
  }
  sizes_[list] = static_cast<std::uint32_t>(count);
}

std::size_t CodeLists::memory_bytes() const {
  std::size_t bytes = sizes_.capacity() * sizeof(std::uint32_t) +
                      blocks_.capacity() * sizeof(blocks_[0]) +
                      (free_.capacity() + owners_.capacity()) * sizeof(std::uint32_t);
  for (const auto& slab : slabs_) bytes += slab.held_bytes();
  for (const auto& slots : slots_) bytes += slots.held_bytes();
  for (const auto& blocks : blocks_) bytes += blocks.capacity() * sizeof(std::uint32_t);
  return bytes;
}

void CodeLists::save_to(FileWriter& writer) const {
  auto numbers = std::make_shared<std::vector<std::uint32_t>>();
  for (const auto& blocks : blocks_) {
    numbers->insert(numbers->end(), blocks.begin(), blocks.end());
  }
  writer.number("lists.blocks_made", used_);
  writer.add("lists.sizes", std::as_bytes(std::span(sizes_)));
  writer.add("lists.blocks", std::as_bytes(std::span(*numbers)));
  for (std::size_t s = 0; s < slabs_.size(); ++s) {
    writer.add("lists.slab" + std::to_string(s), slabs_[s].bytes());
    writer.add("lists.slots" + std::to_string(s), slots_[s].bytes());
  }
  writer.keep(std::move(numbers));
}

CodeLists CodeLists::load_from(const FileReader& reader, std::size_t lists,
                               std::size_t payload_bytes, std::size_t count) {
  CodeLists result(lists, payload_bytes);
  const auto sizes = reader.array<std::uint32_t>("lists.sizes", lists);
  result.used_ =
      static_cast<std::uint32_t>(reader.number("lists.blocks_made", 0, kMaxBlocks));
  std::size_t total = 0;
  std::size_t blocks = 0;
  for (std::size_t i = 0; i < lists; ++i) {
    total += sizes[i];
    blocks += (std::size_t{sizes[i]} + kBlock - 1) / kBlock;
    result.sizes_[i] = sizes[i];
  }
  reader.require(total == count, "lists.sizes", "do not add up to the vectors");
  const auto numbers = reader.array<std::uint32_t>("lists.blocks", blocks);
  const std::size_t made = result.used_;
  const std::size_t in_slab = std::size_t{result.mask_} + 1;
  for (std::size_t at = 0, s = 0; at < made; at += in_slab, ++s) {
    const std::size_t here = std::min(in_slab, made - at);
    result.slabs_.push_back(reader.array<std::byte>("lists.slab" + std::to_string(s),
                                                    here * result.payload_));
    result.slots_.push_back(
        reader.array<std::uint32_t>("lists.slots" + std::to_string(s), here * kBlock));
  }
  // Only now is `made` known to be no more than the file holds.
  std::vector<bool> taken(made);
  result.owners_.resize(made);
  std::size_t at = 0;
  for (std::size_t i = 0; i < lists; ++i) {
    const std::size_t n = (std::size_t{sizes[i]} + kBlock - 1) / kBlock;
    result.blocks_[i].assign(numbers.data() + at, numbers.data() + at + n);
    at += n;
    for (const std::uint32_t block : result.blocks_[i]) {
      reader.require(block < made && !taken[block], "lists.blocks",
                     "names a block that is not there or has a list already");
      taken[block] = true;
      result.owners_[block] = static_cast<std::uint32_t>(i);
    }
  }
  for (std::size_t b = made; b-- > 0;) {
    if (!taken[b]) result.free_.push_back(static_cast<std::uint32_t>(b));
  }
  return result;
}

}  // namespace annx::storage
