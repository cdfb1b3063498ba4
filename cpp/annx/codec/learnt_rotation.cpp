// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/learnt_rotation.h"

#include <algorithm>
#include <cmath>

#include "annx/codec/kmeans.h"
#include "annx/codec/principal.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

constexpr int kRounds = 12;
// k-means steps of the first round; later ones go on from there.
constexpr std::size_t kFirstSteps = 4;
constexpr std::size_t kMostRows = 8192;
// Of M's mean singular value: the share of R in what is made a rotation.
constexpr float kShare = 0.1f;
constexpr int kMostProducts = 60;
// A variance below this share of the largest is none.
constexpr double kLeastShare = 1e-6;
constexpr float kNearEnough = 2e-6f;

// out[i][j] = <a_i, b_j>, for a of `count` rows and b of `dim`, of n numbers each.
void products(const float* a, std::size_t count, const float* b, std::size_t dim,
              std::size_t n, float* out, std::size_t threads) {
  const auto dots = kernels::active().float_rows[kernels::kOpDot][0];
  parallel_for(count, threads, 8, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) {
      dots(a + i * n, reinterpret_cast<const std::byte*>(b), n * sizeof(float), dim, n,
           out + i * dim);
    }
  });
}

std::vector<float> transposed(const float* rows, std::size_t count, std::size_t dim,
                              std::size_t stride) {
  std::vector<float> out(count * dim);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t k = 0; k < dim; ++k) out[k * count + i] = rows[i * stride + k];
  }
  return out;
}

// Makes x the rotation nearest to it; false where it is no good for that.
bool make_rotation(std::vector<float>& x, std::size_t dim, std::size_t threads) {
  // The largest singular value is at most the root of the two norms' product.
  std::vector<float> columns(dim), rows(dim);
  for (std::size_t i = 0; i < dim; ++i) {
    for (std::size_t k = 0; k < dim; ++k) {
      rows[i] += std::abs(x[i * dim + k]);
      columns[k] += std::abs(x[i * dim + k]);
    }
  }
  const float most = std::sqrt(*std::max_element(rows.begin(), rows.end())) *
                     std::sqrt(*std::max_element(columns.begin(), columns.end()));
  if (!(most > 0) || !std::isfinite(1 / most)) return false;
  for (float& value : x) value /= most;
  std::vector<float> squares(dim * dim), moved(dim * dim);
  for (int pass = 0; pass < kMostProducts; ++pass) {
    products(x.data(), dim, x.data(), dim, dim, squares.data(), threads);
    float off = 0;
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t k = 0; k < dim; ++k) {
        off = std::max(off, std::abs(squares[i * dim + k] - (i == k ? 1.0f : 0.0f)));
      }
    }
    if (off <= kNearEnough) return true;
    const std::vector<float> across = transposed(x.data(), dim, dim, dim);
    products(squares.data(), dim, across.data(), dim, dim, moved.data(), threads);
    for (std::size_t i = 0; i < dim * dim; ++i) x[i] = 1.5f * x[i] - 0.5f * moved[i];
  }
  return false;
}

// Principal axes, dealt out to pieces so that their variances multiply to about the
// same.
std::vector<float> dealt_axes(MatrixView<float> rows,
                              const std::vector<std::uint8_t>& widths,
                              std::size_t threads) {
  const std::size_t dim = rows.cols;
  const PrincipalAxes principal = principal_axes(rows, threads);
  std::vector<std::size_t> begins(widths.size()), taken(widths.size());
  for (std::size_t p = 1; p < widths.size(); ++p) {
    begins[p] = begins[p - 1] + widths[p - 1];
  }
  std::vector<double> products(widths.size());  // their logarithms
  std::vector<float> axes(dim * dim);
  for (std::size_t k = 0; k < dim; ++k) {
    std::size_t best = widths.size();
    for (std::size_t p = 0; p < widths.size(); ++p) {
      if (taken[p] == widths[p]) continue;
      if (best == widths.size() || products[p] < products[best]) best = p;
    }
    std::copy_n(
        principal.axes.begin() + static_cast<std::ptrdiff_t>(k * dim), dim,
        axes.begin() + static_cast<std::ptrdiff_t>((begins[best] + taken[best]) * dim));
    ++taken[best];
    // Above 0, so that a piece with more axes has the larger product.
    const double least = kLeastShare * principal.variances[0];
    products[best] += least > 0 ? std::log(principal.variances[k] / least + 1) : 1.0;
  }
  return axes;
}

}  // namespace

std::vector<float> learn_rotation(MatrixView<float> rows,
                                  const std::vector<std::uint8_t>& widths,
                                  std::size_t levels, std::uint64_t seed,
                                  std::size_t threads, Monitor* monitor) {
  const std::size_t dim = rows.cols;
  const std::size_t workers = resolve_threads(threads);
  rows.rows = std::min(rows.rows, std::max(kMostRows, levels));
  const std::size_t n = rows.rows;
  std::vector<float> rotation = dealt_axes(rows, widths, workers);
  const std::vector<float> columns = transposed(rows.data, n, dim, rows.stride);
  std::vector<float> turned(n * dim), standing(dim * n), next(dim * dim);
  std::vector<std::int64_t> cells(n);
  std::vector<float> distances(n);
  std::vector<std::vector<float>> books(widths.size());
  const auto dots = kernels::active().float_rows[kernels::kOpDot][0];
  for (int round = 0; round < kRounds; ++round) {
    parallel_for(n, workers, 64, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t i = begin; i < end; ++i) {
        dots(rows.row(i), reinterpret_cast<const std::byte*>(rotation.data()),
             dim * sizeof(float), dim, dim, turned.data() + i * dim);
      }
    });
    std::size_t at = 0;
    for (std::size_t p = 0; p < widths.size(); ++p) {
      const std::size_t width = widths[p];
      if (width == 0) continue;
      const MatrixView<float> part{turned.data() + at, n, width, dim};
      KMeans piece({.n_clusters = levels,
                    .n_iterations = round == 0 ? kFirstSteps : 1,
                    .start = round == 0 ? KMeansStart::kRandom : KMeansStart::kGiven,
                    .seed = seed + p});
      MatrixView<float> before{};
      if (round > 0) before = {books[p].data(), levels, width, width};
      piece.train(part, before, threads, nullptr);
      piece.assign(part, cells.data(), distances.data(), threads, nullptr);
      const MatrixView<float> found = piece.centroids();
      books[p].assign(found.data, found.data + levels * width);
      for (std::size_t k = 0; k < width; ++k) {
        float* to = standing.data() + (at + k) * n;
        for (std::size_t i = 0; i < n; ++i) {
          to[i] = found.row(static_cast<std::size_t>(cells[i]))[k];
        }
      }
      at += width;
    }
    products(standing.data(), dim, columns.data(), dim, n, next.data(), workers);
    double square = 0;
    for (const float x : next)
      square += static_cast<double>(x) * static_cast<double>(x);
    const auto share =
        kShare * static_cast<float>(std::sqrt(square / static_cast<double>(dim)));
    for (std::size_t i = 0; i < dim * dim; ++i) next[i] += share * rotation[i];
    if (!make_rotation(next, dim, workers)) break;
    rotation.swap(next);
    if (monitor != nullptr) monitor->poll(static_cast<std::size_t>(round) + 1, kRounds);
  }
  return rotation;
}

}  // namespace annx::codec
