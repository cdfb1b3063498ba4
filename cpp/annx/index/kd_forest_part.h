// SPDX-License-Identifier: Apache-2.0
// What changing (kd_forest.cpp) and searching (kd_forest_search.cpp) know of a part of
// a KDForestIndex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/index/kd_forest.h"

namespace annx::index {

using search::KdTree;

inline constexpr std::size_t kLeaf = KdTree::kLeaf;

// Rows by place, in whole leaves; the places past `count` are empty.
struct KDForestIndex::Part {
  std::size_t count = 0;
  std::size_t removed = 0;
  storage::Array<float> points;         // in lanes: leaf by leaf; else row by row
  storage::Array<float> norms;          // cosine only
  storage::Array<std::uint32_t> slots;  // kNoSlot where empty or removed
  std::vector<KdTree> trees;            // none: the part is scanned
  // Of every tree but the first: the rows' places, leaf by leaf.
  std::vector<storage::Array<std::uint32_t>> orders;

  std::size_t live() const { return count - removed; }
  std::size_t leaves() const { return KdTree::leaves_of(count); }
};

// The direction of a row, as trees under cosine divide it; zero for a zero row.
inline void direction(const float* row, std::size_t dim, double norm, float* out) {
  for (std::size_t k = 0; k < dim; ++k) {
    out[k] = norm > 0 ? static_cast<float>(row[k] / norm) : 0.0f;
  }
}

}  // namespace annx::index
