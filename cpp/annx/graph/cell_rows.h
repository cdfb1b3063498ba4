// SPDX-License-Identifier: Apache-2.0
// The rows of a sketch once they are sorted into cells, and the means of the cells.
//
// Rows may be kept as they are, or as float16 differences from the mean of their cell:
// half the memory, and as exact as needed to tell near rows apart even where cells are
// tight and far from one another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/aligned_buffer.h"
#include "annx/base/prefetch.h"
#include "annx/graph/knn_cells.h"

namespace annx::graph {

class CellRows {
 public:
  CellRows() = default;
  // Takes rows in order of slot; from now on they count by position.
  CellRows(AlignedBuffer rows, std::size_t width, const KnnCells& cells, bool halves,
           std::size_t threads);

  std::size_t width() const { return width_; }
  bool halves() const { return halves_; }
  std::uint32_t cell_of(std::size_t position) const { return cell_of_[position]; }
  // [cell][width]
  const std::vector<float>& means() const { return means_; }
  const float* mean(std::size_t cell) const { return means_.data() + cell * width_; }
  // The row: in place, or written to `scratch`.
  const float* read(std::size_t position, float* scratch) const {
    if (!halves_) return reinterpret_cast<const float*>(bytes(position));
    widen(position, scratch);
    return scratch;
  }
  // The same, always written.
  void copy(std::size_t position, float* out) const;
  void prefetch(std::size_t position) const {
    prefetch_run(bytes(position), stride_);
    annx::prefetch(&cell_of_[position]);
  }
  // Multiplies the last coordinate of all rows and means.
  void scale_last(float factor);

 private:
  const std::byte* bytes(std::size_t position) const {
    return rows_.data() + position * stride_;
  }
  void find_means(const KnnCells& cells, std::size_t threads);
  void widen(std::size_t position, float* out) const;

  std::size_t width_ = 0;
  std::size_t stride_ = 0;  // bytes a row
  bool halves_ = false;
  float last_ = 1;  // factor of the last coordinate of halves
  AlignedBuffer rows_;
  std::vector<std::uint32_t> cell_of_;
  std::vector<float> means_;
};

}  // namespace annx::graph
