// SPDX-License-Identifier: Apache-2.0
// Vectors packed for the register tiles (TileKernels in kernels/table.h), with the
// memory that holds them. Packing again reuses it.
#pragma once

#include <cstddef>
#include <vector>

#include "annx/base/aligned_buffer.h"
#include "annx/base/matrix_view.h"
#include "annx/kernels/table.h"

namespace annx::storage {

struct PackOptions {
  const float* centre = nullptr;  // dim floats, or null for 0
  const float* scales = nullptr;  // one a vector, or null for 1
  float factor = 1.0f;
};

class Panels {
 public:
  enum class Side { kQueries, kRows };

  Panels(const kernels::TileKernels& kernels, Side side)
      : kernels_(&kernels), side_(side) {}

  // Packs (x * scale - centre) * factor of every vector. Throws std::bad_alloc.
  void pack(MatrixView<float> vectors, const PackOptions& options = {});

  std::size_t count() const { return count_; }    // vectors
  std::size_t panels() const { return panels_; }  // whole panels that hold them
  std::size_t width() const {
    return side_ == Side::kQueries ? kernels_->queries : kernels_->rows;
  }
  std::size_t padded() const { return panels_ * width(); }
  const float* data() const { return reinterpret_cast<const float*>(data_.data()); }
  const float* panel(std::size_t p) const { return data() + p * width() * dim_; }
  // Squared norms before `factor`, padded() of them; 0 for vectors past the last.
  const float* squares() const { return squares_.data(); }
  std::size_t memory_bytes() const { return data_.size() + squares_.capacity() * 4; }

 private:
  const kernels::TileKernels* kernels_;
  Side side_;
  std::size_t count_ = 0;
  std::size_t panels_ = 0;
  std::size_t dim_ = 0;
  AlignedBuffer data_;
  std::vector<float> squares_;
};

}  // namespace annx::storage
