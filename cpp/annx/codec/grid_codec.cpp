// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/grid_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "annx/base/prefetch.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Widths of the grid that are tried for a row, evenly in ratio.
constexpr int kWidths = 16;
// The step, in standard deviations, of the best even grid of 2^bits for a normal
// distribution (Max, "Quantizing for minimum distortion", 1960), from 2 bits on.
constexpr std::array<double, 7> kNormalSteps = {0.9957, 0.5860, 0.3352, 0.1881,
                                                0.1041, 0.0569, 0.0308};
// Shares of the range that scalar grids try to span, and rows they look at.
constexpr std::array<float, 8> kSpans = {1.0f, 0.9f, 0.8f, 0.7f,
                                         0.6f, 0.5f, 0.4f, 0.3f};
constexpr std::size_t kSpanRows = 4096;
// A 16-bit query's largest number: both halves fit 8 bits.
constexpr float kMostQuery = 32512.0f;
// Dimensions whose products fit an int32.
constexpr std::size_t kPortion = 32768;
constexpr std::size_t kRowsTogether = 64;

// <z, z^> and |z^|^2 of the grid u = floor(z t + half) within [0, most].
struct Angle {
  double dot;
  double square;
};
Angle try_width(const float* z, std::size_t dim, float t, float half, float most,
                std::uint8_t* code) {
  constexpr std::size_t kSums = 8;
  float dots[kSums] = {};
  float squares[kSums] = {};
  const float middle = 0.5f * most;
  const auto one = [&](std::size_t k, std::size_t j) {
    const float scaled = std::min(std::max(z[k] * t + half, 0.0f), most);
    const auto u = static_cast<std::int32_t>(scaled);
    code[k] = static_cast<std::uint8_t>(u);
    const float level = static_cast<float>(u) - middle;
    dots[j] += z[k] * level;
    squares[j] += level * level;
  };
  std::size_t k = 0;
  for (; k + kSums <= dim; k += kSums) {
    for (std::size_t j = 0; j < kSums; ++j) one(k + j, j);
  }
  for (std::size_t j = 0; k < dim; ++k, ++j) one(k, j);
  Angle angle{};
  for (std::size_t j = 0; j < kSums; ++j) {
    angle.dot += static_cast<double>(dots[j]);
    angle.square += static_cast<double>(squares[j]);
  }
  return angle;
}

// Moves every u one up or down where that makes the angle smaller.
void adjust(const float* z, std::size_t dim, Angle angle, float most,
            std::uint8_t* code) {
  const double middle = 0.5 * static_cast<double>(most);
  for (std::size_t k = 0; k < dim; ++k) {
    const double level = static_cast<double>(code[k]) - middle;
    const auto x = static_cast<double>(z[k]);
    for (const int by : {-1, 1}) {
      if ((by < 0 && code[k] == 0) || (by > 0 && code[k] >= most)) continue;
      const double dot = angle.dot + by * x;
      const double square = angle.square + 2 * by * level + 1;
      if (dot <= 0 || dot * dot * angle.square <= angle.dot * angle.dot * square) {
        continue;
      }
      angle = {dot, square};
      code[k] = static_cast<std::uint8_t>(code[k] + by);
      break;
    }
  }
}

float read_float(const std::byte* at) {
  float x;
  std::memcpy(&x, at, sizeof(x));
  return x;
}

}  // namespace

GridCodec::GridCodec(MatrixView<float> residuals, const Options& options)
    : GridCodec(residuals.cols, options) {
  if (options.kind == Kind::kScalar) train(residuals);
}

