// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/coded_links.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "annx/storage/adjacency.h"

namespace annx::storage {
namespace {

constexpr std::uint16_t kInfinity = 0x7C00;  // as float16
// Longest run that is kept for use: the groups of a node of degree 256.
constexpr std::size_t kLongestRun = 256 / kernels::kLinkGroup;

}  // namespace

void CodedLinks::put_half(std::byte* at, std::uint16_t value) {
  std::memcpy(at, &value, 2);
}

void CodedLinks::clear_lane(std::byte* group, std::size_t lane) {
  std::memcpy(group + 4 * lane, &kNoEdge, 4);
  put_half(offset_of(group, lane), kInfinity);
  put_half(scale_of(group, lane), 0);
}

std::size_t CodedLinks::run_length(std::size_t place) const {
  std::size_t n = 1;
  while (place + n < groups() && more(group_at(place + n - 1))) ++n;
  return n;
}

void CodedLinks::give_up(std::size_t slot) {
  const std::size_t place = handles_[slot] & ~kStale;
  handles_.mutable_data()[slot] = kNone;
  if (place >= groups()) return;
  const std::size_t length = std::min(run_length(place), kLongestRun);
  free_.resize(kLongestRun + 1);
  free_[length].push_back(static_cast<std::uint32_t>(place));
}

// After loading: what no node's record takes is free.
void CodedLinks::find_free() {
  free_known_ = true;
  std::vector<char> taken(groups());
  for (std::size_t slot = 0; slot < size(); ++slot) {
    const std::size_t place = handles_[slot] & ~kStale;
    if (place >= groups()) continue;
    const std::size_t end = place + run_length(place);
    for (std::size_t i = place; i < end; ++i) taken[i] = 1;
  }
  free_.resize(kLongestRun + 1);
  for (std::size_t i = 0; i < taken.size();) {
    std::size_t length = 0;
    while (i + length < taken.size() && taken[i + length] == 0 &&
           length < kLongestRun) {
      ++length;
    }
    if (length != 0) free_[length].push_back(static_cast<std::uint32_t>(i));
    i += std::max<std::size_t>(length, 1);
  }
}

void CodedLinks::resize(std::size_t nodes) {
  if (!free_known_) find_free();
  for (std::size_t slot = nodes; slot < size(); ++slot) give_up(slot);
  const std::size_t before = size();
  handles_.resize(nodes);
  std::uint32_t* handles = handles_.mutable_data();
  for (std::size_t slot = before; slot < nodes; ++slot) handles[slot] = kNone;
}

void CodedLinks::replace(std::size_t slot, const std::byte* groups, std::size_t count) {
  if (!free_known_) find_free();
  std::size_t place = handles_[slot] & ~kStale;
  if (count == 0 || place >= this->groups() || run_length(place) != count) {
    give_up(slot);
    if (count == 0) return;
    if (count < free_.size() && !free_[count].empty()) {
      place = free_[count].back();
      free_[count].pop_back();
    } else {
      place = this->groups();
      if (place + count >= kStale) throw std::bad_alloc();
      words_.resize(words_.size() + count * group_words_);
    }
  }
  handles_.mutable_data()[slot] = static_cast<std::uint32_t>(place);
  auto* to = reinterpret_cast<std::byte*>(words_.mutable_data() + place * group_words_);
  std::memcpy(to, groups, count * group_bytes());
  for (std::size_t i = 0; i < count; ++i, to += group_bytes()) {
    std::uint32_t word;
    std::memcpy(&word, to, 4);
    word = i + 1 < count ? word | kStale : word & ~kStale;
    std::memcpy(to, &word, 4);
  }
}

void CodedLinks::save_to(FileWriter& file, const std::string& name) const {
  file.number(name + ".group_count", groups());
  file.add(name + ".handles", handles_.bytes());
  file.add(name + ".groups", words_.bytes());
}

CodedLinks CodedLinks::load_from(const FileReader& file, const std::string& name,
                                 std::size_t nodes, std::size_t parts) {
  CodedLinks links(parts);
  const auto count =
      static_cast<std::size_t>(file.number(name + ".group_count", 0, kStale - 1));
  links.handles_ = file.array<std::uint32_t>(name + ".handles", nodes);
  links.words_ =
      file.array<std::uint32_t>(name + ".groups", count * links.group_words_);
  links.free_known_ = false;
  return links;
}

}  // namespace annx::storage
