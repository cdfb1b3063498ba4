// SPDX-License-Identifier: Apache-2.0
#include "annx/search/canonical.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace annx::search {
namespace {

kernels::Op op_of(Metric metric) {
  if (metric == Metric::kInnerProduct) return kernels::kOpDot;
  return metric == Metric::kL1 ? kernels::kOpL1 : kernels::kOpL2;
}

// The largest key of Poincare's distance that is no further than `radius`, by
// bisection: positive floats are ordered as their bits.
float ball_key_within(float radius) {
  if (!(radius >= 0)) return -1;
  std::uint32_t low = 0;
  std::uint32_t high = std::bit_cast<std::uint32_t>(std::numeric_limits<float>::max());
  while (low < high) {
    const std::uint32_t middle = low + (high - low + 1) / 2;
    if (ball_distance(std::bit_cast<float>(middle)) <= radius) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return std::bit_cast<float>(low);
}

}  // namespace

RowSet stored_rows(Metric metric, DType dtype, std::size_t dim, const std::byte* rows,
                   const float* norms, const storage::IdMap& ids) {
  return {.metric = metric,
          .dtype = dtype,
          .dim = dim,
          .rows = rows,
          .stride = row_bytes(dtype, dim),
          .count = ids.slots(),
          .slots = nullptr,
          .norms = norms,
          .ids = ids.identity() ? nullptr : &ids};
}

FilteredRows::FilteredRows(const RowSet& set, const storage::SlotSet* filter)
    : set_(set) {
  // A filter that lets everything through costs nothing.
  if (filter == nullptr || filter->count() == set.count) return;
  slots_ = filter->slots();
  set_.count = slots_.size();
  slots_.push_back(0);  // never null, even when nothing passes
  set_.slots = slots_.data();
}

void write_query(const RowSet& set, std::size_t row, std::byte* out) {
  if (is_float(set.dtype)) {
    kernels::active().widen[static_cast<std::size_t>(set.dtype)](
        set.row(row), set.dim, reinterpret_cast<float*>(out));
  } else {
    std::copy_n(set.row(row), row_bytes(set.dtype, set.dim), out);
  }
}

void row_norms(DType dtype, RowsView rows, std::size_t dim, float* out) {
  const auto type = static_cast<std::size_t>(dtype);
  std::vector<float> wide(dtype == DType::kFloat32 ? 0 : dim);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const float* row = reinterpret_cast<const float*>(rows.row(i));
    if (dtype != DType::kFloat32) {
      kernels::active().widen[type](rows.row(i), dim, wide.data());
      row = wide.data();
    }
    const double square = square_of(row, dim);
    out[i] = static_cast<float>(std::sqrt(square));
  }
}

void row_norms(Metric metric, DType dtype, RowsView rows, std::size_t dim, float* out) {
  if (metric != Metric::kPoincare) return row_norms(dtype, rows, dim, out);
  std::vector<float> wide(dim);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    kernels::active().widen[static_cast<std::size_t>(dtype)](rows.row(i), dim,
                                                             wide.data());
    out[i] = static_cast<float>(1 / ball_gap(wide.data(), dim));
  }
}

template <class Key>
Canonical<Key>::Canonical(const RowSet& set, const std::byte* query)
    : table_(&kernels::active()), set_(set), query_(query) {
  if (set.metric == Metric::kPoincare) {
    weight_ = 1 / ball_gap(reinterpret_cast<const float*>(query), set.dim);
  }
  if (set.metric != Metric::kCosine || !is_float(set.dtype)) return;
  const auto* q = reinterpret_cast<const float*>(query);
  const double square = square_of(q, set.dim);
  if (square == 0) return;
  int exponent;
  std::frexp(std::sqrt(square), &exponent);
  unit_.resize(set.dim);
  // Norms are between 2^-64 and 2^64, so the factor is a normal number and exact.
  const float factor = std::ldexp(1.0f, 1 - exponent);
  for (std::size_t k = 0; k < set.dim; ++k) unit_[k] = q[k] * factor;
  square_ = square_of(unit_.data(), set.dim);
}

template <class Key>
void Canonical<Key>::block(std::size_t begin, std::size_t count, Key* out) const {
  if (set_.slots != nullptr) {
    gathered(set_.slots + begin, count, out);
  } else {
    rows(set_.rows + begin * set_.stride, norms(begin), count, out);
  }
}

template <class Key>
void Canonical<Key>::some(const std::uint32_t* entries, std::size_t count,
                          Key* out) const {
  if (set_.slots == nullptr) {
    gathered(entries, count, out);
    return;
  }
  std::uint32_t slots[kBlock];
  for (std::size_t i = 0; i < count; ++i) slots[i] = set_.slots[entries[i]];
  gathered(slots, count, out);
}

