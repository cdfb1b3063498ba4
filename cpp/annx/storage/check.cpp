// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "annx/base/ball.h"
#include "annx/base/error.h"
#include "annx/kernels/dispatch.h"

namespace annx::storage {
namespace {

[[noreturn]] void refuse(std::string_view argument, std::size_t row, const char* why) {
  throw InvalidArgument(std::string(argument) + " row " + std::to_string(row) + " " +
                        why);
}

// A sum of squares is finite only if every element is, so one inner product of the row
// with itself finds NaN, infinity and overflow together.
void check_float(const float* row, std::size_t dim, std::size_t i,
                 std::string_view argument) {
  float square = 0;
  kernels::active().float_rows[kernels::kOpDot][0](
      row, reinterpret_cast<const std::byte*>(row), dim * 4, 1, dim, &square);
  if (std::isfinite(square)) return;
  const bool values =
      std::all_of(row, row + dim, [](float x) { return std::isfinite(x); });
  refuse(argument, i,
         values ? "has a squared norm too large for float32"
                : "holds NaN or infinity; every value must be finite");
}

void check_half(const std::byte* row, std::size_t dim, std::size_t i,
                std::string_view argument) {
  // An exponent of all ones is NaN or infinity; no finite row's norm can overflow.
  std::uint32_t bad = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    std::uint16_t word;
    std::memcpy(&word, row + 2 * k, 2);
    bad |= static_cast<std::uint32_t>((word & 0x7C00u) == 0x7C00u);
  }
  if (bad != 0)
    refuse(argument, i, "holds NaN or infinity; every value must be finite");
}

}  // namespace

void check_rows(DType dtype, RowsView rows, std::size_t dim,
                std::string_view argument) {
  switch (dtype) {
    case DType::kFloat32:
      for (std::size_t i = 0; i < rows.rows; ++i) {
        check_float(reinterpret_cast<const float*>(rows.row(i)), dim, i, argument);
      }
      return;
    case DType::kFloat16:
      for (std::size_t i = 0; i < rows.rows; ++i) {
        check_half(rows.row(i), dim, i, argument);
      }
      return;
    case DType::kBFloat16: {
      std::vector<float> wide(dim);
      for (std::size_t i = 0; i < rows.rows; ++i) {
        for (std::size_t k = 0; k < dim; ++k) {
          std::uint16_t word;
          std::memcpy(&word, rows.row(i) + 2 * k, 2);
          const std::uint32_t bits = static_cast<std::uint32_t>(word) << 16;
          std::memcpy(&wide[k], &bits, 4);
        }
        check_float(wide.data(), dim, i, argument);
      }
      return;
    }
    case DType::kInt8:
    case DType::kUInt8: return;
    case DType::kBits:
      if (dim % 8 == 0) return;
      for (std::size_t i = 0; i < rows.rows; ++i) {
        const auto last = static_cast<unsigned>(rows.row(i)[dim / 8]);
        if ((last >> (dim % 8)) != 0) {
          refuse(argument, i, "sets bits after the last; they must be 0");
        }
      }
      return;
  }
}

void check_rows(Metric metric, DType dtype, RowsView rows, std::size_t dim,
                std::string_view argument) {
  check_rows(dtype, rows, dim, argument);
  if (metric != Metric::kPoincare) return;
  std::vector<float> wide(dtype == DType::kFloat32 ? 0 : dim);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const auto* row = reinterpret_cast<const float*>(rows.row(i));
    if (dtype != DType::kFloat32) {
      kernels::active().widen[static_cast<std::size_t>(dtype)](rows.row(i), dim,
                                                               wide.data());
      row = wide.data();
    }
    if (!(ball_gap(row, dim) >= kLeastGap)) {
      refuse(argument, i, "is not within the unit ball; its length must be below 1");
    }
  }
}

}  // namespace annx::storage
