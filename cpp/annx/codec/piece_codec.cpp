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
#include "annx/codec/learnt_rotation.h"
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
// Groups that 256 levels are scored in.
constexpr std::size_t kLevelGroups = 256 / kernels::kGroup;

}  // namespace

PieceCodec::PieceCodec(MatrixView<float> residuals, std::vector<float> mean,
                       const Options& options, std::size_t threads, Monitor* monitor)
    : dim_(residuals.cols), options_(options), mean_(std::move(mean)) {
  if (options.kind != Kind::kRabitq &&
      (options.segments == 0 || options.segments > dim_)) {
    throw InvalidArgument("n_segments is " + std::to_string(options.segments) +
                          "; it must be from 1 to dim, " + std::to_string(dim_));
  }
  if (residuals.rows < level_count()) {
    throw InvalidArgument("vectors has " + std::to_string(residuals.rows) +
                          " rows; codes of " + (bytes() ? "8" : "4") +
                          " bits need at least " + std::to_string(level_count()));
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
    const MatrixView<float> view{units.data(), residuals.rows, dim_, dim_};
    if (turn() == Turn::kRandom) rotation_.emplace(dim_, options.seed);
    if (turn() == Turn::kLearnt) {
      axes_ =
          learn_rotation(view, widths_, level_count(), options.seed, threads, monitor);
    }
    for (std::size_t i = 0; i < residuals.rows; ++i) {
      turn_rows(units.data() + i * dim_);
    }
    train(view, threads, monitor);
  }
  derive();
}

// How the coordinates are cut.
void PieceCodec::shape() {
  // So that offsets and blocks are aligned.
  const std::size_t step = bytes() ? 2 : kernels::kLinkPartsStep;
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
  levels_.assign(dim_ * level_count(), 0.0f);
}

void PieceCodec::train(MatrixView<float> units, std::size_t threads, Monitor* monitor) {
  const Random seeds(options_.seed, kSeedStream);
  const std::size_t many = level_count();
  std::size_t at = 0;
  for (std::size_t p = 0; p < widths_.size(); ++p) {
    const std::size_t width = widths_[p];
    if (width == 0) continue;
    const KMeansResult result =
        kmeans({units.data + at, units.rows, width, units.stride},
               {.n_clusters = many,
                .n_iterations = kIterations,
                .seed = seeds.bits(p),
                .threads = threads},
               nullptr);
    for (std::size_t k = 0; k < width; ++k, ++at) {
      for (std::size_t c = 0; c < many; ++c) {
        levels_[at * many + c] = result.centroids[c * width + k];
      }
    }
    if (monitor != nullptr) monitor->poll(p + 1, widths_.size());
  }
}

void PieceCodec::derive() {
  halves_ = half_squares(levels_, widths_, level_count());
  if (turn() == Turn::kRandom) rotation_.emplace(dim_, options_.seed);
  if (!bytes()) {
    panels_ = LevelPanels(levels_, widths_);
    return;
  }
  constexpr std::size_t kGroup = kernels::kGroup;
  packed_.resize(levels_.size());
  std::size_t at = 0;
  for (const std::uint8_t width : widths_) {
    for (std::size_t k = 0; k < width; ++k) {
      for (std::size_t c = 0; c < 256; ++c) {
        packed_[at * 256 + (c / kGroup * width + k) * kGroup + c % kGroup] =
            -levels_[(at + k) * 256 + c];
      }
    }
    at += width;
  }
}

std::size_t PieceCodec::code_bytes() const {
  return (bytes() ? pieces() : pieces() / 2) * kPieceGroup;
}

std::size_t PieceCodec::payload_bytes() const {
  return code_bytes() + 2 * 2 * kPieceGroup;
}

unsigned PieceCodec::code_at(const std::uint8_t* codes, std::size_t lane,
                             std::size_t p) const {
  if (bytes()) return codes[p * kPieceGroup + lane];
  return codes[p / 2 * kPieceGroup + lane] >> (4 * (p % 2)) & 15u;
}

std::size_t PieceCodec::memory_bytes() const {
  const std::size_t floats =
      mean_.size() + levels_.size() + halves_.size() + axes_.size() + packed_.size();
  return floats * sizeof(float) + widths_.size() + panels_.memory_bytes();
}