void GridCodec::train(MatrixView<float> residuals) {
  const std::size_t rows = std::min(residuals.rows, kSpanRows);
  const auto row = [&](std::size_t i) {
    return residuals.row(i * residuals.rows / rows);
  };
  std::vector<float> low(dim_), high(dim_);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t k = 0; k < dim_; ++k) {
      const float x = row(i)[k];
      low[k] = i == 0 ? x : std::min(low[k], x);
      high[k] = i == 0 ? x : std::max(high[k], x);
    }
  }
  const auto most = static_cast<float>((1u << options_.bits) - 1);
  lows_.assign(dim_, 0.0f);
  steps_.assign(dim_, 0.0f);
  std::vector<double> least(dim_), errors(dim_);
  std::vector<float> from(dim_), step(dim_), inverse(dim_);
  for (const float span : kSpans) {
    std::fill(errors.begin(), errors.end(), 0.0);
    for (std::size_t k = 0; k < dim_; ++k) {
      const float half = 0.5f * span * (high[k] - low[k]);
      from[k] = 0.5f * low[k] + 0.5f * high[k] - half;
      step[k] = 2 * half / most;
      inverse[k] = step[k] > 0 ? 1 / step[k] : 0.0f;
      if (!std::isfinite(inverse[k])) step[k] = inverse[k] = 0;
    }
    for (std::size_t i = 0; i < rows; ++i) {
      const float* x = row(i);
      for (std::size_t k = 0; k < dim_; ++k) {
        const float u =
            std::min(std::max((x[k] - from[k]) * inverse[k] + 0.5f, 0.0f), most);
        const float error =
            x[k] - (from[k] + step[k] * static_cast<float>(static_cast<int>(u)));
        errors[k] += static_cast<double>(error) * static_cast<double>(error);
      }
    }
    for (std::size_t k = 0; k < dim_; ++k) {
      if (span < kSpans[0] && errors[k] >= least[k]) continue;
      least[k] = errors[k];
      lows_[k] = from[k];
      steps_[k] = step[k];
    }
  }
}

// The code of a vector of length 1.
void GridCodec::choose(const float* unit, std::size_t bits, Work& work) const {
  float widest = 0;
  for (std::size_t k = 0; k < dim_; ++k) widest = std::max(widest, std::abs(unit[k]));
  const auto half = static_cast<double>(1u << (bits - 1));
  const auto most = static_cast<float>((1u << bits) - 1);
  const double whole = half / static_cast<double>(widest);
  const double normal = std::sqrt(static_cast<double>(dim_)) / kNormalSteps[bits - 2];
  const double first = 0.9 * whole;
  const double ratio = 1.1 * std::max(whole, normal) / first;
  Angle best{0, 1};
  work.trial.resize(dim_);
  for (int i = 0; i < kWidths; ++i) {
    const double t = first * std::pow(ratio, static_cast<double>(i) / (kWidths - 1));
    const Angle angle = try_width(unit, dim_, static_cast<float>(t),
                                  static_cast<float>(half), most, work.trial.data());
    if (i > 0 && (angle.dot <= 0 || angle.dot * angle.dot * best.square <=
                                        best.dot * best.dot * angle.square)) {
      continue;
    }
    best = angle;
    work.code.swap(work.trial);
    work.trial.resize(dim_);
  }
  adjust(unit, dim_, best, most, work.code.data());
}

void GridCodec::encode(const float* centroid, const float* row, Work& work,
                       std::byte* out) const {
  work.residual.resize(dim_);
  work.code.resize(dim_);
  float* r = work.residual.data();
  double square = 0;
  for (std::size_t k = 0; k < dim_; ++k) {
    r[k] = row[k] - centroid[k];
    square += static_cast<double>(r[k]) * static_cast<double>(r[k]);
  }
  double offset = 0;
  if (options_.kind == Kind::kScalar) {
    const auto most = static_cast<float>((1u << options_.bits) - 1);
    for (std::size_t k = 0; k < dim_; ++k) {
      const float u = steps_[k] > 0 ? (r[k] - lows_[k]) / steps_[k] + 0.5f : 0.0f;
      work.code[k] = static_cast<std::uint8_t>(std::min(std::max(u, 0.0f), most));
      const auto level =
          static_cast<double>(lows_[k] + steps_[k] * static_cast<float>(work.code[k]));
      offset += level * (level + 2.0 * static_cast<double>(centroid[k]));
    }
  } else {
    double fit = 0;
    if (square > 0) {
      const double inverse = 1 / std::sqrt(square);
      for (std::size_t k = 0; k < dim_; ++k) {
        r[k] = static_cast<float>(static_cast<double>(r[k]) * inverse);
      }
      choose(r, options_.bits, work);
      double own = 0;
      double base = 0;
      for (std::size_t k = 0; k < dim_; ++k) {
        const auto level =
            static_cast<double>(static_cast<float>(work.code[k]) - middle());
        own += static_cast<double>(r[k]) * level;
        base += static_cast<double>(centroid[k]) * level;
      }
      fit = own > 0 ? std::sqrt(square) / own : 0.0;
      offset = square + 2 * fit * base;
    } else {
      std::fill(work.code.begin(), work.code.end(), std::uint8_t{0});
    }
    const auto scale = static_cast<float>(options_.products ? -fit : -2 * fit);
    std::memcpy(out + sizeof(float), &scale, sizeof(scale));
  }
  const float kept = options_.products ? 0.0f : static_cast<float>(offset);
  std::memcpy(out, &kept, sizeof(kept));
  pack(work.code.data(), out + head());
}

