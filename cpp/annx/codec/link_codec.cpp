// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/link_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/parallel.h"
#include "annx/base/random.h"
#include "annx/codec/kmeans.h"
#include "annx/codec/levels.h"
#include "annx/codec/principal.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

using kernels::kLinkGroup;
using kernels::kLinkLevels;
using kernels::link_code_at;
using kernels::link_code_shift;

// How far above the error that was asked for rotated axes may stay: parts of one axis
// fewer would take a quarter to a sixth more bytes.
constexpr double kRotatedSlack = 1.1;
constexpr std::size_t kMostRotatedWidth = 8;
constexpr int kLloydIterations = 15;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Mean squared error a dimension of 16 trained levels for `axes` dimensions of a
// standard Gaussian source: Lloyd's algorithm on 100,000 samples, the best of four
// starts, judged on a million others.
struct Distortion {
  std::size_t axes;
  double error;
};
constexpr std::array<Distortion, 9> kDistortions = {{{1, 0.0095},
                                                     {2, 0.108},
                                                     {3, 0.235},
                                                     {4, 0.342},
                                                     {5, 0.43},
                                                     {6, 0.503},
                                                     {8, 0.603},
                                                     {12, 0.728},
                                                     {16, 0.792}}};

// The best cut of the axes, of falling variance, into each number of parts.
class Cuts {
 public:
  Cuts(const std::vector<double>& variances, std::size_t most)
      : axes_(variances.size()) {
    std::vector<double> logs(axes_ + 1), sums(axes_ + 1);
    for (std::size_t k = 0; k < axes_; ++k) {
      logs[k + 1] = logs[k] + std::log(variances[k]);
      sums[k + 1] = sums[k] + variances[k];
    }
    total_ = sums[axes_];
    const std::size_t stride = axes_ + 1;
    std::vector<double> before(stride, kInfinity);
    before[0] = 0;
    back_.assign((most + 1) * stride, 0);
    best_.assign(most + 1, {kInfinity, 0});
    for (std::size_t m = 1; m <= most; ++m) {
      std::vector<double> now(stride, kInfinity);
      for (const Distortion& d : kDistortions) {
        const auto width = static_cast<double>(d.axes);
        for (std::size_t at = 0; at + d.axes <= axes_; ++at) {
          if (before[at] == kInfinity) continue;
          const std::size_t end = at + d.axes;
          const double mean = std::exp((logs[end] - logs[at]) / width);
          const double cost =
              before[at] + std::min(width * mean * d.error, sums[end] - sums[at]);
          if (cost < now[end]) {
            now[end] = cost;
            back_[m * stride + end] = static_cast<std::uint8_t>(d.axes);
          }
        }
      }
      for (std::size_t end = 1; end <= axes_; ++end) {
        const double cost = now[end] + sums[axes_] - sums[end];
        if (cost < best_[m].first) best_[m] = {cost, end};
      }
      before.swap(now);
    }
  }

  // The share of a difference's energy that the codes lose.
  double distortion(std::size_t parts) const { return best_[parts].first / total_; }

  std::vector<std::uint8_t> widths(std::size_t parts) const {
    std::vector<std::uint8_t> widths(parts);
    std::size_t end = best_[parts].second;
    for (std::size_t m = parts; m > 0; --m) {
      widths[m - 1] = back_[m * (axes_ + 1) + end];
      end -= widths[m - 1];
    }
    return widths;
  }

 private:
  std::size_t axes_;
  double total_ = 0;
  std::vector<std::uint8_t> back_;
  std::vector<std::pair<double, std::size_t>> best_;
};

// Standard deviation of <u, r> as estimated, for unit vectors u and r; see the header.
double error_of(double distortion, std::size_t axes) {
  return std::sqrt(distortion / (1 - distortion) / static_cast<double>(axes));
}

double distortion_of(std::size_t width) {
  for (const Distortion& d : kDistortions) {
    if (d.axes >= width) return d.error;
  }
  return kDistortions.back().error;
}

