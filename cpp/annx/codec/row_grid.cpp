// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/row_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Rows of which medians are taken.
constexpr std::size_t kMedianRows = 1024;
// The share of the rows that may be left out of the grid.
constexpr double kWide = 0.005;
// Of fewer rows than this the largest coordinate says little of those to come: the grid
// spans so much more.
constexpr std::size_t kFewRows = 4096;
constexpr float kMargin = 1.25f;
// A smaller step than this, in which all rows are one point, gains nothing, and its
// square would not be a normal number.
constexpr float kLeastStep = 1e-18f;
constexpr float kMost = 127.0f;
constexpr std::uint8_t kMostExponent = 200;

// The least half of the range that a grid spans, from the largest |coordinate| of each
// row.
float half_range(std::vector<float>& largest) {
  const float most = *std::max_element(largest.begin(), largest.end());
  const auto left_out =
      static_cast<std::size_t>(kWide * static_cast<double>(largest.size()));
  const auto at = largest.end() - 1 - static_cast<std::ptrdiff_t>(left_out);
  std::nth_element(largest.begin(), at, largest.end());
  return most > 2 * *at ? *at : most;
}

}  // namespace

RowGrid::RowGrid(std::size_t dim, std::size_t count,
                 const std::function<void(std::size_t, float*)>& get, bool turn,
                 std::uint64_t seed)
    : RowGrid(dim) {
  const std::size_t rows = std::min(count, kSample);
  std::vector<float> row(dim);
  const auto each = [&](std::size_t sample, const auto& use) {
    for (std::size_t i = 0; i < sample; ++i) {
      get(i * count / sample, row.data());
      use(i);
    }
  };
  std::vector<float> low(dim, std::numeric_limits<float>::infinity());
  std::vector<float> high(dim, -std::numeric_limits<float>::infinity());
  each(rows, [&](std::size_t) {
    for (std::size_t k = 0; k < dim; ++k) {
      low[k] = std::min(low[k], row[k]);
      high[k] = std::max(high[k], row[k]);
    }
  });
  const std::size_t few = std::min(rows, kMedianRows);
  std::vector<float> columns(dim * few);
  each(few, [&](std::size_t i) {
    for (std::size_t k = 0; k < dim; ++k) columns[k * few + i] = row[k];
  });
  std::vector<float> middle(dim), median(dim);
  float range = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    middle[k] = 0.5f * low[k] + 0.5f * high[k];
    range = std::max(range, 0.5f * high[k] - 0.5f * low[k]);
    float* column = columns.data() + k * few;
    std::nth_element(column, column + few / 2, column + few);
    median[k] = column[few / 2];
  }

  // A power of two of which all is a multiple?
  const float unit =
      std::max(kLeastStep,
               std::exp2(std::ceil(std::log2(std::max(range, kLeastStep) / 127.5f))));
  std::vector<float> snapped(dim);
  for (std::size_t k = 0; k < dim; ++k) {
    snapped[k] = std::floor(middle[k] / unit + 0.5f) * unit;
  }
  bool whole = true;
  std::vector<float> by_middle(rows), by_median(rows), by_turn(turn ? rows : 0);
  centre_ = median;
  if (turn) set_rotation(seed);
  each(rows, [&](std::size_t i) {
    float to_middle = 0;
    float to_median = 0;
    for (std::size_t k = 0; k < dim; ++k) {
      const float u = (row[k] - snapped[k]) / unit;
      whole = whole && u == std::floor(u) && u >= -128.0f && u <= kMost &&
              u * unit + snapped[k] == row[k];
      to_middle = std::max(to_middle, std::abs(row[k] - middle[k]));
      to_median = std::max(to_median, std::abs(row[k] - median[k]));
    }
    by_middle[i] = to_middle;
    by_median[i] = to_median;
    if (!turn) return;
    place(row.data());
    for (std::size_t k = 0; k < dim; ++k) {
      by_turn[i] = std::max(by_turn[i], std::abs(row[k]));
    }
  });
  if (whole) {
    rotation_ = nullptr;
    centre_ = std::move(snapped);
    turned_centre_ = centre_;
    step_ = unit;
    return;
  }
  float half = half_range(by_median);
  const float half_middle = half_range(by_middle);
  const bool by_range = half_middle < half;
  half = std::min(half, half_middle);
  const float half_turned = turn ? half_range(by_turn) : half;
  if (turn && half_turned < half) {
    half = half_turned;
  } else {
    rotation_ = nullptr;
    if (by_range) centre_ = std::move(middle);
    turned_centre_ = centre_;
  }
  if (count < kFewRows) half *= kMargin;
  step_ = std::max(half / kMost, kLeastStep);
}

