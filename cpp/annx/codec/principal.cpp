// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/principal.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "annx/base/parallel.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

constexpr int kSweeps = 30;

void dots(const float* query, const float* rows, std::size_t stride, std::size_t count,
          std::size_t dim, float* out) {
  kernels::active().float_rows[kernels::kOpDot][0](
      query, reinterpret_cast<const std::byte*>(rows), stride * sizeof(float), count,
      dim, out);
}

// X^T X / n, whole, row by row.
std::vector<float> gram(MatrixView<float> rows, std::size_t threads) {
  const std::size_t dim = rows.cols;
  const std::size_t n = rows.rows;
  std::vector<float> columns(dim * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < dim; ++k) columns[k * n + i] = rows.row(i)[k];
  }
  std::vector<float> matrix(dim * dim);
  const float factor = 1.0f / static_cast<float>(n);
  parallel_for(dim, threads, 4, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t k = begin; k < end; ++k) {
      float* out = matrix.data() + k * dim;
      dots(columns.data() + k * n, columns.data() + k * n, n, dim - k, n, out + k);
      for (std::size_t j = k; j < dim; ++j) out[j] *= factor;
    }
  });
  for (std::size_t k = 0; k < dim; ++k) {
    for (std::size_t j = 0; j < k; ++j) matrix[k * dim + j] = matrix[j * dim + k];
  }
  return matrix;
}

// x = c x - s y and y = s x + c y, of n numbers each, `stride` apart.
void rotate(double* x, double* y, std::size_t n, std::size_t stride, double c,
            double s) {
  for (std::size_t k = 0; k < n * stride; k += stride) {
    const double old = x[k];
    x[k] = c * old - s * y[k];
    y[k] = s * old + c * y[k];
  }
}

// Eigenvalues (falling) and eigenvectors (rows of `vectors`) of a symmetric n x n
// matrix, row by row; destroys the matrix.
void symmetric_eigen(std::vector<double>& matrix, std::size_t n,
                     std::vector<double>& values, std::vector<double>& vectors) {
  vectors.assign(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) vectors[i * n + i] = 1;
  const auto at = [&](std::size_t i, std::size_t j) -> double& {
    return matrix[i * n + j];
  };
  double total = 0;
  for (const double x : matrix) total += x * x;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0;
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = i + 1; j < n; ++j) off += 2 * at(i, j) * at(i, j);
    }
    if (off <= 1e-18 * total) break;
    for (std::size_t p = 0; p + 1 < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        const double a = at(p, q);
        if (a * a <= 1e-22 * total / static_cast<double>(n * n)) continue;
        const double theta = (at(q, q) - at(p, p)) / (2 * a);
        const double t = (theta >= 0 ? 1.0 : -1.0) /
                         (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1);
        const double s = t * c;
        rotate(&at(p, 0), &at(q, 0), n, 1, c, s);
        rotate(&at(0, p), &at(0, q), n, n, c, s);
        rotate(vectors.data() + p * n, vectors.data() + q * n, n, 1, c, s);
      }
    }
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return at(a, a) != at(b, b) ? at(a, a) > at(b, b) : a < b;
  });
  values.resize(n);
  std::vector<double> sorted(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = at(order[i], order[i]);
    std::copy_n(vectors.begin() + static_cast<std::ptrdiff_t>(order[i] * n), n,
                sorted.begin() + static_cast<std::ptrdiff_t>(i * n));
  }
  vectors = std::move(sorted);
}

}  // namespace

PrincipalAxes principal_axes(MatrixView<float> rows, std::size_t threads) {
  const std::vector<float> matrix = gram(rows, threads);
  std::vector<double> working(matrix.begin(), matrix.end());
  std::vector<double> vectors;
  PrincipalAxes result;
  symmetric_eigen(working, rows.cols, result.variances, vectors);
  for (double& v : result.variances) v = std::max(v, 0.0);
  result.axes.assign(vectors.begin(), vectors.end());
  return result;
}

}  // namespace annx::codec
