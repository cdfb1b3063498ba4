// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/piece_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/codec/kmeans.h"
#include "annx/codec/levels.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

using kernels::kLinkLevels;
using kernels::kPieceGroup;

// Coordinates whose signs make a piece.
constexpr std::size_t kSigns = 4;
constexpr std::size_t kIterations = 15;
// Streams of random numbers: seeds of the pieces.
constexpr std::uint64_t kSeedStream = 2;
constexpr float kMostHalf = 65504.0f;
constexpr std::size_t kMaxWidth = 255;

}  // namespace

PieceCodec::PieceCodec(MatrixView<float> residuals, std::vector<float> mean,
                       const Options& options, std::size_t threads, Monitor* monitor)
    : dim_(residuals.cols), options_(options), mean_(std::move(mean)) {
  if (options.kind == Kind::kProduct &&
      (options.segments == 0 || options.segments > dim_)) {
    throw InvalidArgument("n_segments is " + std::to_string(options.segments) +
                          "; it must be from 1 to dim, " + std::to_string(dim_));
  }
  if (residuals.rows < kLinkLevels) {
    throw InvalidArgument("vectors has " + std::to_string(residuals.rows) +
                          " rows; 4-bit codes need at least 16");
  }
  shape();
  double squares = 0;
  std::vector<float> units(residuals.rows * dim_);
  for (std::size_t i = 0; i < residuals.rows; ++i) {
    const float* row = residuals.row(i);
    double square = 0;
    for (std::size_t k = 0; k < dim_; ++k)
      square += static_cast<double>(row[k]) * static_cast<double>(row[k]);
    squares += square / static_cast<double>(residuals.rows);
    const double factor = square > 0 ? 1 / std::sqrt(square) : 0.0;
    for (std::size_t k = 0; k < dim_; ++k) {
      units[i * dim_ + k] = static_cast<float>(row[k] * factor);
    }
  }
  offset_unit_ = unit_near(squares);
  // A scale is about twice the length of a residual, times sqrt(d) for signs of 1.
  scale_unit_ = unit_near(std::sqrt(squares));
  if (options.kind == Kind::kRabitq) {
    const auto level = static_cast<float>(1 / std::sqrt(static_cast<double>(dim_)));
    std::size_t k = 0;
    for (const std::uint8_t width : widths_) {
      for (std::size_t j = 0; j < width; ++j, ++k) {
        for (std::size_t c = 0; c < kLinkLevels; ++c) {
          levels_[k * kLinkLevels + c] = (c >> j & 1) != 0 ? level : -level;
        }
      }
    }
  } else {
    if (rotated()) {
      const RandomRotation rotation(dim_, options.seed);
      for (std::size_t i = 0; i < residuals.rows; ++i) {
        rotation.apply(units.data() + i * dim_);
      }
    }
    train({units.data(), residuals.rows, dim_, dim_}, threads, monitor);
  }
  derive();
}

// How the coordinates are cut.
void PieceCodec::shape() {
  const std::size_t step = kernels::kLinkPartsStep;
  const std::size_t wanted =
      options_.kind == Kind::kRabitq ? (dim_ + kSigns - 1) / kSigns : options_.segments;
  widths_.assign((wanted + step - 1) / step * step, 0);
  for (std::size_t p = 0; p < wanted; ++p) {
    const std::size_t width = options_.kind == Kind::kRabitq
                                  ? std::min(kSigns, dim_ - p * kSigns)
                                  : dim_ / wanted + (p < dim_ % wanted ? 1 : 0);
    if (width > kMaxWidth) {
      throw InvalidArgument("n_segments is " + std::to_string(wanted) +
                            "; segments must be of at most 255 dimensions");
    }
    widths_[p] = static_cast<std::uint8_t>(width);
  }
  levels_.assign(dim_ * kLinkLevels, 0.0f);
}

void PieceCodec::train(MatrixView<float> units, std::size_t threads, Monitor* monitor) {
  const Random seeds(options_.seed, kSeedStream);
  std::size_t at = 0;
  for (std::size_t p = 0; p < widths_.size(); ++p) {
    const std::size_t width = widths_[p];
    if (width == 0) continue;
    const KMeansResult result =
        kmeans({units.data + at, units.rows, width, units.stride},
               {.n_clusters = kLinkLevels,
                .n_iterations = kIterations,
                .seed = seeds.bits(p),
                .threads = threads},
               nullptr);
    for (std::size_t k = 0; k < width; ++k, ++at) {
      for (std::size_t c = 0; c < kLinkLevels; ++c) {
        levels_[at * kLinkLevels + c] = result.centroids[c * width + k];
      }
    }
    if (monitor != nullptr) monitor->poll(p + 1, widths_.size());
  }
}