// Lloyd's algorithm for all parts at once. `points` holds whole groups of kLinkGroup
// points: [group][axis][kLinkGroup].
std::vector<float> train_levels(const std::vector<float>& points, std::size_t axes,
                                const std::vector<std::uint8_t>& widths,
                                std::uint64_t seed) {
  const std::size_t groups = points.size() / (axes * kLinkGroup);
  const std::size_t count = groups * kLinkGroup;
  const auto point = [&](std::size_t i, std::size_t axis) {
    return points[(i / kLinkGroup * axes + axis) * kLinkGroup + i % kLinkGroup];
  };
  std::vector<float> levels(axes * kLinkLevels);
  std::size_t axis = 0;
  for (std::size_t p = 0; p < widths.size(); ++p) {
    if (widths[p] == 1) {
      std::vector<float> sorted(count);
      for (std::size_t i = 0; i < count; ++i) sorted[i] = point(i, axis);
      std::sort(sorted.begin(), sorted.end());
      for (std::size_t c = 0; c < kLinkLevels; ++c) {
        levels[axis * kLinkLevels + c] =
            sorted[(2 * c + 1) * count / (2 * kLinkLevels)];
      }
    } else {
      const auto drawn = draw_distinct(count, kLinkLevels, seed, p);
      for (std::size_t k = 0; k < widths[p]; ++k) {
        for (std::size_t c = 0; c < kLinkLevels; ++c) {
          levels[(axis + k) * kLinkLevels + c] = point(drawn[c], axis + k);
        }
      }
    }
    axis += widths[p];
  }
  const kernels::KernelTable& table = kernels::active();
  const std::size_t parts = widths.size();
  std::vector<std::uint8_t> codes(kernels::link_code_bytes(parts));
  std::array<float, kLinkGroup> dots;
  std::vector<double> sums(axes * kLinkLevels);
  std::vector<std::uint32_t> counts(parts * kLinkLevels);
  for (int iteration = 0; iteration < kLloydIterations; ++iteration) {
    const std::vector<float> halves = half_squares(levels, widths);
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(counts.begin(), counts.end(), 0u);
    for (std::size_t g = 0; g < groups; ++g) {
      const float* group = points.data() + g * axes * kLinkGroup;
      table.link_encode(group, levels.data(), halves.data(), widths.data(), parts,
                        codes.data(), dots.data());
      std::size_t at = 0;
      for (std::size_t p = 0; p < parts; ++p) {
        for (std::size_t i = 0; i < kLinkGroup; ++i) {
          const unsigned c = codes[link_code_at(p, i)] >> link_code_shift(p) & 15u;
          ++counts[p * kLinkLevels + c];
          for (std::size_t k = 0; k < widths[p]; ++k) {
            sums[(at + k) * kLinkLevels + c] += group[(at + k) * kLinkGroup + i];
          }
        }
        at += widths[p];
      }
    }
    std::size_t at = 0;
    for (std::size_t p = 0; p < parts; ++p) {
      for (std::size_t k = 0; k < widths[p]; ++k, ++at) {
        for (std::size_t c = 0; c < kLinkLevels; ++c) {
          const std::uint32_t n = counts[p * kLinkLevels + c];
          if (n != 0) {
            levels[at * kLinkLevels + c] =
                static_cast<float>(sums[at * kLinkLevels + c] / n);
          }
        }
      }
    }
  }
  return levels;
}

}  // namespace

