// SPDX-License-Identifier: Apache-2.0
// A view of rows in memory: no ownership, passed by value.
#pragma once

#include <cstddef>

namespace annx {

// `rows` rows of `cols` elements; row i starts `stride` elements after row i - 1.
template <class T>
struct MatrixView {
  const T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;

  const T* row(std::size_t i) const { return data + i * stride; }
};

// The same, of bytes whose meaning a DType given beside it tells.
struct RowsView {
  const std::byte* data = nullptr;
  std::size_t rows = 0;
  std::size_t stride = 0;  // bytes

  const std::byte* row(std::size_t i) const { return data + i * stride; }
};

inline RowsView bytes_of(MatrixView<float> rows) {
  return {reinterpret_cast<const std::byte*>(rows.data), rows.rows,
          rows.stride * sizeof(float)};
}

}  // namespace annx