void PieceCodec::derive() {
  halves_ = half_squares(levels_, widths_);
  if (rotated()) rotation_.emplace(dim_, options_.seed);
}

std::size_t PieceCodec::payload_bytes() const {
  return pieces() / 2 * kPieceGroup + 2 * 2 * kPieceGroup;
}

std::size_t PieceCodec::memory_bytes() const {
  const std::size_t floats = mean_.size() + levels_.size() + halves_.size();
  return floats * sizeof(float) + widths_.size();
}

void PieceCodec::project(const float* row, float* out) const {
  for (std::size_t i = 0; i < dim_; ++i) out[i] = row[i] - mean_[i];
  if (rotation_) rotation_->apply(out);
}

double PieceCodec::encode(const float* centroid, const float* const* rows,
                          const float* squares, std::size_t count,
                          std::byte* const* blocks, const std::uint32_t* lanes) const {
  std::vector<float> z(dim_ * kPieceGroup);
  std::array<float, kPieceGroup> factors{};
  std::array<float, kPieceGroup> offsets{};
  std::array<float, kPieceGroup> scales{};
  for (std::size_t i = 0; i < count; ++i) {
    factors[i] = squares[i] > 0 ? 1 / std::sqrt(squares[i]) : 0.0f;
    for (std::size_t k = 0; k < dim_; ++k) {
      z[k * kPieceGroup + i] = (rows[i][k] - centroid[k]) * factors[i];
    }
  }
  std::vector<std::uint8_t> codes(pieces() / 2 * kPieceGroup);
  std::array<float, kPieceGroup> dots;
  kernels::active().piece_encode(z.data(), levels_.data(), halves_.data(),
                                 widths_.data(), pieces(), codes.data(), dots.data());
  std::vector<float> products;
  level_products(centroid, levels_, widths_, products);
  double widest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto code = [&](std::size_t p) {
      return codes[p / 2 * kPieceGroup + i] >> (4 * (p % 2)) & 15u;
    };
    const float dot = dots[i];
    const float centroid_dot = sum_of(products, code);
    const double level_square = 2.0 * sum_of(halves_, code);
    const float fit = dot > 0 && squares[i] > 0 ? std::sqrt(squares[i]) / dot : 0.0f;
    const float offset = options_.products ? 0.0f : squares[i] + 2 * fit * centroid_dot;
    offsets[i] = std::clamp(offset / offset_unit_, -kMostHalf, kMostHalf);
    scales[i] = std::clamp((options_.products ? -fit : -2 * fit) / scale_unit_,
                           -kMostHalf, kMostHalf);
    if (fit > 0) {
      widest = std::max(
          widest,
          std::sqrt(std::max(0.0, level_square - static_cast<double>(dot) * dot)));
    }
  }
  std::array<std::byte, 2 * kPieceGroup> narrow_offsets;
  std::array<std::byte, 2 * kPieceGroup> narrow_scales;
  const auto narrow = kernels::active().narrow[1];
  narrow(offsets.data(), kPieceGroup, narrow_offsets.data());
  narrow(scales.data(), kPieceGroup, narrow_scales.data());
  const std::size_t code_bytes = codes.size();
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* block = blocks[i];
    const std::uint32_t lane = lanes[i];
    for (std::size_t at = 0; at < code_bytes; at += kPieceGroup) {
      block[at + lane] = static_cast<std::byte>(codes[at + i]);
    }
    std::memcpy(block + code_bytes + 2 * lane, narrow_offsets.data() + 2 * i, 2);
    std::memcpy(block + code_bytes + 2 * (kPieceGroup + lane),
                narrow_scales.data() + 2 * i, 2);
  }
  return widest;
}

void PieceCodec::copy(const std::byte* from, std::uint32_t from_lane, std::byte* to,
                      std::uint32_t to_lane) const {
  const std::size_t code_bytes = pieces() / 2 * kPieceGroup;
  for (std::size_t at = 0; at < code_bytes; at += kPieceGroup) {
    to[at + to_lane] = from[at + from_lane];
  }
  for (const std::size_t at : {code_bytes, code_bytes + 2 * kPieceGroup}) {
    std::memcpy(to + at + 2 * to_lane, from + at + 2 * from_lane, 2);
  }
}

