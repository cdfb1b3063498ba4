// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/panels.h"

namespace annx::storage {

void Panels::pack(MatrixView<float> vectors, const PackOptions& options) {
  count_ = vectors.rows;
  dim_ = vectors.cols;
  panels_ = (count_ + width() - 1) / width();
  const std::size_t bytes = padded() * dim_ * sizeof(float);
  if (bytes > data_.size()) data_ = AlignedBuffer(bytes);
  if (padded() > squares_.size()) squares_.resize(padded());
  const kernels::TilePack pack =
      side_ == Side::kQueries ? kernels_->pack_queries : kernels_->pack_rows;
  pack(vectors.data, vectors.stride, count_, dim_, options.centre, options.scales,
       options.factor, reinterpret_cast<float*>(data_.data()), squares_.data());
}

}  // namespace annx::storage
