// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/cell_rows.h"

#include <algorithm>

#include "annx/base/parallel.h"
#include "annx/storage/half_rows.h"

namespace annx::graph {
namespace {

// Row p becomes what was row order[p], in place: a second copy of the rows would be the
// most memory that all-pairs search takes at any time.
void reorder_rows(float* rows, std::size_t width,
                  const std::vector<std::uint32_t>& order) {
  std::vector<bool> done(order.size());
  std::vector<float> first(width);
  for (std::size_t start = 0; start < order.size(); ++start) {
    if (done[start]) continue;
    std::copy_n(rows + start * width, width, first.data());
    std::size_t at = start;
    for (std::size_t from; (from = order[at]) != start; at = from) {
      std::copy_n(rows + from * width, width, rows + at * width);
      done[at] = true;
    }
    std::copy_n(first.data(), width, rows + at * width);
    done[at] = true;
  }
}

}  // namespace

CellRows::CellRows(AlignedBuffer rows, std::size_t width, const KnnCells& cells,
                   bool halves, std::size_t threads)
    : width_(width),
      stride_(width * sizeof(float)),
      rows_(std::move(rows)),
      cell_of_(cells.order.size()) {
  auto* values = reinterpret_cast<float*>(rows_.data());
  reorder_rows(values, width, cells.order);
  for (std::size_t c = 0; c < cells.count(); ++c) {
    for (std::size_t p = cells.begins[c]; p < cells.begins[c + 1]; ++p) {
      cell_of_[p] = static_cast<std::uint32_t>(c);
    }
  }
  find_means(cells, threads);
  const std::size_t narrow = storage::half_row_bytes(width);
  if (!halves || narrow >= stride_) return;
  // From the first to the last: no row is written over before it is read.
  for (std::size_t p = 0; p < cell_of_.size(); ++p) {
    float* row = values + p * width;
    const float* from = mean(cell_of_[p]);
    for (std::size_t k = 0; k < width; ++k) row[k] -= from[k];
    storage::put_half_row(row, width, rows_.data() + p * narrow);
  }
  rows_.shrink(cell_of_.size() * narrow);
  stride_ = narrow;
  halves_ = true;
}

void CellRows::find_means(const KnnCells& cells, std::size_t threads) {
  means_.resize(cells.count() * width_);
  parallel_for(cells.count(), threads, 16,
               [&](std::size_t first, std::size_t last, std::size_t) {
                 std::vector<double> sum(width_);
                 for (std::size_t c = first; c < last; ++c) {
                   std::fill(sum.begin(), sum.end(), 0.0);
                   for (std::size_t p = cells.begins[c]; p < cells.begins[c + 1]; ++p) {
                     const auto* row = reinterpret_cast<const float*>(bytes(p));
                     for (std::size_t k = 0; k < width_; ++k) sum[k] += row[k];
                   }
                   const double n = cells.begins[c + 1] - cells.begins[c];
                   for (std::size_t k = 0; k < width_; ++k) {
                     means_[c * width_ + k] = static_cast<float>(sum[k] / n);
                   }
                 }
               });
}

void CellRows::widen(std::size_t position, float* out) const {
  storage::get_half_row(bytes(position), width_, out);
  const float* from = mean(cell_of_[position]);
  // The means have the factor already.
  out[width_ - 1] *= last_;
  for (std::size_t k = 0; k < width_; ++k) out[k] += from[k];
}

void CellRows::copy(std::size_t position, float* out) const {
  const float* row = read(position, out);
  if (row != out) std::copy_n(row, width_, out);
}

void CellRows::scale_last(float factor) {
  for (std::size_t at = width_ - 1; at < means_.size(); at += width_) {
    means_[at] *= factor;
  }
  if (halves_) {
    last_ *= factor;
    return;
  }
  auto* rows = reinterpret_cast<float*>(rows_.data());
  for (std::size_t p = 0; p < cell_of_.size(); ++p) {
    rows[p * width_ + width_ - 1] *= factor;
  }
}

}  // namespace annx::graph