LinkCodec::LinkCodec(MatrixView<float> differences, std::vector<float> mean,
                     const Options& options, std::size_t threads)
    : dim_(differences.cols), products_(options.products), mean_(std::move(mean)) {
  const std::size_t count = differences.rows / kLinkGroup * kLinkGroup;
  if (count < kLeastSample) {
    throw InvalidArgument("differences: " + std::to_string(differences.rows) +
                          " rows; at least " + std::to_string(kLeastSample) +
                          " are needed");
  }
  std::vector<float> unit_rows(count * dim_);
  double squares = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = differences.row(i);
    double square = 0;
    for (std::size_t k = 0; k < dim_; ++k)
      square += static_cast<double>(row[k]) * row[k];
    squares += square / static_cast<double>(count);
    const double length = std::sqrt(square);
    for (std::size_t k = 0; k < dim_; ++k) {
      unit_rows[i * dim_ + k] = static_cast<float>(row[k] / length);
    }
  }
  offset_unit_ = unit_near(squares);
  seed_ = options.seed;
  const std::size_t step = kernels::kLinkPartsStep;
  std::size_t axes = dim_;
  if (dim_ > kDenseDim) {
    // All axes are alike, so the widest parts that serve are the best.
    std::size_t width = kMostRotatedWidth;
    while (width > 1 &&
           error_of(distortion_of(width), dim_) > kRotatedSlack * options.error) {
      --width;
    }
    const std::size_t parts = std::min(
        (dim_ + width * step - 1) / (width * step) * step, kernels::kMaxLinkParts);
    for (std::size_t p = 0; p < parts; ++p) {
      widths_.push_back(
          static_cast<std::uint8_t>((p + 1) * dim_ / parts - p * dim_ / parts));
    }
    expected_error_ = error_of(distortion_of((dim_ + parts - 1) / parts), dim_);
  } else {
    const PrincipalAxes principal =
        principal_axes({unit_rows.data(), count, dim_, dim_}, threads);
    // A variance of nearly nothing would blow rounding errors up.
    std::vector<double> variances = principal.variances;
    for (double& v : variances) v = std::max(v, 1e-9 / static_cast<double>(dim_));
    const std::size_t most = std::min(options.most_parts, dim_) / step * step;
    if (most == 0) throw InvalidArgument("differences: fewer than 4 dimensions");
    const Cuts cuts(variances, most);
    std::size_t parts = step;
    while (parts < most && error_of(cuts.distortion(parts), dim_) > options.error) {
      parts += step;
    }
    widths_ = cuts.widths(parts);
    expected_error_ = error_of(cuts.distortion(parts), dim_);
    axes = 0;
    for (const std::uint8_t width : widths_) axes += width;
    axes_.assign(principal.axes.begin(),
                 principal.axes.begin() + static_cast<std::ptrdiff_t>(axes * dim_));
  }
  levels_.resize(axes * kLinkLevels);
  derive();
  // A scale is about twice the length of a difference.
  scale_unit_ = unit_near(std::sqrt(squares));
  std::vector<float> points(count * axes);
  parallel_for(count / kLinkGroup, threads, 8,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 std::vector<float> z(axes);
                 for (std::size_t i = begin * kLinkGroup; i < end * kLinkGroup; ++i) {
                   transform(unit_rows.data() + i * dim_, z.data());
                   double square = 0;
                   for (const float x : z) {
                     square += static_cast<double>(x) * static_cast<double>(x);
                   }
                   const double factor = square > 0 ? 1 / std::sqrt(square) : 0;
                   float* group = points.data() + i / kLinkGroup * axes * kLinkGroup;
                   for (std::size_t k = 0; k < axes; ++k) {
                     group[k * kLinkGroup + i % kLinkGroup] =
                         static_cast<float>(z[k] * factor);
                   }
                 }
               });
  levels_ = train_levels(points, axes, widths_, options.seed);
  derive();
}

// 8-bit axes: a query's coordinates need not be better than its tables, which have 7
// bits, and the axes then stay in the second-level cache.
void LinkCodec::derive() {
  halves_ = half_squares(levels_, widths_);
  panels_ = LevelPanels(levels_, widths_);
  if (axes_.empty()) {
    rotation_.emplace(dim_, seed_);
    return;
  }
  narrow_stride_ = (dim_ + 31) / 32 * 32;
  narrow_axes_.assign(axes() * narrow_stride_, std::byte{0});
  narrow_steps_.resize(axes());
  for (std::size_t k = 0; k < axes(); ++k) {
    const float* axis = axes_.data() + k * dim_;
    float most = 0;
    for (std::size_t i = 0; i < dim_; ++i) most = std::max(most, std::abs(axis[i]));
    const float step = most > 0 ? most / 127 : 1.0f;
    for (std::size_t i = 0; i < dim_; ++i) {
      narrow_axes_[k * narrow_stride_ + i] =
          static_cast<std::byte>(static_cast<std::int8_t>(std::lround(axis[i] / step)));
    }
    narrow_steps_[k] = step;
  }
}

std::size_t LinkCodec::memory_bytes() const {
  const std::size_t floats = axes_.size() + levels_.size() + mean_.size() +
                             halves_.size() + narrow_steps_.size();
  return floats * sizeof(float) + widths_.size() + narrow_axes_.size() +
         panels_.memory_bytes();
}

