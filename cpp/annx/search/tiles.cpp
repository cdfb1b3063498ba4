// SPDX-License-Identifier: Apache-2.0
#include "annx/search/tiles.h"

#include <cmath>

namespace annx::search {
namespace {

constexpr double kUnit = 0x1.0p-24;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Squares above this could overflow in a tile or in a bound.
constexpr double kMaxSquare = 1e36;

// Rounded up, and strictly above, because a tile's test is "less than".
float above(double x) {
  if (x >= static_cast<double>(std::numeric_limits<float>::max())) return kInfinity;
  return next_above(next_above(static_cast<float>(std::max(x, -1e38))));
}

void widen_row(DType dtype, const std::byte* row, std::size_t dim, float* out) {
  kernels::active().widen[static_cast<std::size_t>(dtype)](row, dim, out);
}

}  // namespace

bool tiles_serve(Metric metric, DType dtype) {
  return dtype != DType::kBits && metric != Metric::kL1 && metric != Metric::kPoincare;
}

std::vector<float> TilePass::centre_of(const RowSet& set) {
  constexpr std::size_t kSample = 1024;
  const std::size_t n = std::min(set.count, kSample);
  std::vector<double> sum(set.dim, 0.0);
  std::vector<float> wide(set.dim);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t entry = i * set.count / n;
    widen_row(set.dtype, set.row(entry), set.dim, wide.data());
    double scale = 1.0;
    if (set.metric == Metric::kCosine) {
      const double norm = set.norms[set.slot(entry)];
      scale = norm > 0 ? 1.0 / norm : 0.0;
    }
    for (std::size_t k = 0; k < set.dim; ++k) sum[k] += scale * wide[k];
  }
  std::vector<float> centre(set.dim, 0.0f);
  for (std::size_t k = 0; k < set.dim && n != 0; ++k) {
    const auto mean = static_cast<float>(sum[k] / static_cast<double>(n));
    if (std::isfinite(mean)) centre[k] = mean;
  }
  return centre;
}

TilePass::TilePass(const RowSet& set, RowsView queries,
                   const std::vector<float>& centre)
    : set_(set),
      product_(set.metric == Metric::kInnerProduct),
      centre_(centre),
      queries_(kernels::active().tile, storage::Panels::Side::kQueries),
      square_(queries.rows),
      error_(queries.rows),
      unit_(queries.rows, 1.0),
      shift_(queries.rows, 0.0),
      direct_(queries.rows, 0) {
  const auto dim = static_cast<double>(set.dim);
  const double n = (dim + 2) * kUnit;
  g_ = n / (1 - n);
  a_ = product_ ? 2 * g_ + 4 * kUnit : 4 * g_ + 8 * kUnit;
  h_ = 2 * (dim / 32 + 20) * kUnit;
  slack_ = 1e-30 + (set.metric == Metric::kCosine ? 0x1.0p-42 : 0.0);
  double centre_square = 0;
  for (const float c : centre_) centre_square += static_cast<double>(c) * c;
  centre_norm_ = std::sqrt(centre_square);

  const DType dtype = query_dtype(set.dtype);
  std::vector<float> wide(queries.rows * set.dim);
  std::vector<float> scales(queries.rows, 1.0f);
  for (std::size_t i = 0; i < queries.rows; ++i) {
    float* q = wide.data() + i * set.dim;
    widen_row(dtype, queries.row(i), set.dim, q);
    float norm;
    row_norms(DType::kFloat32,
              {reinterpret_cast<const std::byte*>(q), 1, set.dim * sizeof(float)},
              set.dim, &norm);
    if (set.metric == Metric::kCosine) {
      // A zero query is at distance 1 from everything: no tile is needed.
      if (norm == 0) direct_[i] = 1;
      scales[i] = norm > 0 ? 1.0f / norm : 0.0f;
    } else if (product_) {
      // For a constant added to all sums of a query, a double's error is of no account.
      for (std::size_t k = 0; k < set.dim; ++k) {
        shift_[i] += static_cast<double>(q[k]) * centre_[k];
      }
      int exponent = 0;
      if (norm > 0) std::frexp(norm, &exponent);
      unit_[i] = std::ldexp(1.0, -exponent);
      scales[i] = static_cast<float>(unit_[i]);
      shift_[i] = shift_[i] * unit_[i] + 1e-12 * centre_norm_;
      // Also queries so small that elements would underflow in the scaling or before.
      if (norm == 0 || !(scales[i] < 1e30f) || !(scales[i] > 1e-30f)) direct_[i] = 1;
    }
  }
  queries_.pack({wide.data(), queries.rows, set.dim, set.dim},
                {.centre = product_ ? nullptr : centre_.data(),
                 .scales = scales.data(),
                 .factor = product_ ? -1.0f : -2.0f});
  for (std::size_t i = 0; i < queries.rows; ++i) {
    // The packed square has the relative error g_ at most.
    square_[i] = queries_.squares()[i];
    if (!(square_[i] < kMaxSquare)) direct_[i] = 1;
    // e, and the error of Q itself, which enters every comparison with a key.
    error_[i] = product_ ? 0.0 : (4 * g_ + 8 * kUnit) * square_[i];
  }
}

