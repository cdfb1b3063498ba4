// SPDX-License-Identifier: Apache-2.0
// Whole rows in the blocks of CodeLists: the rows of a block one after the other, then,
// where distances need them (cosine over floats), their norms, a float each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "annx/base/types.h"
#include "annx/search/canonical.h"
#include "annx/storage/code_lists.h"

namespace annx::index {

class RowBlock {
 public:
  static constexpr std::size_t kRows = storage::CodeLists::kBlock;

  RowBlock(Metric metric, DType dtype, std::size_t dim)
      : dtype_(dtype),
        dim_(dim),
        stride_(row_bytes(dtype, dim)),
        norms_(metric == Metric::kCosine && search::is_float(dtype)) {}

  // Of a block: a multiple of 64.
  std::size_t payload_bytes() const {
    const std::size_t bytes = kRows * (stride_ + (norms_ ? sizeof(float) : 0));
    return (bytes + 63) / 64 * 64;
  }
  // Whether the rows of blocks that are neighbours lie one after the other.
  bool seamless() const { return payload_bytes() == kRows * stride_; }
  const std::byte* row(const std::byte* block, std::uint32_t lane) const {
    return block + lane * stride_;
  }
  // Null where there are none. Rows are of a multiple of 32 bytes together.
  const float* norms(const std::byte* block) const {
    return norms_ ? reinterpret_cast<const float*>(block + kRows * stride_) : nullptr;
  }
  // Puts a row, as it is kept, into a lane.
  void put(const std::byte* row, std::byte* block, std::uint32_t lane) const {
    std::memcpy(block + lane * stride_, row, stride_);
    if (!norms_) return;
    search::row_norms(dtype_, {row, 1, stride_}, dim_,
                      reinterpret_cast<float*>(block + kRows * stride_) + lane);
  }
  void copy(const std::byte* from, std::uint32_t from_lane, std::byte* to,
            std::uint32_t to_lane) const {
    put(row(from, from_lane), to, to_lane);
  }

 private:
  DType dtype_;
  std::size_t dim_;
  std::size_t stride_;
  bool norms_;
};

}  // namespace annx::index