std::vector<float> LinkCodec::axes_matrix() const {
  if (!axes_.empty()) return axes_;
  // Column i is where axis i of the rows goes.
  std::vector<float> matrix(dim_ * dim_);
  std::vector<float> unit(dim_);
  for (std::size_t i = 0; i < dim_; ++i) {
    std::fill(unit.begin(), unit.end(), 0.0f);
    unit[i] = 1;
    rotation_->apply(unit.data());
    for (std::size_t k = 0; k < dim_; ++k) matrix[k * dim_ + i] = unit[k];
  }
  return matrix;
}

// Coordinates along the axes; `x` may be `out` with a rotation.
void LinkCodec::transform(const float* x, float* out) const {
  if (rotation_) {
    if (x != out) std::copy_n(x, dim_, out);
    rotation_->apply(out);
    return;
  }
  kernels::active().float_rows[kernels::kOpDot][0](
      x, reinterpret_cast<const std::byte*>(axes_.data()), dim_ * 4, axes(), dim_, out);
}

void LinkCodec::project(const float* row, std::vector<float>& scratch,
                        float* out) const {
  scratch.resize(dim_);
  float* const centred = rotation_ ? out : scratch.data();
  for (std::size_t i = 0; i < dim_; ++i) centred[i] = row[i] - mean_[i];
  transform(centred, out);
}

void LinkCodec::Encoder::set(const LinkCodec& codec, const float* from) {
  codec_ = &codec;
  from_ = from;
  level_products(from, codec.levels_, codec.widths_, products_);
}

void LinkCodec::Encoder::encode(const float* const* to, const float* squares,
                                std::size_t count, std::uint8_t* codes, float* offsets,
                                float* scales) {
  const LinkCodec& codec = *codec_;
  const std::size_t axes = codec.axes();
  // Several sums at once: one alone would wait for each of its additions.
  std::array<const float*, kLinkGroup> ends;
  for (std::size_t i = 0; i < kLinkGroup; ++i) ends[i] = i < count ? to[i] : from_;
  differences_.resize(axes * kLinkGroup);
  std::array<float, kLinkGroup> lengths{};
  std::array<float, kLinkGroup> factors{};
  for (std::size_t k = 0; k < axes; ++k) {
    float* const z = differences_.data() + k * kLinkGroup;
    for (std::size_t i = 0; i < kLinkGroup; ++i) z[i] = ends[i][k] - from_[k];
    for (std::size_t i = 0; i < kLinkGroup; ++i) lengths[i] += z[i] * z[i];
  }
  for (std::size_t i = 0; i < kLinkGroup; ++i) {
    lengths[i] = std::sqrt(lengths[i]);
    factors[i] = lengths[i] > 0 ? 1 / lengths[i] : 0.0f;
  }
  for (std::size_t k = 0; k < axes; ++k) {
    float* const z = differences_.data() + k * kLinkGroup;
    for (std::size_t i = 0; i < kLinkGroup; ++i) z[i] *= factors[i];
  }
  std::array<float, kLinkGroup> dots;
  kernels::active().link_encode(differences_.data(), codec.levels_.data(),
                                codec.halves_.data(), codec.widths_.data(),
                                codec.parts(), codes, dots.data());
  for (std::size_t i = 0; i < count; ++i) {
    const float from_dot = sum_of(products_, [&](std::size_t p) {
      return codes[link_code_at(p, i)] >> link_code_shift(p) & 15u;
    });
    // |r|^2 = <r, f sum level_k v_k> = f |z| dot.
    const bool products = codec.products_;
    const float square = products ? lengths[i] * lengths[i] : squares[i];
    const float fit =
        lengths[i] > 0 && dots[i] > 0 ? square / (lengths[i] * dots[i]) : 0.0f;
    offsets[i] = products ? 0.0f : (square + 2 * fit * from_dot) / codec.offset_unit_;
    scales[i] = (products ? -fit : -2 * fit) / codec.scale_unit_;
  }
}