void RowGrid::set_rotation(std::uint64_t seed) {
  seed_ = seed;
  rotation_ = std::make_unique<RandomRotation>(dim_, seed);
  turned_centre_ = centre_;
  rotation_->apply(turned_centre_.data());
}

float RowGrid::step(std::uint8_t e) const { return std::ldexp(step_, e); }

void RowGrid::turn(float* x) const {
  if (rotation_ != nullptr) rotation_->apply(x);
}

void RowGrid::place(float* x) const {
  for (std::size_t k = 0; k < dim_; ++k) x[k] -= centre_[k];
  turn(x);
}

std::uint8_t RowGrid::exponent(const float* placed) const {
  float low = 0;
  float high = 0;
  for (std::size_t k = 0; k < dim_; ++k) {
    low = std::min(low, placed[k]);
    high = std::max(high, placed[k]);
  }
  std::uint8_t e = 0;
  // What rounds to -128 or 127 fits.
  while (e < kMostExponent &&
         (low < -128.5f * step(e) || !(high < (kMost + 0.5f) * step(e)))) {
    ++e;
  }
  return e;
}

void round_to_bytes(const float* in, std::size_t n, float unit, std::int8_t* out) {
  const float inverse = unit > 0 ? 1 / unit : 0.0f;
  for (std::size_t k = 0; k < n; ++k) {
    // By way of positive numbers, which conversion cuts off.
    const float u = std::min(std::max(0.0f, in[k] * inverse + 128.5f), 255.0f);
    out[k] = static_cast<std::int8_t>(static_cast<int>(u) - 128);
  }
}

void RowGrid::encode(const float* placed, std::uint8_t e, std::int8_t* code) const {
  round_to_bytes(placed, dim_, step(e), code);
}

void RowGrid::decode(const std::int8_t* code, std::uint8_t e, float* out) const {
  const float step = this->step(e);
  for (std::size_t k = 0; k < dim_; ++k) out[k] = step * static_cast<float>(code[k]);
  if (rotation_ != nullptr) rotation_->apply_inverse(out);
  for (std::size_t k = 0; k < dim_; ++k) out[k] += centre_[k];
}

std::size_t RowGrid::memory_bytes() const {
  return (centre_.capacity() + turned_centre_.capacity()) * sizeof(float) +
         (rotation_ != nullptr ? rotation_->memory_bytes() : 0);
}

void RowGrid::save_to(storage::FileWriter& file) const {
  file.real("grid.step", step_);
  file.number("grid.turned", turned() ? 1 : 0);
  file.number("grid.seed", seed_);
  file.add("grid.centre", std::as_bytes(std::span(centre_)));
}

RowGrid RowGrid::load_from(const storage::FileReader& file, std::size_t dim) {
  RowGrid grid(dim);
  grid.step_ = static_cast<float>(file.real("grid.step", kLeastStep, 1e30));
  grid.centre_ = file.finite("grid.centre", dim);
  grid.turned_centre_ = grid.centre_;
  if (file.number("grid.turned", 0, 1) == 1) {
    grid.set_rotation(file.number("grid.seed"));
  }
  return grid;
}

}  // namespace annx::codec