// In place: the rotation.
void PieceCodec::turn_rows(float* x) const {
  if (rotation_) rotation_->apply(x);
  if (axes_.empty()) return;
  std::vector<float> turned(dim_);
  kernels::active().float_rows[kernels::kOpDot][0](
      x, reinterpret_cast<const std::byte*>(axes_.data()), dim_ * sizeof(float), dim_,
      dim_, turned.data());
  std::copy_n(turned.data(), dim_, x);
}

void PieceCodec::project(const float* row, float* out) const {
  for (std::size_t i = 0; i < dim_; ++i) out[i] = row[i] - mean_[i];
  turn_rows(out);
}

// Codes and <z, z^> of rows of length 1, as piece_encode() makes them of 4-bit pieces.
void PieceCodec::encode_bytes(const float* units, std::size_t count,
                              std::uint8_t* codes, float* dots) const {
  constexpr std::size_t kRows = kernels::kScorePoints;
  std::array<std::uint32_t, kLevelGroups> groups;
  for (std::size_t g = 0; g < kLevelGroups; ++g)
    groups[g] = static_cast<std::uint32_t>(g);
  float scores[kRows * 256];
  float minima[kRows * kLevelGroups];
  std::fill_n(dots, count, 0.0f);
  std::size_t at = 0;
  for (std::size_t p = 0; p < widths_.size(); ++p) {
    const std::size_t width = widths_[p];
    if (width == 0) {
      std::fill_n(codes + p * kPieceGroup, kPieceGroup, std::uint8_t{0});
      continue;
    }
    for (std::size_t first = 0; first < count; first += kRows) {
      const std::size_t part = std::min(kRows, count - first);
      kernels::active().score_tile(units + first * dim_ + at, dim_, part,
                                   packed_.data() + at * 256, halves_.data() + p * 256,
                                   width, groups.data(), kLevelGroups, scores, 256,
                                   minima, kLevelGroups);
      for (std::size_t i = 0; i < part; ++i) {
        const float* least = minima + i * kLevelGroups;
        const auto g = static_cast<std::size_t>(
            std::min_element(least, least + kLevelGroups) - least);
        const float* of = scores + i * 256 + g * kernels::kGroup;
        const std::size_t best =
            g * kernels::kGroup +
            static_cast<std::size_t>(std::find(of, of + kernels::kGroup - 1, least[g]) -
                                     of);
        codes[p * kPieceGroup + first + i] = static_cast<std::uint8_t>(best);
        for (std::size_t k = 0; k < width; ++k) {
          dots[first + i] +=
              units[(first + i) * dim_ + at + k] * levels_[(at + k) * 256 + best];
        }
      }
    }
    at += width;
  }
}

double PieceCodec::encode(const float* centroid, const float* const* rows,
                          const float* squares, std::size_t count,
                          std::byte* const* blocks, const std::uint32_t* lanes) const {
  std::vector<float> z(dim_ * kPieceGroup);
  const std::size_t row_step = bytes() ? dim_ : 1;
  const std::size_t step = bytes() ? 1 : kPieceGroup;
  std::array<float, kPieceGroup> factors{};
  std::array<float, kPieceGroup> offsets{};
  std::array<float, kPieceGroup> scales{};
  for (std::size_t i = 0; i < count; ++i) {
    factors[i] = squares[i] > 0 ? 1 / std::sqrt(squares[i]) : 0.0f;
    for (std::size_t k = 0; k < dim_; ++k) {
      z[i * row_step + k * step] = (rows[i][k] - centroid[k]) * factors[i];
    }
  }
  std::vector<std::uint8_t> codes(code_bytes());
  std::array<float, kPieceGroup> dots;
  if (bytes()) {
    encode_bytes(z.data(), count, codes.data(), dots.data());
  } else {
    kernels::active().piece_encode(z.data(), levels_.data(), halves_.data(),
                                   widths_.data(), pieces(), codes.data(), dots.data());
  }
  std::vector<float> products;
  level_products(centroid, levels_, widths_, products, level_count());
  double widest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto code = [&](std::size_t p) { return code_at(codes.data(), i, p); };
    const float dot = dots[i];
    const float centroid_dot = sum_of(products, code, level_count());
    const double level_square = 2.0 * sum_of(halves_, code, level_count());
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
  const std::size_t end = codes.size();
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* block = blocks[i];
    const std::uint32_t lane = lanes[i];
    for (std::size_t at = 0; at < end; at += kPieceGroup) {
      block[at + lane] = static_cast<std::byte>(codes[at + i]);
    }
    std::memcpy(block + end + 2 * lane, narrow_offsets.data() + 2 * i, 2);
    std::memcpy(block + end + 2 * (kPieceGroup + lane), narrow_scales.data() + 2 * i,
                2);
  }
  return widest;
}

