// SPDX-License-Identifier: Apache-2.0
// Nearest centroid, exactly, for many points at once: the step that k-means, product
// quantization and inverted files share.
//
// Scores |c'|^2 - 2<x', c'> of centred vectors (x' = x - m, c' = c - m, m the mean of
// the centroids, so that data far from the origin lose no digits) are computed in
// register tiles of 6 points by 16 centroids. A score plus |x'|^2 differs from the
// canonical squared distance of kernels/table.h by at most
//     e(x, c) = (1.05 d + 16) 2^-24 (|x'| + |c'|)^2,
// so every centroid that could be the nearest lies within that of the least score.
// Those few are settled by the canonical kernel itself, ties by the lower id. The
// answer is therefore the canonical one on every instruction set and for any number of
// threads; scores only save work.
//
// Across the iterations of k-means most of the scores need not be computed at all:
// `improve` keeps for every point a lower bound of its distance to each span of
// centroids (the triangle inequality carries it over a movement of the centroids) and
// scores only the tiles in which some point's own centroid is not certainly nearer:
// Hamerly, "Making k-means even faster", 2010; Ding et al., "Yinyang k-means", 2015.
// New here is that points are kept in the order of their cells and alike centroids
// share a group, so that whole register tiles drop out together.
//
// With few dimensions a score costs less than a bound for each span, and choosing the
// least score as much as computing it. Then points lie in lanes
// (kernels/nearest.inc.h): the two least scores name the nearest centroid or leave it
// in doubt, in which case the way above decides; the second one is also a lower bound
// for all other centroids (Hamerly, 2010), and points that need no scores are left out
// of the panels.
//
// Memory: 2 k d floats here, 4 * spans (at most 256 bytes) a point for the bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/base/aligned_buffer.h"
#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/kernels/table.h"

namespace annx::codec {

// The points of a k-means run and what is known of them between two iterations, all in
// the order in which tiles are formed, so that every pass streams through memory.
struct Cells {
  AlignedBuffer rows;                // [position][dim] a copy of the points
  std::vector<std::uint32_t> order;  // [position] the row that the point came from
  std::vector<std::uint32_t> cell;   // [position] nearest centroid
  std::vector<float> distance;       // [position] canonical squared distance to it
  AlignedBuffer bounds;              // [position][span] lower bounds, not squared
  std::size_t dim = 0;
  bool started = false;  // false: no point has a cell yet

  explicit Cells(MatrixView<float> points);
  const float* row(std::size_t p) const {
    return reinterpret_cast<const float*>(rows.data()) + p * dim;
  }
};

class CentroidBlocks {
 public:
  // Groups alike centroids. `centroids` is borrowed and must outlive this.
  explicit CentroidBlocks(MatrixView<float> centroids);

  // The centroids have moved (in place); the groups stay.
  void repack();

  std::size_t spans() const { return spans_; }

  // The nearest centroid of every row and, unless null, its squared distance.
  void nearest(MatrixView<float> rows, std::uint32_t* ids, float* distances,
               std::size_t threads, Monitor* monitor = nullptr) const;

  // The same for the points of a k-means run, using and renewing its bounds. `moves[c]`
  // is how far centroid c has moved since the last call. Returns how many points
  // changed their cell.
  std::size_t improve(Cells& cells, const std::vector<double>& moves,
                      std::size_t threads, Monitor* monitor = nullptr) const;

  // For callers that lay out points themselves: panels of rows less mean(), screened
  // by the kernel; rows left in doubt are decided by look_again(), which sets ids[w]
  // for every w of `which`. Only where lanes().
  bool lanes() const { return lanes_; }
  std::span<const float> mean() const { return mean_; }
  kernels::LaneScreen screen() const;
  void look_again(MatrixView<float> rows, std::span<const std::uint32_t> which,
                  std::uint32_t* ids) const;

  // Orders the points by the place of their cell among the groups.
  void sort(Cells& cells) const;

  // The points at these positions were given other cells: what is known of them is
  // void.
  void forget(Cells& cells, const std::vector<std::uint32_t>& positions) const;

 private:
  struct Worker;

  void nearest_by_lanes(MatrixView<float> rows, std::uint32_t* ids, float* distances,
                        std::size_t threads, Monitor* monitor) const;
  std::size_t improve_by_lanes(Cells& cells, const std::vector<double>& moves,
                               std::size_t threads, Monitor* monitor) const;
  std::vector<float> gaps_between() const;
  void center(const float* row, float* out, double& square) const;
  void score(Worker& w, std::size_t count, bool minima) const;
  void pick(Worker& w, std::size_t p, const float* row, bool measured,
            std::uint32_t& id, float& distance) const;
  const float* lanes(Worker& w, std::size_t p, std::size_t group) const;
  void settle(Worker& w, std::size_t p, const float* row, bool measured,
              std::uint32_t& id, float& distance) const;
  void renew(Worker& w, std::size_t p, std::uint32_t id, float* bounds) const;

  MatrixView<float> centroids_;
  std::size_t dim_ = 0;
  std::size_t groups_ = 0;
  std::size_t stride_ = 0;  // groups, padded to a multiple of 16
  bool bounded_ = true;     // whether improve() keeps a bound for each span
  bool lanes_ = true;       // whether points can be screened in lanes
  std::size_t span_ = 1;    // groups that share a bound
  std::size_t spans_ = 1;
  bool keep_scores_ = true;
  std::vector<std::uint32_t> member_;  // [group][lane] -> centroid, kNoSlot for padding
  std::vector<std::uint32_t> place_;   // centroid -> group * 16 + lane
  std::vector<float> mean_;
  AlignedBuffer packed_;
  std::vector<float> offsets_;  // [group][lane] |c'|^2, +inf for padding
  double farthest_ = 0.0;       // the largest |c'| of all
  std::vector<float> reach_;    // [group] the largest |c'|
  // As LaneScreen has them.
  std::vector<float> lane_centroids_;
  std::vector<float> lane_offsets_;
  std::vector<float> tags_;
};

}  // namespace annx::codec