// Groups of 8 coordinates. In the plane of 4 bits coordinates j and j + 4 share byte j
// (4 bytes a group), the first in its low half; in that of 2 bits bit pair 4 (j % 2) +
// j / 2 of 16 bits is coordinate j's; in that of 1 bit bit j of a byte.
void GridCodec::pack(const std::uint8_t* code, std::byte* out) const {
  if (options_.bits == 8) {
    for (std::size_t k = 0; k < dim_; ++k)
      out[k] = static_cast<std::byte>(code[k] ^ 128u);
    return;
  }
  const std::size_t groups = (dim_ + 7) / 8;
  std::size_t below = options_.bits;  // bits that are not yet in a plane
  for (const std::size_t width : {std::size_t{4}, std::size_t{2}, std::size_t{1}}) {
    if (below < width) continue;
    below -= width;
    std::memset(out, 0, groups * width);
    for (std::size_t k = 0; k < dim_; ++k) {
      const std::size_t j = k % 8;
      const unsigned part = code[k] >> below & ((1u << width) - 1);
      const std::size_t bit = width == 4   ? 8 * (j % 4) + 4 * (j / 4)
                              : width == 2 ? 8 * (j % 2) + 2 * (j / 2)
                                           : j;
      out[k / 8 * width + bit / 8] |= static_cast<std::byte>(part << (bit % 8));
    }
    out += groups * width;
  }
}

// Writes whole groups of 8.
void GridCodec::unpack(const std::byte* in, std::uint8_t* code) const {
  if (options_.bits == 8) {
    for (std::size_t k = 0; k < dim_; ++k) {
      code[k] = static_cast<std::uint8_t>(static_cast<unsigned>(in[k]) ^ 128u);
    }
    return;
  }
  const std::size_t groups = (dim_ + 7) / 8;
  std::size_t below = options_.bits;
  bool first = true;
  const auto plane = [&](std::size_t width, const auto& spread) {
    if (below < width) return;
    below -= width;
    for (std::size_t g = 0; g < groups; ++g) {
      std::uint32_t word = 0;
      std::memcpy(&word, in + g * width, width);
      std::uint64_t lanes = spread(std::uint64_t{word}) << below;
      std::uint64_t before = 0;
      if (!first) std::memcpy(&before, code + 8 * g, 8);
      lanes |= before;
      std::memcpy(code + 8 * g, &lanes, 8);
    }
    in += groups * width;
    first = false;
  };
  plane(4, [](std::uint64_t x) { return (x | x << 28) & 0x0F0F0F0F0F0F0F0Fu; });
  plane(2, [](std::uint64_t x) {
    x |= x << 14;
    return (x | x << 28) & 0x0303030303030303u;
  });
  plane(1, [](std::uint64_t x) {
    x |= x << 7;
    x |= x << 14;
    return (x | x << 28) & 0x0101010101010101u;
  });
}

void GridCodec::decode(const std::byte* row, float* out) const {
  std::vector<std::uint8_t> code((dim_ + 7) / 8 * 8);
  unpack(row + head(), code.data());
  if (options_.kind == Kind::kScalar) {
    for (std::size_t k = 0; k < dim_; ++k) {
      out[k] = lows_[k] + steps_[k] * static_cast<float>(code[k]);
    }
    return;
  }
  const float fit =
      read_float(row + sizeof(float)) * (options_.products ? -1.0f : -0.5f);
  for (std::size_t k = 0; k < dim_; ++k) {
    out[k] = fit * (static_cast<float>(code[k]) - middle());
  }
}

