// SPDX-License-Identifier: Apache-2.0
// The seam between searching and codecs. A scorer belongs to one query and scores rows
// in batches; one virtual call per batch of about 32 rows costs a few per cent, and in
// return a search is compiled once and not per metric, dtype and codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace annx::codec {

class Scorer {
 public:
  virtual ~Scorer() = default;

  // out[i] = key of row slots[i]; smaller is nearer. Keys order rows as the metric
  // does, but need not be distances. Every slot is within the codec's rows.
  virtual void score(const std::uint32_t* slots, std::size_t count,
                     float* out) const = 0;
  // The bytes that scoring this row reads, for reading ahead.
  virtual std::span<const std::byte> bytes_of(std::uint32_t slot) const = 0;
};

}  // namespace annx::codec
