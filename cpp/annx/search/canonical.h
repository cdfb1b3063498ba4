// SPDX-License-Identifier: Apache-2.0
// The canonical distance of one query to many rows: what every exact result is made of.
// Keys order results and turn into distances only at the end: int32 for l2, ip and l1
// over 8-bit rows and for hamming, float32 for all else.
//
// Cosine over float rows is |q - t x|^2 / (2 |q|^2) with t = |q| / |x|: equal to
// 1 - cos, but without its cancellation, so near-parallel vectors (all of a set that is
// far from the origin) keep their order; relative error at most (dim / 32 + 16) *
// 2^-24, and 2^-45 absolute. A vector whose squared norm is below the smallest normal
// float32 counts as zero, and is at distance 1 from everything.
//
// Poincare's distance has the key of base/ball.h, of relative error (dim / 32 + 11) *
// 2^-24, and becomes a distance only at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "annx/base/ball.h"
#include "annx/base/matrix_view.h"
#include "annx/base/square.h"
#include "annx/base/types.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::search {

// Rows to be searched: all of `count`, or those in `slots`. Non-owning.
struct RowSet {
  Metric metric = Metric::kL2;
  DType dtype = DType::kFloat32;
  std::size_t dim = 0;
  const std::byte* rows = nullptr;
  std::size_t stride = 0;  // bytes
  std::size_t count = 0;   // of rows, or of slots where those are given
  const std::uint32_t* slots = nullptr;
  const float* norms = nullptr;         // by slot, from row_norms(), where kept
  const storage::IdMap* ids = nullptr;  // null: a row's id is its slot

  std::uint32_t slot(std::size_t i) const {
    return slots == nullptr ? static_cast<std::uint32_t>(i) : slots[i];
  }
  std::int64_t id(std::size_t i) const {
    return ids == nullptr ? static_cast<std::int64_t>(slot(i)) : ids->id_of(slot(i));
  }
  const std::byte* row(std::size_t i) const { return rows + slot(i) * stride; }
};

// All rows of an index that keeps them one after the other.
RowSet stored_rows(Metric metric, DType dtype, std::size_t dim, const std::byte* rows,
                   const float* norms, const storage::IdMap& ids);

// A set of rows without slots, or those of them that a filter (null: all) lets through.
// set() is valid as long as this.
class FilteredRows {
 public:
  FilteredRows(const RowSet& set, const storage::SlotSet* filter);
  FilteredRows(const FilteredRows&) = delete;
  FilteredRows& operator=(const FilteredRows&) = delete;
  const RowSet& set() const { return set_; }

 private:
  RowSet set_;
  std::vector<std::uint32_t> slots_;
};

inline bool is_float(DType dtype) { return dtype <= DType::kBFloat16; }
inline bool is_byte(DType dtype) {
  return dtype == DType::kInt8 || dtype == DType::kUInt8;
}
inline bool has_integer_key(Metric metric, DType dtype) {
  return (is_byte(dtype) && metric != Metric::kCosine) || metric == Metric::kHamming;
}
// Queries over float rows are float32; otherwise they have the rows' type.
inline DType query_dtype(DType dtype) {
  return is_float(dtype) ? DType::kFloat32 : dtype;
}

// The row as a query: row_bytes(query_dtype(set.dtype), set.dim) bytes.
void write_query(const RowSet& set, std::size_t row, std::byte* out);

// |row| of each row, in float64 rounded to float32; 0 for a zero vector.
void row_norms(DType dtype, RowsView rows, std::size_t dim, float* out);

// What a metric keeps beside a row: |row| for cosine, 1 / (1 - |row|^2) for Poincare's.
inline bool keeps_norms(Metric metric) {
  return metric == Metric::kCosine || metric == Metric::kPoincare;
}
void row_norms(Metric metric, DType dtype, RowsView rows, std::size_t dim, float* out);

// What a key of a metric is as a distance; rising.
template <class Key>
float distance_of(Metric metric, Key key) {
  const auto value = static_cast<float>(key);
  return metric == Metric::kPoincare ? ball_distance(value) : value;
}

template <class Key>
class Canonical {
 public:
  // Keys of at most this many entries are asked for at once.
  static constexpr std::size_t kBlock = 256;
  // Of neighbouring entries that are looked at once: as many more as let kernels see
  // that rows come from memory.
  static constexpr std::size_t kStretch = 4096;

  // `query` must outlive this; `set` is copied.
  Canonical(const RowSet& set, const std::byte* query);

  // Keys of the set's entries [begin, begin + count), count <= kStretch.
  void block(std::size_t begin, std::size_t count, Key* out) const;
  // Keys of `count` <= kStretch rows that lie elsewhere, as far apart as the set's,
  // with norms of theirs (cosine over floats only).
  void rows(const std::byte* rows, const float* norms, std::size_t count,
            Key* out) const;
  // Keys of any entries of the set, count <= kBlock.
  void some(const std::uint32_t* entries, std::size_t count, Key* out) const;

  // Cosine over float rows: the query's multiple that rows are compared with, and its
  // square; empty and 0 for a zero query.
  const std::vector<float>& unit() const { return unit_; }
  double square() const { return square_; }

  // What a key is as a distance, but for Poincare's.
  static float distance(Key key) { return static_cast<float>(key); }

 private:
  const float* norms(std::size_t slot) const {
    return set_.norms == nullptr ? nullptr : set_.norms + slot;
  }
  void gathered(const std::uint32_t* slots, std::size_t count, Key* out) const;

  const kernels::KernelTable* table_;
  RowSet set_;
  const std::byte* query_;
  std::vector<float> unit_;  // cosine: the query times a power of two, norm in [1, 2)
  double square_ = 0;        // |unit|^2, 0 for a zero query
  double weight_ = 0;        // poincare: 1 / (1 - |query|^2)
};

// A radius as keys are compared with it: a float32 where they are no integers; for
// Poincare's the largest key whose distance is no larger.
double comparable_radius(Metric metric, DType dtype, double radius);
template <class Key>
bool inside(Key key, double radius) {
  if constexpr (std::is_same_v<Key, float>) {
    return key <= static_cast<float>(radius);
  } else {
    return static_cast<double>(key) <= radius;
  }
}

extern template class Canonical<float>;
extern template class Canonical<std::int32_t>;

}  // namespace annx::search
