// SPDX-License-Identifier: Apache-2.0
// Queries of rows on a grid (row_grid.h). With y = R (q - centre), s = step 2^e and a
// row's code u:
//     l2:  y = s v + r, v the nearest code and r, where y lies off the grid, what is
//          missing: |y - s u|^2 = s^2 |v - u|^2 + 2 <r, s v - s u> + |r|^2, r being
//          rounded to 8 bits for the products (0 for nearly every query, and then never
//          asked for). The rest of y - s v is half a step at most and left out.
//     l1:  the same, where what is missing adds its own length whatever u.
//     ip:  -<R q, s u>, R q rounded to 127 steps of its largest coordinate, and for
//          rows as queries -<s v, s' u>.
// Each e has its own v. Nearly all rows have e = 0.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "annx/base/square.h"
#include "annx/codec/row_codec.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

constexpr float kMostCode = 127.0f;
// Twice the distance of a zero row, as keys of cosine are.
constexpr float kZeroKey = 2.0f;

float largest_of(const float* x, std::size_t n) {
  float largest = 0;
  for (std::size_t k = 0; k < n; ++k) largest = std::max(largest, std::abs(x[k]));
  return largest;
}

}  // namespace

// The query (cosine: unit_) in the basis of the codes.
void RowCodec::Query::set_on_grid() {
  const RowCodec& codec = *codec_;
  const std::size_t dim = codec.dim_;
  const bool cosine = codec.metric_ == Metric::kCosine;
  if (cosine) op_ = kernels::kOpL2;
  const float* given = cosine ? unit_.data() : reinterpret_cast<const float*>(query_);
  traversal_.assign(given, given + dim);
  if (op_ == kernels::kOpDot) {
    codec.grid_->turn(traversal_.data());
    base_ = 0;
    for (std::size_t k = 0; k < dim; ++k) {
      base_ += static_cast<double>(traversal_[k]) *
               static_cast<double>(codec.grid_->turned_centre()[k]);
    }
  } else {
    codec.grid_->place(traversal_.data());
  }
  if (cosine) base_ = square_of(codec.grid_->turned_centre().data(), dim);
  for (Coded& coded : coded_) coded.made = false;
}

// What the query is beside rows of this e.
RowCodec::Query::Coded& RowCodec::Query::coded(std::uint8_t e) const {
  if (coded_.size() <= e) coded_.resize(e + std::size_t{1});
  Coded& coded = coded_[e];
  if (coded.made) return coded;
  const RowCodec& codec = *codec_;
  const RowGrid& grid = *codec.grid_;
  const std::size_t dim = codec.dim_;
  const float step = grid.step(e);
  coded.made = true;
  coded.base = 0;
  coded.beyond_factor = 0;
  coded.bytes.assign(codec.padded_dim_, 0);
  const float* query = traversal_.data();
  if (item_) {
    const std::uint8_t own = codec.exponent(item_slot_);
    const std::byte* code = codec.high_.data() + item_slot_ * codec.stride_;
    if (own == e || op_ == kernels::kOpDot) {
      std::memcpy(coded.bytes.data(), code, dim);
      coded.factor = op_ == kernels::kOpL1   ? step
                     : op_ == kernels::kOpL2 ? step * step
                                             : -step * grid.step(own);
      return coded;
    }
    item_row_.resize(dim);
    kernels::active().widen[codec.traversal_type_](code, dim, item_row_.data());
    for (float& x : item_row_) x *= grid.step(own);
    query = item_row_.data();
  }
  if (op_ == kernels::kOpDot) {
    const float unit = largest_of(query, dim) / kMostCode;
    round_to_bytes(query, dim, unit, coded.bytes.data());
    coded.factor = -unit * step;
    return coded;
  }
  grid.encode(query, e, coded.bytes.data());
  coded.factor = op_ == kernels::kOpL1 ? step : step * step;
  // Off the grid by more than rounding?
  const float low = -128.5f * step;
  const float high = (kMostCode + 0.5f) * step;
  unsigned beyond = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    beyond |=
        static_cast<unsigned>(query[k] < low) | static_cast<unsigned>(query[k] > high);
  }
  if (beyond == 0) return coded;
  missing_.assign(dim, 0.0f);
  double base = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    if (!(query[k] < low || query[k] > high)) continue;
    const float there = step * static_cast<float>(coded.bytes[k]);
    const float r = query[k] - there;
    missing_[k] = r;
    base += op_ == kernels::kOpL1
                ? static_cast<double>(std::abs(r))
                : static_cast<double>(r) *
                      (static_cast<double>(r) + 2.0 * static_cast<double>(there));
  }
  coded.base = static_cast<float>(base);
  if (op_ == kernels::kOpL1) return coded;
  const float unit = largest_of(missing_.data(), dim) / kMostCode;
  coded.beyond.assign(codec.padded_dim_, 0);
  round_to_bytes(missing_.data(), dim, unit, coded.beyond.data());
  coded.beyond_factor = -2 * unit * step;
  return coded;
}