void PieceCodec::copy(const std::byte* from, std::uint32_t from_lane, std::byte* to,
                      std::uint32_t to_lane) const {
  const std::size_t end = code_bytes();
  for (std::size_t at = 0; at < end; at += kPieceGroup) {
    to[at + to_lane] = from[at + from_lane];
  }
  for (const std::size_t at : {end, end + 2 * kPieceGroup}) {
    std::memcpy(to + at + 2 * to_lane, from + at + 2 * from_lane, 2);
  }
}

float PieceCodec::scale(const std::byte* block, std::uint32_t lane) const {
  float scale;
  kernels::active().widen[1](block + code_bytes() + 2 * (kPieceGroup + lane), 1,
                             &scale);
  return std::abs(scale);
}

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
    const unsigned c = code_at(reinterpret_cast<const std::uint8_t*>(block), lane, p);
    for (std::size_t j = 0; j < widths_[p]; ++j, ++k) {
      out[k] = fit * levels_[k * level_count() + c];
    }
  }
  turn_back(out);
}

void PieceCodec::turn_back(float* x) const {
  if (rotation_) rotation_->apply_inverse(x);
  if (axes_.empty()) return;
  std::vector<double> sums(dim_);
  for (std::size_t k = 0; k < dim_; ++k) {
    for (std::size_t j = 0; j < dim_; ++j) {
      sums[j] += static_cast<double>(x[k]) * static_cast<double>(axes_[k * dim_ + j]);
    }
  }
  for (std::size_t j = 0; j < dim_; ++j) x[j] = static_cast<float>(sums[j]);
}

void PieceCodec::Query::set(const PieceCodec& codec, const float* vector) {
  coordinates_.resize(codec.dim_);
  codec.project(vector, coordinates_.data());
  const float ratio = codec.scale_unit_ / codec.offset_unit_;
  view_.parts = codec.pieces();
  view_.unit = codec.offset_unit_;
  if (codec.bytes()) {
    static constexpr float kNothing[256] = {};
    sums_.resize(codec.pieces() * 256);
    const float* at = coordinates_.data();
    const float* packed = codec.packed_.data();
    for (std::size_t p = 0; p < codec.pieces(); ++p) {
      const std::size_t width = codec.widths_[p];
      kernels::active().score_point(at, packed, kNothing, width, kLevelGroups,
                                    sums_.data() + p * 256);
      at += width;
      packed += width * 256;
    }
    view_.step = 0;
    view_.bias = -ratio;
    return;
  }
  codec.panels_.fill(coordinates_.data(), tables_);
  view_.tables = tables_.entries.data();
  view_.step = tables_.step * ratio;
  view_.bias = tables_.bias * ratio;
}

std::size_t PieceCodec::scan(const Query& query, const std::byte* blocks,
                             std::size_t count, float base, float limit,
                             std::uint32_t first, float* keys,
                             std::uint32_t* places) const {
  if (bytes()) {
    return scan_bytes(query, blocks, count, base, limit, first, keys, places);
  }
  return kernels::active().scan_blocks(query.view_, blocks, payload_bytes(), count,
                                       base, limit, first, keys, places);
}