void LinkCodec::Query::set(const LinkCodec& codec, const float* vector, float gain) {
  const std::size_t dim = codec.dim_;
  const std::size_t axes = codec.axes();
  coordinates_.resize(axes);
  const kernels::KernelTable& table = kernels::active();
  if (codec.rotation_) {
    codec.project(vector, centred_, coordinates_.data());
  } else {
    centred_.resize(dim);
    float most = 0;
    for (std::size_t i = 0; i < dim; ++i) {
      centred_[i] = vector[i] - codec.mean_[i];
      most = std::max(most, std::abs(centred_[i]));
    }
    const float step = most / 127;
    const float inverse = most > 0 ? 127 / most : 0.0f;
    bytes_.resize(codec.narrow_stride_);
    for (std::size_t i = 0; i < dim; ++i) {
      const float scaled = centred_[i] * inverse;
      // Rounds half away from zero, by truncation.
      bytes_[i] = static_cast<std::byte>(
          static_cast<std::int8_t>(scaled + std::copysign(0.5f, scaled)));
    }
    products_.resize(axes);
    table.byte_rows[kernels::kOpDot][0](bytes_.data(), codec.narrow_axes_.data(),
                                        codec.narrow_stride_, axes,
                                        codec.narrow_stride_, products_.data());
    for (std::size_t k = 0; k < axes; ++k) {
      coordinates_[k] =
          static_cast<float>(products_[k]) * step * codec.narrow_steps_[k];
    }
  }
  codec.panels_.fill(coordinates_.data(), tables_);
  view_.tables = tables_.entries.data();
  view_.parts = codec.parts();
  view_.gain = gain * codec.offset_unit_;
  const float ratio = codec.scale_unit_ / codec.offset_unit_;
  view_.step = tables_.step * ratio;
  view_.bias = tables_.bias * ratio;
}

// --- persistence
// ----------------------------------------------------------------------

void LinkCodec::save_to(storage::FileWriter& file) const {
  file.number("codes.products", products_ ? 1 : 0);
  file.real("codes.expected_error", expected_error_);
  file.real("codes.offset_unit", offset_unit_);
  file.real("codes.scale_unit", scale_unit_);
  file.number("codes.seed", seed_);
  file.number("codes.axes_count", axes());
  file.number("codes.parts", parts());
  file.add("codes.axes", std::as_bytes(std::span(axes_)));
  file.add("codes.widths", std::as_bytes(std::span(widths_)));
  file.add("codes.levels", std::as_bytes(std::span(levels_)));
  file.add("codes.mean", std::as_bytes(std::span(mean_)));
}

LinkCodec LinkCodec::load_from(const storage::FileReader& file, std::size_t dim) {
  LinkCodec codec;
  codec.dim_ = dim;
  codec.products_ = file.number("codes.products", 0, 1) == 1;
  codec.expected_error_ = file.real("codes.expected_error", 0.0, 1e6);
  codec.offset_unit_ = static_cast<float>(file.real("codes.offset_unit", 1e-37, 1e38));
  codec.scale_unit_ = static_cast<float>(file.real("codes.scale_unit", 1e-37, 1e38));
  const auto parts = static_cast<std::size_t>(
      file.number("codes.parts", kernels::kLinkPartsStep, kernels::kMaxLinkParts));
  file.require(parts % kernels::kLinkPartsStep == 0, "codes.parts",
               "is no multiple of 4");
  const auto axes =
      static_cast<std::size_t>(file.number("codes.axes_count", parts, dim));
  codec.seed_ = file.number("codes.seed");
  const bool rotated = dim > kDenseDim;
  file.require(!rotated || axes == dim, "codes.axes_count", "is not the dimension");
  codec.axes_ = file.finite("codes.axes", rotated ? 0 : axes * dim);
  codec.levels_ = file.finite("codes.levels", axes * kLinkLevels);
  codec.mean_ = file.finite("codes.mean", dim);
  const auto widths = file.array<std::uint8_t>("codes.widths", parts);
  codec.widths_.assign(widths.data(), widths.data() + parts);
  std::size_t sum = 0;
  for (const std::uint8_t width : codec.widths_) sum += width;
  file.require(sum == axes, "codes.widths", "do not add up to the axes");
  codec.derive();
  return codec;
}

}  // namespace annx::codec