void RowCodec::Query::score_coded(const Coded& coded, const std::uint32_t* slots,
                                  std::size_t count, float* out) const {
  const RowCodec& codec = *codec_;
  const auto& gather = kernels::active().byte_gather;
  const auto run = [&](kernels::Op op, const std::vector<std::int8_t>& query) {
    gather[op][0](reinterpret_cast<const std::byte*>(query.data()), codec.high_.data(),
                  codec.stride_, slots, count, codec.padded_dim_, integer_keys_.data());
  };
  run(op_, coded.bytes);
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = coded.factor * static_cast<float>(integer_keys_[i]) + coded.base;
  }
  if (coded.beyond_factor == 0) return;
  run(kernels::kOpDot, coded.beyond);
  for (std::size_t i = 0; i < count; ++i) {
    out[i] += coded.beyond_factor * static_cast<float>(integer_keys_[i]);
  }
}

void RowCodec::Query::score_on_grid(const std::uint32_t* slots, std::size_t count,
                                    float* out) const {
  const RowCodec& codec = *codec_;
  if (integer_keys_.size() < count) integer_keys_.resize(count);
  score_coded(coded(0), slots, count, out);
  if (codec.exponents_.empty()) return;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t e = codec.exponents_[slots[i]];
    if (e == kZeroRow) {
      // 1 - cosine is 1. Between rows codes serve: zero rows are then near each other.
      if (!item_) out[i] = kZeroKey;
    } else if (e != 0) {
      score_coded(coded(e), slots + i, 1, out + i);
    }
  }
}

double RowCodec::Query::exact_on_grid(std::uint32_t slot) {
  const RowCodec& codec = *codec_;
  const kernels::KernelTable& table = kernels::active();
  const std::size_t dim = codec.dim_;
  const bool cosine = codec.metric_ == Metric::kCosine;
  if (cosine && (query_norm_ == 0 || codec.scale_[slot] == 0)) return 1.0;
  codec.widen(slot, row_.data());
  const auto* row = reinterpret_cast<const std::byte*>(row_.data());
  const float step = codec.grid_->step(codec.exponent(slot));
  float value;
  if (op_ == kernels::kOpDot) {
    table.float_rows[op_][0](traversal_.data(), row, dim * 4, 1, dim, &value);
    return -(static_cast<double>(step) * static_cast<double>(value) + base_);
  }
  if (op_ == kernels::kOpL1) {
    for (float& x : row_) x *= step;
    table.float_rows[op_][0](traversal_.data(), row, dim * 4, 1, dim, &value);
    return static_cast<double>(value);
  }
  table.float_scaled_rows[0](traversal_.data(), row, dim * 4, &step, 1, dim, &value);
  const auto square = static_cast<double>(value);
  if (!cosine) return square;
  // The row y that the code stands for is not quite of length 1: with the query q of
  // length 1, |q - y|^2 = (|y| - 1)^2 + 2 |y| (1 - cosine).
  std::int32_t codes;
  table.byte_squares[0](codec.high_.data() + slot * codec.stride_, codec.stride_, 1,
                        dim, &codes);
  table.float_rows[kernels::kOpDot][0](codec.grid_->turned_centre().data(), row,
                                       dim * 4, 1, dim, &value);
  const auto wide = static_cast<double>(step);
  const double length = std::sqrt(
      std::max(0.0, wide * (wide * codes + 2 * static_cast<double>(value)) + base_));
  const double excess = length - 1;
  return length > 0 ? std::max(0.0, square - excess * excess) / (2 * length) : 1.0;
}

}  // namespace annx::codec
