// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/bucket_table.h"

#include <algorithm>
#include <bit>

namespace annx::storage {

BucketTable BucketTable::make(std::span<const std::uint64_t> entries) {
  const auto key_of = [&](std::size_t i) {
    return static_cast<std::uint32_t>(entries[i] >> 32);
  };
  std::size_t buckets = entries.empty() ? 0 : 1;
  for (std::size_t i = 1; i < entries.size(); ++i) {
    buckets += key_of(i) != key_of(i - 1) ? 1 : 0;
  }
  BucketTable table;
  const unsigned bits =
      std::clamp<unsigned>(static_cast<unsigned>(std::bit_width(buckets)), 1, 24);
  table.shift = 32 - bits;
  table.keys.reserve(buckets);
  table.keys.resize(buckets);
  table.starts.reserve(buckets + 1);
  table.starts.resize(buckets + 1);
  table.slots.reserve(entries.size());
  table.slots.resize(entries.size());
  const std::size_t parts = std::size_t{1} << bits;
  table.first.reserve(parts + 1);
  table.first.resize(parts + 1);
  std::uint32_t* keys = table.keys.mutable_data();
  std::uint32_t* starts = table.starts.mutable_data();
  std::uint32_t* slots = table.slots.mutable_data();
  std::uint32_t* first = table.first.mutable_data();
  std::size_t bucket = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i == 0 || key_of(i) != key_of(i - 1)) {
      keys[bucket] = key_of(i);
      starts[bucket++] = static_cast<std::uint32_t>(i);
      ++first[(keys[bucket - 1] >> table.shift) + 1];
    }
    slots[i] = static_cast<std::uint32_t>(entries[i]);
  }
  starts[buckets] = static_cast<std::uint32_t>(entries.size());
  for (std::size_t i = 0; i < parts; ++i) first[i + 1] += first[i];
  return table;
}

void BucketTable::merge(std::span<const std::uint64_t> sorted,
                        std::vector<std::uint64_t>& entries) const {
  entries.clear();
  entries.reserve(sorted.size() + slots.size());
  std::size_t next = 0;
  for (std::size_t b = 0; b < keys.size(); ++b) {
    const std::uint64_t key = keys[b];
    while (next < sorted.size() && sorted[next] >> 32 < key) {
      entries.push_back(sorted[next++]);
    }
    for (std::size_t i = starts[b]; i < starts[b + 1]; ++i) {
      if (slots[i] != kNoSlot) entries.push_back((key << 32) | slots[i]);
    }
  }
  entries.insert(entries.end(), sorted.begin() + static_cast<std::ptrdiff_t>(next),
                 sorted.end());
}

std::size_t BucketTable::find(std::uint32_t key) const {
  const std::size_t part =
      static_cast<std::size_t>(static_cast<std::uint64_t>(key) >> shift);
  for (std::size_t i = first[part]; i < first[part + 1]; ++i) {
    if (keys[i] == key) return i;
  }
  return keys.size();
}

void BucketTable::replace(std::uint32_t key, std::uint32_t slot,
                          std::uint32_t instead) {
  std::uint32_t* begin = slots.mutable_data();
  std::uint32_t* end = begin + slots.size();
  const std::size_t bucket = find(key);
  if (bucket < keys.size()) {
    std::uint32_t* last = begin + starts[bucket + 1];
    std::uint32_t* at = std::find(begin + starts[bucket], last, slot);
    if (at != last) {
      *at = instead;
      return;
    }
  }
  // Elsewhere only in a file whose payload was damaged.
  if (std::uint32_t* at = std::find(begin, end, slot); at != end) *at = instead;
}

std::size_t BucketTable::memory_bytes() const {
  return keys.held_bytes() + starts.held_bytes() + slots.held_bytes() +
         first.held_bytes();
}

std::size_t BucketTable::largest() const {
  std::size_t most = 0;
  for (std::size_t b = 0; b < keys.size(); ++b) {
    most = std::max<std::size_t>(most, starts[b + 1] - starts[b]);
  }
  return most;
}

void BucketTable::save_to(FileWriter& writer, const std::string& name) const {
  writer.number(name + "buckets", keys.size());
  writer.number(name + "shift", shift);
  writer.add(name + "keys", keys.bytes());
  writer.add(name + "starts", starts.bytes());
  writer.add(name + "slots", slots.bytes());
  writer.add(name + "first", first.bytes());
}

BucketTable BucketTable::load_from(const FileReader& reader, const std::string& name,
                                   std::size_t places) {
  BucketTable table;
  const std::size_t buckets = reader.number(name + "buckets", 0, places);
  table.shift = static_cast<unsigned>(reader.number(name + "shift", 8, 31));
  table.keys = reader.array<std::uint32_t>(name + "keys", buckets);
  table.starts = reader.array<std::uint32_t>(name + "starts", buckets + 1);
  table.slots = reader.array<std::uint32_t>(name + "slots", places);
  const std::size_t parts = std::size_t{1} << (32 - table.shift);
  table.first = reader.array<std::uint32_t>(name + "first", parts + 1);
  const auto rising = [&](const Array<std::uint32_t>& values, const char* section,
                          std::size_t end) {
    bool right = values[0] == 0 && values[values.size() - 1] == end;
    for (std::size_t i = 1; i < values.size(); ++i) {
      right = right && values[i - 1] <= values[i];
    }
    reader.require(right, name + section, "places out of order");
  };
  rising(table.starts, "starts", places);
  rising(table.first, "first", buckets);
  return table;
}

}  // namespace annx::storage
