// SPDX-License-Identifier: Apache-2.0
// A k-d tree of wide nodes. Points are split at the median along the dimension of
// highest variance (Bentley, 1975; Friedman, Bentley and Finkel, 1977), or along one
// drawn among the best few (Silpa-Anan and Hartley, 2008; Muja and Lowe, 2009), down to
// leaves of 16 points. Three levels of splits make one node of up to eight children,
// which keeps the bounding boxes of what lies below each: a query is compared with all
// eight at once, and the box of the points bounds their distance better than the cell.
//
// Order: `order` lists the points leaf by leaf, and leaf i has places [16 i, 16 i +
// 16). Nodes are numbered level by level, so the children of a node have neighbouring
// numbers. All leaves lie at the same depth; every leaf but the last is full, and every
// node but those at the top nearly so. The tree depends on the points and the seed
// alone, not on the number of threads.
//
// Building: O(n dim + n log n) a level of splits for nodes of at most 256 points, and a
// sample of 256 elsewhere; the boxes take 9 dim bytes a point. Equal points are split
// by their number, so every build ends. Reading is thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/prefetch.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::search {

class KdTree {
 public:
  static constexpr std::size_t kFan = kernels::kBoxFan;
  static constexpr std::size_t kLeaf = kernels::kLeafPoints;
  // Nodes that a depth-first walk has put aside at most: 7 a level below the root.
  static constexpr std::size_t kMaxStack = 96;

  struct Options {
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;  // of the seed: the tree's number
    // Dimensions of highest variance to draw one of; 1 draws nothing.
    std::size_t choices = 1;
  };

  static std::size_t leaves_of(std::size_t count) {
    return (count + kLeaf - 1) / kLeaf;
  }

  KdTree() = default;
  // At least one point; `order` (count) gets the numbers of the rows by place.
  KdTree(MatrixView<float> points, const Options& options, std::size_t threads,
         Monitor* monitor, std::uint32_t* order);

  std::size_t nodes() const { return nodes_; }
  std::size_t leaves() const { return leaves_; }
  std::size_t memory_bytes() const {
    return first_.capacity() * sizeof(std::uint32_t) + boxes_.held_bytes();
  }

  // A child's number: of a node, or nodes() + that of a leaf.
  std::uint32_t first_child(std::size_t node) const { return first_[node]; }
  std::size_t children(std::size_t node) const {
    return first_[node + 1] - first_[node];
  }
  const float* boxes(std::size_t node) const {
    return boxes_.data() + node * 2 * kFan * dim_;
  }

  // The leaf that a greedy walk ends in.
  std::size_t nearest_leaf(const float* query, kernels::BoxBounds bounds) const;

  // Calls visit(leaf) for the leaves whose boxes are not further than `limit`, nearer
  // ones first on the way down; visit returns the new limit.
  template <class Visit>
  void walk(const float* query, kernels::BoxBounds bounds, float limit,
            Visit&& visit) const;

  // Sections named with this prefix. Throws FormatError.
  void save_to(storage::FileWriter& writer, const std::string& prefix) const;
  static KdTree load_from(const storage::FileReader& reader, const std::string& prefix,
                          std::size_t count, std::size_t dim);

 private:
  void plan(std::size_t count, std::size_t dim);
  void make_boxes(MatrixView<float> points, const std::uint32_t* order,
                  std::size_t threads, Monitor* monitor);

  std::size_t dim_ = 0;
  std::size_t leaves_ = 0;
  std::size_t nodes_ = 0;
  std::size_t bottom_ = 0;  // the first node whose children are leaves
  // Of each node, and the end of the last one's children. Follows from the number of
  // points, so it is not saved.
  std::vector<std::uint32_t> first_;
  storage::Array<float> boxes_;
};

template <class Visit>
void KdTree::walk(const float* query, kernels::BoxBounds bounds, float limit,
                  Visit&& visit) const {
  struct Entry {
    float bound;
    std::uint32_t node;
  };
  Entry stack[kMaxStack];
  std::size_t top = 0;
  stack[top++] = {0.0f, 0};
  float found[kFan];
  while (top > 0) {
    const Entry entry = stack[--top];
    if (!(entry.bound <= limit)) continue;
    if (entry.node >= nodes_) {
      limit = visit(static_cast<std::size_t>(entry.node - nodes_));
      continue;
    }
    bounds(query, boxes(entry.node), dim_, found);
    const std::size_t count = children(entry.node);
    const std::uint32_t first = first_child(entry.node);
    const std::size_t bottom = top;
    for (std::size_t i = 0; i < count; ++i) {
      if (!(found[i] <= limit)) continue;
      // Nearest on top.
      std::size_t at = top++;
      for (; at > bottom && stack[at - 1].bound < found[i]; --at) {
        stack[at] = stack[at - 1];
      }
      stack[at] = {found[i], first + static_cast<std::uint32_t>(i)};
    }
  }
}

}  // namespace annx::search