float TilePass::limit(std::size_t query, double key) const {
  if (product_) {
    const double scaled = key * unit_[query];
    return above(scaled + std::abs(scaled) * kUnit + shift_[query] + slack_);
  }
  const double distance = set_.metric == Metric::kCosine ? 2 * key : key;
  return above(distance + std::abs(distance) * h_ - square_[query] + error_[query] +
               slack_);
}

float TilePass::high(std::size_t query, float low, float gap) const {
  double v = static_cast<double>(low) + gap;
  if (!product_) {
    v += 2 * error_[query];
    v += h_ * std::max(0.0, v + square_[query]);
  }
  return above(v + slack_);
}

TilePass::Bounds TilePass::zero_row(std::size_t query) const {
  const double pad = 4 * error_[query] + 16 * kUnit;
  return {static_cast<float>(2.0 - square_[query] - pad), static_cast<float>(3 * pad)};
}

TileRows::TileRows(const TilePass& pass)
    : pass_(pass),
      tile_(kernels::active().tile),
      rows_(kernels::active().tile, storage::Panels::Side::kRows) {}

std::size_t TileRows::block_rows(std::size_t dim) {
  constexpr std::size_t kBytes = std::size_t{512} << 10;
  const std::size_t rows = kBytes / (dim * sizeof(float));
  const std::size_t width = kernels::active().tile.rows;
  return std::min<std::size_t>(std::max(rows / width, std::size_t{1}) * width,
                               4096 / width * width);
}

bool TileRows::load(std::size_t begin, std::size_t count) {
  const RowSet& set = pass_.set_;
  begin_ = begin;
  count_ = count;
  zeros_.clear();
  MatrixView<float> view{nullptr, count, set.dim, set.dim};
  if (set.slots == nullptr && set.dtype == DType::kFloat32) {
    view.data = reinterpret_cast<const float*>(set.row(begin));
    view.stride = set.stride / sizeof(float);
  } else {
    wide_.resize(count * set.dim);
    for (std::size_t i = 0; i < count; ++i) {
      widen_row(set.dtype, set.row(begin + i), set.dim, wide_.data() + i * set.dim);
    }
    view.data = wide_.data();
  }
  const bool cosine = set.metric == Metric::kCosine;
  if (cosine) {
    scales_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const float norm = set.norms[set.slot(begin + i)];
      scales_[i] = norm > 0 ? 1.0f / norm : 0.0f;
      if (norm == 0) zeros_.push_back(static_cast<std::uint32_t>(begin + i));
    }
  }
  rows_.pack(view, {.centre = pass_.centre_.data(),
                    .scales = cosine ? scales_.data() : nullptr,
                    .factor = 1.0f});
  bias_.assign(rows_.padded(), kInfinity);
  gap_.assign(rows_.padded(), 0.0f);
  for (std::size_t i = 0; i < count; ++i) {
    const double square = rows_.squares()[i];
    if (!(square < kMaxSquare)) return false;
    if (pass_.product_) {
      const double r = std::sqrt(square * (1 + 2 * pass_.g_));
      const double error = pass_.a_ * r + pass_.h_ * (pass_.centre_norm_ + r);
      bias_[i] = static_cast<float>(-error * 1.01);
      gap_[i] = static_cast<float>(error * 2.2);
    } else {
      bias_[i] = static_cast<float>(square * (1 - pass_.a_));
      gap_[i] = static_cast<float>(square * pass_.a_ * 2.2);
    }
  }
  for (const std::uint32_t entry : zeros_) bias_[entry - begin] = kInfinity;
  return true;
}

}  // namespace annx::search