float PieceCodec::scale(const std::byte* block, std::uint32_t lane) const {
  float scale;
  kernels::active().widen[1](
      block + pieces() / 2 * kPieceGroup + 2 * (kPieceGroup + lane), 1, &scale);
  return std::abs(scale);
}

// `step` is that of a Query's view, in units of the offsets over those of the scales.
float PieceCodec::error(float scale, float reach, float step) const {
  const auto across = static_cast<float>(
      spread_ / std::sqrt(static_cast<double>(std::max<std::size_t>(dim_, 2) - 1)));
  const float rounding =
      step * offset_unit_ * std::sqrt(static_cast<float>(pieces()) / 12.0f);
  return scale * (scale_unit_ * reach * across + rounding);
}

void PieceCodec::decode(const std::byte* block, std::uint32_t lane, float* out) const {
  const float fit =
      scale(block, lane) * scale_unit_ / (options_.products ? 1.0f : 2.0f);
  std::size_t k = 0;
  for (std::size_t p = 0; p < pieces(); ++p) {
    const auto two = static_cast<unsigned>(block[p / 2 * kPieceGroup + lane]);
    const unsigned c = two >> (4 * (p % 2)) & 15u;
    for (std::size_t j = 0; j < widths_[p]; ++j, ++k) {
      out[k] = fit * levels_[k * kLinkLevels + c];
    }
  }
  turn_back(out);
}

void PieceCodec::turn_back(float* x) const {
  if (rotation_) rotation_->apply_inverse(x);
}

void PieceCodec::Query::set(const PieceCodec& codec, const float* vector) {
  coordinates_.resize(codec.dim_);
  codec.project(vector, coordinates_.data());
  sums_.resize(codec.pieces() * kLinkLevels);
  tables_.resize(codec.pieces() * kLinkLevels);
  view_.tables = tables_.data();
  view_.parts = codec.pieces();
  view_.unit = codec.offset_unit_;
  kernels::active().level_tables(coordinates_.data(), codec.levels_.data(),
                                 codec.widths_.data(), codec.pieces(), sums_.data(),
                                 tables_.data(), &view_.step, &view_.bias);
  const float ratio = codec.scale_unit_ / codec.offset_unit_;
  view_.step *= ratio;
  view_.bias *= ratio;
}

void PieceCodec::save_to(storage::FileWriter& writer) const {
  writer.number("codes.kind", static_cast<std::uint64_t>(options_.kind));
  writer.number("codes.segments", options_.segments);
  if (options_.rotate) writer.number("codes.rotate", 1);
  writer.number("codes.products", options_.products ? 1 : 0);
  writer.number("codes.seed", options_.seed);
  writer.real("codes.offset_unit", static_cast<double>(offset_unit_));
  writer.real("codes.scale_unit", static_cast<double>(scale_unit_));
  writer.real("codes.spread", spread_);
  writer.add("codes.mean", std::as_bytes(std::span(mean_)));
  writer.add("codes.levels", std::as_bytes(std::span(levels_)));
}

PieceCodec PieceCodec::load_from(const storage::FileReader& reader, std::size_t dim) {
  PieceCodec codec;
  codec.dim_ = dim;
  codec.options_.kind = static_cast<Kind>(reader.number("codes.kind", 0, 1));
  codec.options_.segments =
      static_cast<std::size_t>(reader.number("codes.segments", 0, dim));
  reader.require(codec.options_.kind == Kind::kRabitq || codec.options_.segments != 0,
                 "codes.segments", "is 0");
  codec.options_.rotate = reader.has("codes.rotate");
  codec.options_.products = reader.number("codes.products", 0, 1) == 1;
  codec.options_.seed = reader.number("codes.seed");
  codec.offset_unit_ =
      static_cast<float>(reader.real("codes.offset_unit", 1e-37, 1e38));
  codec.scale_unit_ = static_cast<float>(reader.real("codes.scale_unit", 1e-37, 1e38));
  codec.spread_ = reader.real("codes.spread", 0.0, 1e6);
  codec.mean_ = reader.finite("codes.mean", dim);
  codec.shape();
  codec.levels_ = reader.finite("codes.levels", dim * kLinkLevels);
  codec.derive();
  return codec;
}

}  // namespace annx::codec
