// SPDX-License-Identifier: Apache-2.0
// One hash table of slots, as sorted arrays: the keys of its buckets, where each
// begins, the slots, and where the keys with the same first bits begin. Finding a
// bucket reads one place of `first` and a key or two; making a table anew is O(n).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "annx/base/types.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::storage {

struct BucketTable {
  Array<std::uint32_t> keys;    // of the buckets, rising
  Array<std::uint32_t> starts;  // buckets + 1
  Array<std::uint32_t> slots;   // bucket by bucket; kNoSlot where removed
  Array<std::uint32_t> first;   // of the keys with these first bits
  unsigned shift = 32;          // a key's bits below those

  // Of (key << 32) + slot, in order of the keys.
  static BucketTable make(std::span<const std::uint64_t> entries);
  // Those of `sorted` entries and this table's own that are not removed, in order of
  // the keys.
  void merge(std::span<const std::uint64_t> sorted,
             std::vector<std::uint64_t>& entries) const;

  std::size_t find(std::uint32_t key) const;  // the bucket, or keys.size()
  // What stands in a slot's place, of a bucket or elsewhere if it is not in that one,
  // becomes `instead`.
  void replace(std::uint32_t key, std::uint32_t slot, std::uint32_t instead);

  std::size_t memory_bytes() const;
  std::size_t largest() const;  // places of a bucket

  // In sections that begin with `name`. The writer borrows.
  void save_to(FileWriter& writer, const std::string& name) const;
  // With `places` slots, which the caller checks. Throws FormatError.
  static BucketTable load_from(const FileReader& reader, const std::string& name,
                               std::size_t places);
};

}  // namespace annx::storage