template <class Key>
void Canonical<Key>::rows(const std::byte* rows, const float* norms, std::size_t count,
                          Key* out) const {
  if (count == 0) return;
  const auto type = static_cast<std::size_t>(set_.dtype);
  if constexpr (std::is_same_v<Key, std::int32_t>) {
    if (set_.dtype == DType::kBits) {
      table_->hamming_rows(query_, rows, set_.stride, count, (set_.dim + 7) / 8, out);
      return;
    }
    table_->byte_rows[op_of(set_.metric)][type - kernels::kFloatTypes](
        query_, rows, set_.stride, count, set_.dim, out);
  } else {
    if (set_.dtype == DType::kBits) {
      table_->jaccard_rows(query_, rows, set_.stride, count, (set_.dim + 7) / 8, out);
      return;
    }
    if (is_byte(set_.dtype)) {
      const std::size_t byte_type = type - kernels::kFloatTypes;
      std::int32_t dots[kStretch];
      std::int32_t squares[kStretch];
      std::int32_t square;
      table_->byte_squares[byte_type](query_, set_.dim, 1, set_.dim, &square);
      table_->byte_cosine_rows[byte_type](query_, rows, set_.stride, count, set_.dim,
                                          dots, squares);
      for (std::size_t i = 0; i < count; ++i) {
        const double both = std::sqrt(static_cast<double>(square) * squares[i]);
        out[i] = both > 0 ? static_cast<float>(1.0 - dots[i] / both) : 1.0f;
      }
      return;
    }
    const auto* q = reinterpret_cast<const float*>(query_);
    if (set_.metric != Metric::kCosine) {
      table_->float_rows[op_of(set_.metric)][type](q, rows, set_.stride, count,
                                                   set_.dim, out);
      for (std::size_t i = 0; i < count && set_.metric == Metric::kPoincare; ++i) {
        out[i] = ball_key(out[i], weight_, norms[i]);
      }
    } else if (square_ == 0) {
      for (std::size_t i = 0; i < count; ++i) out[i] = 1.0f;
      return;
    } else {
      const double norm = std::sqrt(square_);
      float scales[kStretch];
      for (std::size_t i = 0; i < count; ++i) {
        scales[i] = norms[i] > 0 ? static_cast<float>(norm / norms[i]) : 0.0f;
      }
      table_->float_scaled_rows[type](unit_.data(), rows, set_.stride, scales, count,
                                      set_.dim, out);
      for (std::size_t i = 0; i < count; ++i) {
        out[i] = norms[i] > 0 ? static_cast<float>(out[i] / (2.0 * square_)) : 1.0f;
      }
      return;
    }
  }
  if (set_.metric == Metric::kInnerProduct) {
    for (std::size_t i = 0; i < count; ++i) out[i] = Key{0} - out[i];  // never -0
  }
}

template <class Key>
void Canonical<Key>::gathered(const std::uint32_t* slots, std::size_t count,
                              Key* out) const {
  const auto type = static_cast<std::size_t>(set_.dtype);
  if constexpr (std::is_same_v<Key, std::int32_t>) {
    if (set_.dtype == DType::kBits) {
      table_->hamming_gather(query_, set_.rows, set_.stride, slots, count,
                             (set_.dim + 7) / 8, out);
      return;
    }
    table_->byte_gather[op_of(set_.metric)][type - kernels::kFloatTypes](
        query_, set_.rows, set_.stride, slots, count, set_.dim, out);
  } else {
    if (is_float(set_.dtype) && set_.metric != Metric::kCosine) {
      table_->float_gather[op_of(set_.metric)][type](
          reinterpret_cast<const float*>(query_), set_.rows, set_.stride, slots, count,
          set_.dim, out);
      for (std::size_t i = 0; i < count && set_.metric == Metric::kPoincare; ++i) {
        out[i] = ball_key(out[i], weight_, set_.norms[slots[i]]);
      }
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        rows(set_.rows + slots[i] * set_.stride, norms(slots[i]), 1, out + i);
      }
      return;
    }
  }
  if (set_.metric == Metric::kInnerProduct) {
    for (std::size_t i = 0; i < count; ++i) out[i] = Key{0} - out[i];  // never -0
  }
}

double comparable_radius(Metric metric, DType dtype, double radius) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  radius = std::clamp(radius, -kLargest, kLargest);
  if (metric == Metric::kPoincare) return ball_key_within(static_cast<float>(radius));
  return has_integer_key(metric, dtype) ? radius : static_cast<float>(radius);
}

template class Canonical<float>;
template class Canonical<std::int32_t>;

}  // namespace annx::search
