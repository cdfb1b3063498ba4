// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/sign_sketch.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Stream of the seed; hash functions take the first ones.
constexpr std::uint64_t kDirections = 8;
constexpr std::size_t kSample = 1024;

const float* widened(DType dtype, const std::byte* row, bool query, std::size_t dim,
                     std::vector<float>& wide) {
  if (dtype == DType::kFloat32 || (query && dtype <= DType::kBFloat16)) {
    return reinterpret_cast<const float*>(row);
  }
  wide.resize(dim);
  kernels::active().widen[static_cast<std::size_t>(dtype)](row, dim, wide.data());
  return wide.data();
}

}  // namespace

SignSketch::SignSketch(const Options& options, RowsView sample) : options_(options) {
  const std::size_t dim = options.dim;
  const Random random(options.seed, kDirections);
  std::vector<double> all(options.bits * dim);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double radius = std::sqrt(-2 * std::log(1 - random.unit(2 * i)));
    all[i] = radius * std::cos(2 * std::numbers::pi * random.unit(2 * i + 1));
  }
  for (std::size_t b = 0; b < options.bits; ++b) {
    double* mine = all.data() + b * dim;
    for (std::size_t o = b / dim * dim; o < b; ++o) {
      const double* other = all.data() + o * dim;
      double product = 0;
      for (std::size_t k = 0; k < dim; ++k) product += mine[k] * other[k];
      for (std::size_t k = 0; k < dim; ++k) mine[k] -= product * other[k];
    }
    double square = 0;
    for (std::size_t k = 0; k < dim; ++k) square += mine[k] * mine[k];
    const double factor = square > 0 ? 1 / std::sqrt(square) : 0;
    for (std::size_t k = 0; k < dim; ++k) mine[k] *= factor;
  }
  directions_.reserve(all.size());
  directions_.resize(all.size());
  std::transform(all.begin(), all.end(), directions_.mutable_data(),
                 [](double x) { return static_cast<float>(x); });
  limits_.reserve(options.bits);
  limits_.resize(options.bits);
  const std::size_t n = std::min(sample.rows, kSample);
  if (options.metric == Metric::kCosine || n == 0) return;
  std::vector<double> mean(dim);
  std::vector<float> wide;
  for (std::size_t i = 0; i < n; ++i) {
    const float* row = widened(options.dtype, sample.row(i), false, dim, wide);
    for (std::size_t k = 0; k < dim; ++k) mean[k] += row[k];
  }
  for (std::size_t b = 0; b < options.bits; ++b) {
    double product = 0;
    for (std::size_t k = 0; k < dim; ++k) product += all[b * dim + k] * mean[k];
    limits_.mutable_data()[b] = static_cast<float>(product / static_cast<double>(n));
  }
}

void SignSketch::write(const std::byte* row, bool query, Space& space,
                       std::uint8_t* out) const {
  space.sums.resize(options_.bits);
  kernels::active().float_rows[kernels::kOpDot][0](
      widened(options_.dtype, row, query, options_.dim, space.wide),
      directions_.bytes().data(), options_.dim * sizeof(float), options_.bits,
      options_.dim, space.sums.data());
  for (std::size_t b = 0; b < options_.bits; b += 8) {
    unsigned byte = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      byte |= (space.sums[b + i] > limits_[b + i] ? 1u : 0u) << i;
    }
    out[b / 8] = static_cast<std::uint8_t>(byte);
  }
}

void SignSketch::save_to(storage::FileWriter& writer) const {
  writer.add("directions", directions_.bytes());
  writer.add("limits", limits_.bytes());
}

SignSketch SignSketch::load_from(const storage::FileReader& reader,
                                 const Options& options) {
  SignSketch sketch;
  sketch.options_ = options;
  sketch.directions_ = reader.array<float>("directions", options.bits * options.dim);
  sketch.limits_ = reader.array<float>("limits", options.bits);
  return sketch;
}

}  // namespace annx::codec
