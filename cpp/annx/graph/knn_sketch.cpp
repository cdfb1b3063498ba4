// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/knn_sketch.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "annx/base/random.h"
#include "annx/codec/kmeans.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/panels.h"

namespace annx::graph {
namespace {

using storage::Panels;

constexpr double kUnit = 0x1.0p-24;
constexpr double kTheta = 0x1.0p-10;
// Shorter vectors are as quick as their sketches.
constexpr std::size_t kProjectFrom = 96;
constexpr std::size_t kMostAxes = 320;
// The share of the variance that axes may leave out: less makes tiles longer, more lets
// through pairs that whole vectors then refuse.
constexpr double kLeftOut = 0.05;
constexpr std::size_t kSample = 2048;
constexpr std::size_t kIterations = 3;
constexpr std::size_t kRowsPerRange = 192;
constexpr float kLargest = 1e30f;

// out[i][j] = <a_i, b_j>, a row of `out` for each row of `a`.
class Products {
 public:
  Products()
      : queries_(kernels::active().tile, Panels::Side::kQueries),
        rows_(kernels::active().tile, Panels::Side::kRows) {}

  void set_rows(MatrixView<float> b) { rows_.pack(b); }
  // The result lies row by row, stride() apart.
  const float* with(MatrixView<float> a, const Panels* rows = nullptr) {
    const Panels& b = rows == nullptr ? rows_ : *rows;
    queries_.pack(a);
    out_.resize(queries_.padded() * b.padded());
    stride_ = b.padded();
    kernels::active().tile.block(queries_.data(), queries_.panels(), b.data(),
                                 b.panels(), a.cols, nullptr, out_.data(), stride_);
    return out_.data();
  }
  std::size_t stride() const { return stride_; }

 private:
  Panels queries_;
  Panels rows_;
  std::vector<float> out_;
  std::size_t stride_ = 0;
};

float dot(const float* a, const float* b, std::size_t n) {
  float out;
  kernels::active().float_rows[kernels::kOpDot][0](
      a, reinterpret_cast<const std::byte*>(b), n * sizeof(float), 1, n, &out);
  return out;
}

// Makes the rows orthonormal, in order; twice is enough (Kahan, in Parlett, 1980). A
// row that the earlier ones span becomes zero.
void orthonormalize(std::vector<float>& q, std::size_t count, std::size_t dim,
                    int passes) {
  std::vector<float> coefficients(count);
  for (std::size_t i = 0; i < count; ++i) {
    float* row = q.data() + i * dim;
    const float before = std::sqrt(dot(row, row, dim));
    for (int pass = 0; pass < passes; ++pass) {
      kernels::active().float_rows[kernels::kOpDot][0](
          row, reinterpret_cast<const std::byte*>(q.data()), dim * sizeof(float), i,
          dim, coefficients.data());
      for (std::size_t j = 0; j < i; ++j) {
        const float* other = q.data() + j * dim;
        const float c = coefficients[j];
        for (std::size_t k = 0; k < dim; ++k) row[k] -= c * other[k];
      }
    }
    const float norm = std::sqrt(dot(row, row, dim));
    const float factor = norm > 1e-4f * before && norm > 1e-20f ? 1.0f / norm : 0.0f;
    for (std::size_t k = 0; k < dim; ++k) row[k] *= factor;
  }
}

// Rows that span most of the variance of the (centred) sample: empty where it takes
// more than half as many as there are dimensions.
std::vector<float> axes_of(const std::vector<float>& sample, std::size_t count,
                           std::size_t dim, std::uint64_t seed) {
  if (dim < kProjectFrom || count < dim / 2) return {};
  std::vector<float> columns(dim * count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t k = 0; k < dim; ++k) {
      columns[k * count + i] = sample[i * dim + k];
    }
  }
  Products products;
  products.set_rows({columns.data(), dim, count, count});
  const float* found = products.with({columns.data(), dim, count, count});
  std::vector<float> gram(dim * dim);
  double total = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    std::copy_n(found + k * products.stride(), dim, gram.data() + k * dim);
    total += gram[k * dim + k];
  }
  if (!(total > 0)) return {};
  const std::size_t most = std::min(dim / 2, kMostAxes);
  const Random random(seed, 0x6b6e6e);
  std::vector<float> q(most * dim);
  for (std::size_t i = 0; i < q.size(); ++i) {
    q[i] = static_cast<float>(random.unit(i) - 0.5);
  }
  products.set_rows({gram.data(), dim, dim, dim});
  std::vector<double> energy(most);
  for (std::size_t round = 0; round < kIterations; ++round) {
    orthonormalize(q, most, dim, round + 1 < kIterations ? 1 : 2);
    const float* next = products.with({q.data(), most, dim, dim});
    for (std::size_t i = 0; i < most; ++i) {
      const float* row = next + i * products.stride();
      energy[i] = dot(q.data() + i * dim, row, dim);
      if (round + 1 < kIterations) std::copy_n(row, dim, q.data() + i * dim);
    }
  }
  double left = total;
  for (std::size_t m = 0; m < most; ++m) {
    left -= energy[m];
    // One more coordinate holds the rest, and tiles do not care for whole vectors.
    if (left <= kLeftOut * total) {
      q.resize((m + 1) * dim);
      return q;
    }
  }
  return {};
}

}  // namespace