void GridCodec::Query::set(const GridCodec& codec, const float* vector) {
  codec_ = &codec;
  const std::size_t dim = codec.dim_;
  const bool scalar = codec.options_.kind == Kind::kScalar;
  upper_.resize(dim);
  lower_.resize(dim);
  float most = 0;
  double sum = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    const float x = scalar ? vector[k] * codec.steps_[k] : vector[k];
    most = std::max(most, std::abs(x));
    sum +=
        scalar
            ? static_cast<double>(vector[k]) *
                  static_cast<double>(codec.lows_[k] + codec.shift() * codec.steps_[k])
            : static_cast<double>(vector[k]);
  }
  bias_ = scalar ? sum : sum * static_cast<double>(codec.shift() - codec.middle());
  step_ = static_cast<double>(most) / kMostQuery;
  const float inverse = most > 0 ? kMostQuery / most : 0.0f;
  const float finite = std::isfinite(inverse) ? inverse : 0.0f;
  for (std::size_t k = 0; k < dim; ++k) {
    const float x = scalar ? vector[k] * codec.steps_[k] : vector[k];
    const int number = static_cast<int>(x * finite + 32768.5f) - 32768;
    const int upper = (number + 128 + 32768) / 256 - 128;
    upper_[k] = static_cast<std::int8_t>(upper);
    lower_[k] = static_cast<std::int8_t>(number - 256 * upper);
  }
}

void GridCodec::Query::keys(const std::byte* rows, const std::uint32_t* slots,
                            const float* bases, std::size_t count, float* out) {
  const GridCodec& codec = *codec_;
  const std::size_t dim = codec.dim_;
  const std::size_t stride = codec.row_bytes();
  const std::size_t head = codec.head();
  const bool rabitq = codec.options_.kind == Kind::kRabitq;
  const auto& table = kernels::active();
  const auto* upper = reinterpret_cast<const std::byte*>(upper_.data());
  const auto* lower = reinterpret_cast<const std::byte*>(lower_.data());
  code_.resize((dim + 7) / 8 * 8);
  for (std::size_t at = 0; at < count; at += kRowsTogether) {
    const std::size_t n = std::min(kRowsTogether, count - at);
    std::int64_t dots[kRowsTogether] = {};
    std::int32_t some[kRowsTogether];
    if (codec.options_.bits == 8) {
      const auto gather = table.byte_gather[kernels::kOpDot][0];
      for (std::size_t k = 0; k < dim; k += kPortion) {
        const std::size_t part = std::min(kPortion, dim - k);
        gather(upper + k, rows + head + k, stride, slots + at, n, part, some);
        for (std::size_t i = 0; i < n; ++i) dots[i] += std::int64_t{256} * some[i];
        gather(lower + k, rows + head + k, stride, slots + at, n, part, some);
        for (std::size_t i = 0; i < n; ++i) dots[i] += some[i];
      }
    } else {
      const auto dot = table.byte_rows[kernels::kOpDot][0];
      const auto* code = reinterpret_cast<const std::byte*>(code_.data());
      for (std::size_t i = 0; i < n; ++i) {
        if (i + 2 < n) prefetch_run(rows + slots[at + i + 2] * stride, stride);
        codec.unpack(rows + slots[at + i] * stride + head, code_.data());
        for (std::size_t k = 0; k < dim; k += kPortion) {
          const std::size_t part = std::min(kPortion, dim - k);
          dot(upper + k, code + k, 0, 1, part, some);
          dot(lower + k, code + k, 0, 1, part, some + 1);
          dots[i] += std::int64_t{256} * some[0] + some[1];
        }
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::byte* row = rows + slots[at + i] * stride;
      const float scale = rabitq                    ? read_float(row + sizeof(float))
                          : codec.options_.products ? -1.0f
                                                    : -2.0f;
      const auto dot = static_cast<float>(bias_ + step_ * static_cast<double>(dots[i]));
      out[at + i] = bases[at + i] + (read_float(row) + scale * dot);
    }
  }
}

void GridCodec::save_to(storage::FileWriter& writer) const {
  if (options_.kind != Kind::kScalar) return;
  writer.add("grid.lows", std::as_bytes(std::span(lows_)));
  writer.add("grid.steps", std::as_bytes(std::span(steps_)));
}

GridCodec GridCodec::load_from(const storage::FileReader& reader, std::size_t dim,
                               const Options& options) {
  GridCodec codec(dim, options);
  if (options.kind != Kind::kScalar) return codec;
  codec.lows_ = reader.finite("grid.lows", dim);
  codec.steps_ = reader.finite("grid.steps", dim);
  return codec;
}

}  // namespace annx::codec