// Eight codes at a time, so that no sum waits for another. What a code needs are two
// loads a piece, of its byte and of the table.
std::size_t PieceCodec::scan_bytes(const Query& query, const std::byte* blocks,
                                   std::size_t count, float base, float limit,
                                   std::uint32_t first, float* keys,
                                   std::uint32_t* places) const {
  constexpr std::size_t kTogether = 8;
  const std::size_t stride = payload_bytes();
  const std::size_t end = code_bytes();
  const std::size_t parts = pieces();
  const auto widen = kernels::active().widen[1];
  const float below = (limit - base) / query.view_.unit;
  std::size_t found = 0;
  for (std::size_t at = 0; at < count; at += kPieceGroup, blocks += stride) {
    float factors[2 * kPieceGroup];  // offsets, then scales
    widen(blocks + end, 2 * kPieceGroup, factors);
    float terms[kPieceGroup];
    for (std::size_t lane = 0; lane < kPieceGroup; lane += kTogether) {
      const auto* code = reinterpret_cast<const std::uint8_t*>(blocks) + lane;
      const float* table = query.sums_.data();
      float sums[kTogether] = {};
      for (std::size_t p = 0; p < parts; ++p, code += kPieceGroup, table += 256) {
        for (std::size_t j = 0; j < kTogether; ++j) sums[j] += table[code[j]];
      }
      for (std::size_t j = 0; j < kTogether; ++j) {
        terms[lane + j] = factors[lane + j] + factors[kPieceGroup + lane + j] *
                                                  (query.view_.bias * sums[j]);
      }
    }
    const std::size_t here = std::min(count - at, kPieceGroup);
    for (std::size_t i = 0; i < here; ++i) {
      keys[found] = base + query.view_.unit * terms[i];
      places[found] = first + static_cast<std::uint32_t>(at + i);
      found += terms[i] < below ? 1u : 0u;
    }
  }
  return found;
}

void PieceCodec::save_to(storage::FileWriter& writer) const {
  writer.number("codes.kind", static_cast<std::uint64_t>(options_.kind));
  writer.number("codes.segments", options_.segments);
  if (options_.turn != Turn::kNone) {
    writer.number("codes.rotate", static_cast<std::uint64_t>(options_.turn));
  }
  writer.number("codes.products", options_.products ? 1 : 0);
  writer.number("codes.seed", options_.seed);
  writer.real("codes.offset_unit", static_cast<double>(offset_unit_));
  writer.real("codes.scale_unit", static_cast<double>(scale_unit_));
  writer.real("codes.spread", spread_);
  writer.add("codes.mean", std::as_bytes(std::span(mean_)));
  writer.add("codes.levels", std::as_bytes(std::span(levels_)));
  if (!axes_.empty()) writer.add("codes.axes", std::as_bytes(std::span(axes_)));
}

PieceCodec PieceCodec::load_from(const storage::FileReader& reader, std::size_t dim) {
  PieceCodec codec;
  codec.dim_ = dim;
  const std::uint64_t kind = reader.number("codes.kind", 0, 3);
  reader.require(kind != 2, "codes.kind", "is that of no codes");
  codec.options_.kind = static_cast<Kind>(kind);
  codec.options_.segments =
      static_cast<std::size_t>(reader.number("codes.segments", 0, dim));
  reader.require(codec.options_.kind == Kind::kRabitq || codec.options_.segments != 0,
                 "codes.segments", "is 0");
  if (reader.has("codes.rotate")) {
    codec.options_.turn = static_cast<Turn>(reader.number("codes.rotate", 1, 2));
  }
  codec.options_.products = reader.number("codes.products", 0, 1) == 1;
  codec.options_.seed = reader.number("codes.seed");
  codec.offset_unit_ =
      static_cast<float>(reader.real("codes.offset_unit", 1e-37, 1e38));
  codec.scale_unit_ = static_cast<float>(reader.real("codes.scale_unit", 1e-37, 1e38));
  codec.spread_ = reader.real("codes.spread", 0.0, 1e6);
  codec.mean_ = reader.finite("codes.mean", dim);
  codec.shape();
  codec.levels_ = reader.finite("codes.levels", dim * codec.level_count());
  if (codec.turn() == Turn::kLearnt) {
    reader.require(dim < (std::size_t{1} << 16), "codes.axes", "are too many");
    codec.axes_ = reader.finite("codes.axes", dim * dim);
  }
  codec.derive();
  return codec;
}

}  // namespace annx::codec