Sketch make_sketch(const KnnSource& source, bool rigorous, std::uint64_t seed,
                   std::size_t threads, Monitor* monitor) {
  const std::size_t n = source.count();
  const std::size_t dim = source.dim();
  Sketch sketch;
  const std::vector<std::uint32_t> chosen =
      codec::draw_distinct(n, std::min(n, kSample), seed, 0x6b6e);
  std::vector<float> sample(chosen.size() * dim);
  std::vector<double> sum(dim);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    float* row = sample.data() + i * dim;
    source.vector(chosen[i], row);
    for (std::size_t k = 0; k < dim; ++k) sum[k] += row[k];
  }
  sketch.centre.resize(dim);
  for (std::size_t k = 0; k < dim; ++k) {
    sketch.centre[k] = static_cast<float>(sum[k] / static_cast<double>(chosen.size()));
    if (!(std::abs(sketch.centre[k]) < kLargest)) return sketch;
  }
  for (std::size_t i = 0; i < sample.size(); ++i) sample[i] -= sketch.centre[i % dim];
  const std::vector<float> axes = axes_of(sample, chosen.size(), dim, seed);
  const std::size_t m = axes.size() / dim;
  sketch.projected = m != 0;
  sketch.width = m == 0 ? dim : m + 1;
  const std::size_t width = sketch.width;
  sketch.rows = AlignedBuffer(n * width * sizeof(float));
  auto* rows = reinterpret_cast<float*>(sketch.rows.data());
  sketch.shares.resize(n);
  sketch.rests.resize(n);

  const double eta =
      static_cast<double>(dim + 16) * std::sqrt(static_cast<double>(m)) * kUnit;
  const double a =
      static_cast<double>(2 * (width + 2) + 16) * kUnit + 4.1 * eta * eta / kTheta;
  sketch.widen = static_cast<float>(1 + (m == 0 ? 0x1.0p-20 : 2.1 * kTheta));

  Panels along(kernels::active().tile, Panels::Side::kRows);
  Panels across(kernels::active().tile, Panels::Side::kRows);
  if (m != 0) {
    along.pack({axes.data(), m, dim, dim});
    std::vector<float> turned(dim * m);
    for (std::size_t j = 0; j < m; ++j) {
      for (std::size_t k = 0; k < dim; ++k) turned[k * m + j] = axes[j * dim + k];
    }
    across.pack({turned.data(), dim, m, m});
  }
  std::atomic<bool> fits{true};
  parallel_for(
      n, threads, kRowsPerRange,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const std::size_t count = end - begin;
        std::vector<float> wide(m == 0 ? 0 : count * dim);
        float* to = m == 0 ? rows + begin * dim : wide.data();
        for (std::size_t i = 0; i < count; ++i) {
          float* x = to + i * dim;
          source.vector(static_cast<std::uint32_t>(begin + i), x);
          for (std::size_t k = 0; k < dim; ++k) x[k] -= sketch.centre[k];
        }
        if (m != 0) {
          Products products;
          const float* z = products.with({wide.data(), count, dim, dim}, &along);
          for (std::size_t i = 0; i < count; ++i) {
            std::copy_n(z + i * products.stride(), m, rows + (begin + i) * width);
          }
          if (!rigorous) {
            // The difference of the squares: cancels a little, costs nothing.
            for (std::size_t i = 0; i < count; ++i) {
              float* to_rest = rows + (begin + i) * width;
              const float* x = wide.data() + i * dim;
              const double rest =
                  static_cast<double>(dot(x, x, dim)) - dot(to_rest, to_rest, m);
              to_rest[m] = static_cast<float>(std::sqrt(std::max(rest, 0.0)));
            }
          }
          const float* back =
              rigorous ? products.with({rows + begin * width, count, m, width}, &across)
                       : nullptr;
          for (std::size_t i = 0; rigorous && i < count; ++i) {
            double rest = 0;
            const float* x = wide.data() + i * dim;
            const float* y = back + i * products.stride();
            for (std::size_t k = 0; k < dim; ++k) {
              const double e = static_cast<double>(x[k]) - y[k];
              rest += e * e;
            }
            rows[(begin + i) * width + m] = static_cast<float>(std::sqrt(rest));
          }
        }
        for (std::size_t i = begin; i < end; ++i) {
          const float* z = rows + i * width;
          const float square = dot(z, z, width);
          if (!(square < kLargest)) fits.store(false, std::memory_order_relaxed);
          sketch.shares[i] = static_cast<float>(square * (1 - a));
          sketch.rests[i] = square - sketch.shares[i];
        }
      },
      monitor);
  if (!fits.load()) sketch = Sketch();
  return sketch;
}

}  // namespace annx::graph
