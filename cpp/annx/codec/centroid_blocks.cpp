// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/centroid_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "annx/base/types.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

using kernels::kGroup;
using kernels::kScorePoints;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kBlockTiles = 8;
constexpr std::size_t kBlock = kBlockTiles * kScorePoints;
// More bounds a point would cost more memory than they save time.
constexpr std::size_t kMaxSpans = 64;
// Above this the scores of a block would not stay in the cache; they are made again for
// the few groups that need a second look.
constexpr std::size_t kMaxKeptScores = 4096;
// A batch of packed groups that stays in the second-level cache beside a block of
// points.
constexpr std::size_t kBatchBytes = 128 * 1024;
// Squares below the normal range lose digits absolutely, not relatively.
constexpr double kUnderflow = 1e-36;

// With fewer dimensions a score costs less than keeping bounds.
constexpr std::size_t kMinBoundedDim = 20;
// Points that one thread takes at a time where they lie in lanes.
constexpr std::size_t kLaneBlock = 512;

double relative_error(std::size_t dim) {
  return (1.05 * static_cast<double>(dim) + 16.0) * 0x1.0p-24;
}

// Halves `ids` by the projection on the direction of (nearly) largest variance until
// the parts are of a group's size, so that neighbours in the order are alike. Power
// iteration from the farthest member; only speed depends on its accuracy.
void bisect(MatrixView<float> x, std::uint32_t* ids, std::size_t count,
            std::vector<float>& scratch) {
  if (count <= kGroup) return;
  const std::size_t dim = x.cols;
  std::vector<float> mean(dim), axis(dim), next(dim);
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = x.row(ids[i]);
    for (std::size_t j = 0; j < dim; ++j) mean[j] += row[j];
  }
  for (float& m : mean) m /= static_cast<float>(count);
  float farthest = -1.0f;
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = x.row(ids[i]);
    float square = 0.0f;
    for (std::size_t j = 0; j < dim; ++j)
      square += (row[j] - mean[j]) * (row[j] - mean[j]);
    if (square > farthest) {
      farthest = square;
      for (std::size_t j = 0; j < dim; ++j) axis[j] = row[j] - mean[j];
    }
  }
  if (!(farthest > 0.0f) || !std::isfinite(farthest)) return;
  scratch.resize(x.rows);
  const auto project = [&] {
    for (std::size_t i = 0; i < count; ++i) {
      const float* row = x.row(ids[i]);
      float dot = 0.0f;
      for (std::size_t j = 0; j < dim; ++j) dot += (row[j] - mean[j]) * axis[j];
      scratch[ids[i]] = dot;
    }
  };
  for (int round = 0; round < 4; ++round) {
    project();
    std::fill(next.begin(), next.end(), 0.0f);
    for (std::size_t i = 0; i < count; ++i) {
      const float* row = x.row(ids[i]);
      const float weight = scratch[ids[i]];
      for (std::size_t j = 0; j < dim; ++j) next[j] += weight * (row[j] - mean[j]);
    }
    float largest = 0.0f;
    for (const float a : next) largest = std::max(largest, std::fabs(a));
    if (!(largest > 0.0f) || !std::isfinite(largest)) break;
    for (std::size_t j = 0; j < dim; ++j) axis[j] = next[j] / largest;
  }
  project();
  // Cut at a multiple of the group's size, so that only the last group is not full.
  const std::size_t half = (count / 2 + kGroup - 1) / kGroup * kGroup;
  std::nth_element(ids, ids + half, ids + count, [&](std::uint32_t a, std::uint32_t b) {
    return scratch[a] < scratch[b] || (scratch[a] == scratch[b] && a < b);
  });
  bisect(x, ids, half, scratch);
  bisect(x, ids + half, count - half, scratch);
}

}  // namespace

Cells::Cells(MatrixView<float> points)
    : rows(points.rows * points.cols * sizeof(float)),
      order(points.rows),
      cell(points.rows, kNoSlot),
      distance(points.rows),
      dim(points.cols) {
  std::iota(order.begin(), order.end(), 0u);
  for (std::size_t i = 0; i < points.rows; ++i) {
    std::memcpy(rows.data() + i * dim * sizeof(float), points.row(i),
                dim * sizeof(float));
  }
}

// Scratch of one thread.
struct CentroidBlocks::Worker {
  std::vector<float> points;             // [kBlock][dim], -2 x'
  std::vector<float> scores;             // [kBlock][groups * 16], or one group
  std::vector<float> minima;             // [kBlock][stride_]
  std::vector<double> square;            // |x'|^2
  std::vector<std::uint32_t> lists;      // [tile][groups], the groups to score
  std::vector<std::uint32_t> list_size;  // [tile]
  std::vector<float> gap;                // [tile][kMaxSpans], scored where <= 0
  std::vector<std::uint32_t> found;      // room for positions below a limit
  std::vector<float> measured;           // distances to those
  std::vector<float> floor;              // [groups], then [spans]
  std::size_t changed = 0;

  explicit Worker(const CentroidBlocks& b)
      : points(kBlock * b.dim_),
        scores(b.keep_scores_ ? kBlock * b.groups_ * kGroup : kGroup),
        minima(kBlock * b.stride_, kInfinity),
        square(kBlock),
        lists(kBlockTiles * b.groups_),
        list_size(kBlockTiles),
        gap(kBlockTiles * kMaxSpans, kInfinity),
        found(std::max(b.stride_, b.keep_scores_ ? b.groups_ * kGroup : 0)),
        floor(b.stride_) {}

  void list_all(std::size_t groups) {
    for (std::size_t t = 0; t < kBlockTiles; ++t) {
      std::iota(lists.begin() + static_cast<std::ptrdiff_t>(t * groups),
                lists.begin() + static_cast<std::ptrdiff_t>((t + 1) * groups), 0u);
      list_size[t] = static_cast<std::uint32_t>(groups);
    }
  }
};

CentroidBlocks::CentroidBlocks(MatrixView<float> centroids)
    : centroids_(centroids),
      dim_(centroids.cols),
      groups_((centroids.rows + kGroup - 1) / kGroup),
      stride_((groups_ + kGroup - 1) / kGroup * kGroup),
      bounded_(centroids.cols >= kMinBoundedDim) {
  span_ = (groups_ + kMaxSpans - 1) / kMaxSpans;
  spans_ = (groups_ + span_ - 1) / span_;
  keep_scores_ = centroids.rows <= kMaxKeptScores;
  static_assert(kMaxKeptScores <= std::size_t{1} << kernels::kMaxTagBits);
  lanes_ = keep_scores_;
  std::vector<std::uint32_t> ids(centroids.rows);
  std::iota(ids.begin(), ids.end(), 0u);
  std::vector<float> scratch;
  if (bounded_) bisect(centroids, ids.data(), ids.size(), scratch);
  member_.assign(groups_ * kGroup, kNoSlot);
  place_.resize(centroids.rows);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    member_[i] = ids[i];
    place_[ids[i]] = static_cast<std::uint32_t>(i);
  }
  packed_ = AlignedBuffer(groups_ * kGroup * dim_ * sizeof(float));
  offsets_.resize(groups_ * kGroup);
  reach_.resize(stride_);
  mean_.resize(dim_);
  if (lanes_) {
    const std::size_t wide = kernels::active().tile.queries;
    const std::size_t padded = (centroids.rows + wide - 1) / wide * wide;
    lane_centroids_.resize(padded * dim_);
    lane_offsets_.resize(padded, kernels::kNoCentroid);
    tags_.resize(padded);
    for (std::size_t c = 0; c < centroids.rows; ++c) {
      tags_[c] = std::bit_cast<float>(static_cast<std::uint32_t>(c));
    }
  }
  repack();
}

void CentroidBlocks::repack() {
  std::vector<double> sum(dim_);
  for (std::size_t c = 0; c < centroids_.rows; ++c) {
    const float* row = centroids_.row(c);
    for (std::size_t j = 0; j < dim_; ++j) sum[j] += row[j];
  }
  for (std::size_t j = 0; j < dim_; ++j) {
    mean_[j] = static_cast<float>(sum[j] / static_cast<double>(centroids_.rows));
  }
  farthest_ = 0.0;
  auto* packed = reinterpret_cast<float*>(packed_.data());
  std::fill(offsets_.begin(), offsets_.end(), kInfinity);
  std::fill(reach_.begin(), reach_.end(), 0.0f);
  const std::size_t wide = kernels::active().tile.queries;
  for (std::size_t i = 0; i < member_.size(); ++i) {
    if (member_[i] == kNoSlot) continue;
    const float* row = centroids_.row(member_[i]);
    float* column = packed + i / kGroup * dim_ * kGroup + i % kGroup;
    const std::size_t c = member_[i];
    float* lane =
        lanes_ ? lane_centroids_.data() + c / wide * wide * dim_ + c % wide : nullptr;
    double square = 0.0;
    for (std::size_t j = 0; j < dim_; ++j) {
      const float x = row[j] - mean_[j];
      column[j * kGroup] = x;
      if (lanes_) lane[j * wide] = -2.0f * x;
      square += static_cast<double>(x) * x;
    }
    offsets_[i] = static_cast<float>(square);
    if (lanes_) lane_offsets_[c] = offsets_[i];
    farthest_ = std::max(farthest_, std::sqrt(square) * (1.0 + 1e-6));
    float& reach = reach_[i / kGroup];
    reach = std::max(reach, static_cast<float>(std::sqrt(square) * (1.0 + 1e-6)));
  }
}

void CentroidBlocks::center(const float* row, float* out, double& square) const {
  // Four partial sums: one would make every addition wait for the last.
  double sums[4] = {};
  std::size_t j = 0;
  for (; j + 4 <= dim_; j += 4) {
    for (std::size_t l = 0; l < 4; ++l) {
      const float x = row[j + l] - mean_[j + l];
      out[j + l] = -2.0f * x;
      sums[l] += static_cast<double>(x) * x;
    }
  }
  for (; j < dim_; ++j) {
    const float x = row[j] - mean_[j];
    out[j] = -2.0f * x;
    sums[0] += static_cast<double>(x) * x;
  }
  square = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Scores the first `count` points of the block against the groups of their tile's list.
void CentroidBlocks::score(Worker& w, std::size_t count, bool minima) const {
  const auto& table = kernels::active();
  const auto* packed = reinterpret_cast<const float*>(packed_.data());
  const std::size_t tiles = (count + kScorePoints - 1) / kScorePoints;
  const std::size_t batch =
      std::max<std::size_t>(1, kBatchBytes / (dim_ * kGroup * sizeof(float)));
  const std::size_t score_stride = groups_ * kGroup;
  std::size_t from[kBlockTiles] = {};
  for (std::size_t end = std::min(batch, groups_);;
       end = std::min(end + batch, groups_)) {
    for (std::size_t t = 0; t < tiles; ++t) {
      const std::uint32_t* list = w.lists.data() + t * groups_;
      std::size_t to = from[t];
      if (end == groups_) {
        to = w.list_size[t];
      } else {
        while (to < w.list_size[t] && list[to] < end) ++to;
      }
      if (to == from[t]) continue;
      const std::size_t first = t * kScorePoints;
      table.score_tile(
          w.points.data() + first * dim_, dim_, std::min(kScorePoints, count - first),
          packed, offsets_.data(), dim_, list + from[t], to - from[t],
          keep_scores_ ? w.scores.data() + first * score_stride : nullptr, score_stride,
          minima ? w.minima.data() + first * stride_ : nullptr, stride_);
      from[t] = to;
    }
    if (end == groups_) break;
  }
}

// The 16 scores of point p of the block against a group that was scored.
const float* CentroidBlocks::lanes(Worker& w, std::size_t p, std::size_t group) const {
  if (keep_scores_) return w.scores.data() + (p * groups_ + group) * kGroup;
  const std::uint32_t zero = 0;
  float least;
  kernels::active().score_tile(
      w.points.data() + p * dim_, dim_, 1,
      reinterpret_cast<const float*>(packed_.data()) + group * dim_ * kGroup,
      offsets_.data() + group * kGroup, dim_, &zero, 1, w.scores.data(), kGroup, &least,
      1);
  return w.scores.data();
}

// Improves (id, distance) by the centroids that the scores of point p leave possible.
// Unless `measured`, the distance of a lone candidate is left infinite.
void CentroidBlocks::settle(Worker& w, std::size_t p, const float* row, bool measured,
                            std::uint32_t& id, float& distance) const {
  const auto gather = kernels::active().float_gather[kernels::kOpL2][0];
  const double u = relative_error(dim_);
  const float* minima = w.minima.data() + p * stride_;
  const double square = w.square[p];
  const auto length = static_cast<float>(std::sqrt(square) * (1.0 + 1e-6));
  // Everything below is relative to -|x'|^2, in float, with the rounding in `slack`.
  const auto error = static_cast<float>(u * 1.0001);
  const auto slack = static_cast<float>(u * 0.01 * square + kUnderflow);
  float* floor = w.floor.data();
  float limit = kernels::active().score_floors(minima, reach_.data(), stride_, length,
                                               error, slack, floor);
  limit = std::min(
      limit, static_cast<float>(static_cast<double>(distance) * (1.0 + 1e-6) - square) +
                 slack);
  // One candidate alone needs no distance, unless the caller wants it.
  constexpr std::uint32_t kUnmeasured = kNoSlot;
  std::uint32_t waiting = kUnmeasured;
  const auto measure = [&](std::uint32_t c) {
    float d;
    gather(row, reinterpret_cast<const std::byte*>(centroids_.data),
           centroids_.stride * sizeof(float), &c, 1, dim_, &d);
    if (d < distance || (d == distance && c < id)) {
      distance = d;
      id = c;
    }
  };
  const std::size_t near = kernels::active().score_below(
      floor, stride_, std::nextafter(limit, kInfinity), w.found.data());
  for (std::size_t i = 0; i < near; ++i) {
    const std::size_t g = w.found[i];
    if (g >= groups_) break;
    const float* scores = lanes(w, p, g);
    const float most = limit + (minima[g] - floor[g]);
    for (std::size_t l = 0; l < kGroup; ++l) {
      const std::uint32_t c = member_[g * kGroup + l];
      if (scores[l] > most || c == kNoSlot || c == id) continue;
      if (!measured && id == kNoSlot && waiting == kUnmeasured) {
        waiting = c;
        continue;
      }
      if (waiting != kUnmeasured) {
        measure(waiting);
        waiting = kUnmeasured;
      }
      measure(c);
    }
  }
  if (waiting != kUnmeasured) id = waiting;
}

// The nearest centroid of point p from all of its scores, without the help of minima.
void CentroidBlocks::pick(Worker& w, std::size_t p, const float* row, bool measured,
                          std::uint32_t& id, float& distance) const {
  const auto& table = kernels::active();
  const float* scores = w.scores.data() + p * groups_ * kGroup;
  const double u = relative_error(dim_);
  const double sum = std::sqrt(w.square[p]) * (1.0 + 1e-6) + farthest_;
  const auto error = static_cast<float>(1.01 * (u * sum * sum + kUnderflow));
  const std::size_t count = groups_ * kGroup;
  const float limit = table.score_least(scores, count) + 2.0f * error;
  std::uint32_t* found = w.found.data();
  const std::size_t n = table.score_below(scores, count, limit, found);
  id = kNoSlot;
  distance = kInfinity;
  for (std::size_t i = 0; i < n; ++i) found[i] = member_[found[i]];
  if (n == 1 && !measured) {
    id = found[0];
    return;
  }
  w.measured.resize(n);
  table.float_gather[kernels::kOpL2][0](
      row, reinterpret_cast<const std::byte*>(centroids_.data),
      centroids_.stride * sizeof(float), found, n, dim_, w.measured.data());
  for (std::size_t i = 0; i < n; ++i) {
    const float d = w.measured[i];
    if (d < distance || (d == distance && found[i] < id)) {
      distance = d;
      id = found[i];
    }
  }
}

// New lower bounds, from the scores, of the spans that point p was scored against.
// Uses what settle() left for the same point.
void CentroidBlocks::renew(Worker& w, std::size_t p, std::uint32_t id,
                           float* bounds) const {
  float* floor = w.floor.data();
  const float* gap = w.gap.data() + p / kScorePoints * kMaxSpans;
  const std::size_t own = place_[id] / kGroup;
  if (gap[own / span_] <= 0.0f) {
    const float* scores = lanes(w, p, own);
    float least = kInfinity;
    for (std::size_t l = 0; l < kGroup; ++l) {
      if (member_[own * kGroup + l] != id) least = std::min(least, scores[l]);
    }
    floor[own] += least - w.minima[p * stride_ + own];
  }
  for (std::size_t s = 0; s < spans_ && span_ > 1; ++s) {
    const std::size_t end = std::min(groups_, (s + 1) * span_);
    float lower = kInfinity;
    for (std::size_t g = s * span_; g < end; ++g) lower = std::min(lower, floor[g]);
    floor[s] = lower;
  }
  const auto base = static_cast<float>(w.square[p]) * (1.0f - 0x1.0p-22f);
  kernels::active().merge_bounds(bounds, floor, gap, spans_, base);
}

void CentroidBlocks::nearest(MatrixView<float> rows, std::uint32_t* ids,
                             float* distances, std::size_t threads,
                             Monitor* monitor) const {
  threads = resolve_threads(threads);
  if (lanes_) {
    nearest_by_lanes(rows, ids, distances, threads, monitor);
    return;
  }
  std::vector<std::vector<Worker>> workers(threads);
  parallel_for(
      rows.rows, threads, kBlock,
      [&](std::size_t begin, std::size_t end, std::size_t worker) {
        if (workers[worker].empty()) {
          workers[worker].emplace_back(*this).list_all(groups_);
        }
        Worker& w = workers[worker].front();
        const std::size_t count = end - begin;
        for (std::size_t p = 0; p < count; ++p) {
          center(rows.row(begin + p), w.points.data() + p * dim_, w.square[p]);
        }
        score(w, count, !keep_scores_);
        for (std::size_t p = 0; p < count; ++p) {
          std::uint32_t id = kNoSlot;
          float distance = kInfinity;
          const float* row = rows.row(begin + p);
          if (keep_scores_) {
            pick(w, p, row, distances != nullptr, id, distance);
          } else {
            settle(w, p, row, distances != nullptr, id, distance);
          }
          ids[begin + p] = id;
          if (distances != nullptr) distances[begin + p] = distance;
        }
      },
      monitor);
}

kernels::LaneScreen CentroidBlocks::screen() const {
  return {.centroids = lane_centroids_.data(),
          .offsets = lane_offsets_.data(),
          .tags = tags_.data(),
          .panels = lane_offsets_.size() / kernels::active().tile.queries,
          .dim = dim_,
          .tag_bits = static_cast<std::uint32_t>(std::bit_width(centroids_.rows - 1)),
          .farthest = static_cast<float>(farthest_ * farthest_ * (1.0 + 1e-6))};
}

void CentroidBlocks::look_again(MatrixView<float> rows,
                                std::span<const std::uint32_t> which,
                                std::uint32_t* ids) const {
  if (which.empty()) return;
  Worker w(*this);
  w.list_all(groups_);
  // What is in doubt is often one point many times, as where pictures have a margin.
  std::vector<std::uint32_t> distinct, same(which.size());
  for (std::size_t i = 0; i < which.size(); ++i) {
    const float* row = rows.row(which[i]);
    if (distinct.empty() || !std::equal(row, row + dim_, rows.row(distinct.back()))) {
      distinct.push_back(which[i]);
    }
    same[i] = distinct.back();
  }
  for (std::size_t begin = 0; begin < distinct.size(); begin += kBlock) {
    const std::size_t count = std::min(kBlock, distinct.size() - begin);
    for (std::size_t p = 0; p < count; ++p) {
      center(rows.row(distinct[begin + p]), w.points.data() + p * dim_, w.square[p]);
    }
    score(w, count, false);
    for (std::size_t p = 0; p < count; ++p) {
      const std::uint32_t at = distinct[begin + p];
      float distance;
      pick(w, p, rows.row(at), false, ids[at], distance);
    }
  }
  for (std::size_t i = 0; i < which.size(); ++i) ids[which[i]] = ids[same[i]];
}

void CentroidBlocks::nearest_by_lanes(MatrixView<float> rows, std::uint32_t* ids,
                                      float* distances, std::size_t threads,
                                      Monitor* monitor) const {
  const auto& table = kernels::active();
  const std::size_t wide = table.tile.rows;
  const kernels::LaneScreen with = screen();
  parallel_for(
      rows.rows, threads, kLaneBlock,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<float> panel(wide * dim_);
        std::vector<std::uint32_t> doubtful;
        std::uint32_t found[kernels::kMaxTileRows];
        for (std::size_t at = begin; at < end; at += wide) {
          const std::size_t count = std::min(wide, end - at);
          table.pack_lanes(rows.row(at), rows.stride, nullptr, count, dim_,
                           mean_.data(), panel.data());
          const std::uint32_t doubt =
              table.nearest_lanes(panel.data(), with, found, nullptr);
          for (std::size_t i = 0; i < count; ++i) {
            ids[at + i] = found[i];
            if ((doubt >> i & 1u) != 0) {
              doubtful.push_back(static_cast<std::uint32_t>(at + i));
            }
          }
        }
        look_again(rows, doubtful, ids);
        if (distances == nullptr) return;
        table.pair_distances(rows.row(begin), rows.stride, nullptr, centroids_.data,
                             centroids_.stride, ids + begin, end - begin, dim_,
                             distances + begin);
      },
      monitor);
}

// For each centroid a lower bound of its distance to the nearest other one.
std::vector<float> CentroidBlocks::gaps_between() const {
  const auto& table = kernels::active();
  const std::size_t wide = table.tile.rows;
  const kernels::LaneScreen with = screen();
  std::vector<float> panel(wide * dim_);
  std::vector<float> gaps(centroids_.rows);
  std::uint32_t found[kernels::kMaxTileRows];
  float floors[kernels::kMaxTileRows];
  for (std::size_t at = 0; at < centroids_.rows; at += wide) {
    const std::size_t count = std::min(wide, centroids_.rows - at);
    table.pack_lanes(centroids_.row(at), centroids_.stride, nullptr, count, dim_,
                     mean_.data(), panel.data());
    table.nearest_lanes(panel.data(), with, found, floors);
    for (std::size_t i = 0; i < count; ++i) {
      // Found another one: as near as itself.
      if (found[i] != at + i) continue;
      gaps[at + i] = std::sqrt(floors[i]) * (1.0f - 0x1.0p-22f);
    }
  }
  return gaps;
}

std::size_t CentroidBlocks::improve_by_lanes(Cells& cells,
                                             const std::vector<double>& moves,
                                             std::size_t threads,
                                             Monitor* monitor) const {
  threads = resolve_threads(threads);
  const auto& table = kernels::active();
  const std::size_t wide = table.tile.rows;
  const kernels::LaneScreen with = screen();
  const std::size_t n = cells.order.size();
  const bool first = !cells.started;
  if (first) cells.bounds = AlignedBuffer(n * sizeof(float));
  auto* bounds = reinterpret_cast<float*>(cells.bounds.data());
  // Every other centroid has moved by at most this: the farthest move, or the next
  // where that is the point's own centroid.
  std::size_t farthest = 0;
  double most = 0.0;
  double next = 0.0;
  for (std::size_t c = 0; c < moves.size(); ++c) {
    if (moves[c] > most) {
      next = most;
      most = moves[c];
      farthest = c;
    } else {
      next = std::max(next, moves[c]);
    }
  }
  const auto drift = static_cast<float>(most * (1.0 + 1e-6));
  const auto own_drift = static_cast<float>(next * (1.0 + 1e-6));
  const std::vector<float> gaps = first ? std::vector<float>() : gaps_between();
  const float widen = 1.0f + (static_cast<float>(dim_) / 32.0f + 16.0f) * 0x1.0p-22f;
  std::vector<std::size_t> changed(threads);
  parallel_for(
      n, threads, kLaneBlock,
      [&](std::size_t begin, std::size_t end, std::size_t worker) {
        std::uint32_t open[kLaneBlock];  // positions to be screened
        std::size_t count = 0;
        std::uint32_t* cell = cells.cell.data();
        float* distance = cells.distance.data();
        if (first) {
          for (; count < end - begin; ++count) {
            open[count] = static_cast<std::uint32_t>(begin + count);
          }
        } else {
          table.pair_distances(cells.row(begin), dim_, nullptr, centroids_.data,
                               centroids_.stride, cell + begin, end - begin, dim_,
                               distance + begin);
          for (std::size_t p = begin; p < end; ++p) {
            const std::uint32_t own = cell[p];
            const float need = std::sqrt(distance[p]) * widen + 1e-18f;
            const float lower = (bounds[p] - (own == farthest ? own_drift : drift)) *
                                (1.0f - 0x1.0p-22f);
            bounds[p] = lower;
            // The others lie at least the gap between centroids away from the own one.
            const float around = (gaps[own] - need) * (1.0f - 0x1.0p-22f);
            open[count] = static_cast<std::uint32_t>(p);
            count += need < std::max(lower, around) ? 0 : 1;
          }
        }
        std::vector<float> panel(wide * dim_);
        std::uint32_t found[kernels::kMaxTileRows];
        float floors[kernels::kMaxTileRows];
        std::vector<std::uint32_t> doubtful, moved;
        for (std::size_t at = 0; at < count; at += wide) {
          const std::size_t held = std::min(wide, count - at);
          table.pack_lanes(cells.row(0), dim_, open + at, held, dim_, mean_.data(),
                           panel.data());
          const std::uint32_t doubt =
              table.nearest_lanes(panel.data(), with, found, floors);
          for (std::size_t i = 0; i < held; ++i) {
            const std::uint32_t p = open[at + i];
            bounds[p] = std::sqrt(floors[i]) * (1.0f - 0x1.0p-22f);
            if ((doubt >> i & 1u) != 0) {
              doubtful.push_back(p);
            } else if (found[i] != cell[p]) {
              cell[p] = found[i];
              moved.push_back(p);
            }
          }
        }
        if (!doubtful.empty()) {
          std::vector<std::uint32_t> old(doubtful.size());
          for (std::size_t i = 0; i < old.size(); ++i) old[i] = cell[doubtful[i]];
          look_again({cells.row(0), n, dim_, dim_}, doubtful, cell);
          for (std::size_t i = 0; i < old.size(); ++i) {
            if (old[i] != cell[doubtful[i]]) moved.push_back(doubtful[i]);
          }
        }
        changed[worker] += moved.size();
        // By position and cell at once: both lists are short or the whole block.
        std::uint32_t to[kLaneBlock];
        float measured[kLaneBlock];
        for (std::size_t i = 0; i < moved.size(); ++i) to[i] = cell[moved[i]];
        table.pair_distances(cells.row(0), dim_, moved.data(), centroids_.data,
                             centroids_.stride, to, moved.size(), dim_, measured);
        for (std::size_t i = 0; i < moved.size(); ++i) {
          distance[moved[i]] = measured[i];
        }
      },
      monitor);
  cells.started = true;
  return std::accumulate(changed.begin(), changed.end(), std::size_t{0});
}

std::size_t CentroidBlocks::improve(Cells& cells, const std::vector<double>& moves,
                                    std::size_t threads, Monitor* monitor) const {
  if (!bounded_ && lanes_) return improve_by_lanes(cells, moves, threads, monitor);
  if (!bounded_) {
    const std::size_t n = cells.order.size();
    std::vector<std::uint32_t> before(n);
    before.swap(cells.cell);
    cells.cell.resize(n);
    nearest({cells.row(0), n, dim_, dim_}, cells.cell.data(), cells.distance.data(),
            threads, monitor);
    cells.started = true;
    std::size_t changed = 0;
    for (std::size_t p = 0; p < n; ++p) changed += before[p] != cells.cell[p] ? 1 : 0;
    return changed;
  }
  threads = resolve_threads(threads);
  const auto& table = kernels::active();
  const std::size_t n = cells.order.size();
  const bool first = !cells.started;
  if (first) cells.bounds = AlignedBuffer(n * spans_ * sizeof(float));
  auto* all_bounds = reinterpret_cast<float*>(cells.bounds.data());
  std::vector<float> drift(spans_);
  for (std::size_t i = 0; i < member_.size() && !first; ++i) {
    if (member_[i] == kNoSlot) continue;
    float& d = drift[i / kGroup / span_];
    d = std::max(d, static_cast<float>(moves[member_[i]] * (1.0 + 1e-6)));
  }
  // A centroid is certainly not the nearest if its bound exceeds this times the square
  // root of the canonical distance to the own one; both canonical errors are in it.
  const float widen = 1.0f + (static_cast<float>(dim_) / 32.0f + 16.0f) * 0x1.0p-22f;
  std::vector<std::vector<Worker>> workers(threads);
  parallel_for(
      n, threads, kBlock,
      [&](std::size_t begin, std::size_t end, std::size_t worker) {
        if (workers[worker].empty()) workers[worker].emplace_back(*this);
        Worker& w = workers[worker].front();
        const std::size_t count = end - begin;
        const std::size_t tiles = (count + kScorePoints - 1) / kScorePoints;
        for (std::size_t t = 0; t < tiles; ++t) {
          std::fill_n(w.gap.data() + t * kMaxSpans, spans_, first ? 0.0f : kInfinity);
        }
        if (!first) {
          table.pair_distances(cells.row(begin), dim_, nullptr, centroids_.data,
                               centroids_.stride, &cells.cell[begin], count, dim_,
                               &cells.distance[begin]);
        }
        for (std::size_t p = 0; p < count && !first; ++p) {
          const float need = std::sqrt(cells.distance[begin + p]) * widen + 1e-18f;
          table.drift_bounds(all_bounds + (begin + p) * spans_, drift.data(), spans_,
                             need, w.gap.data() + p / kScorePoints * kMaxSpans);
        }
        for (std::size_t t = 0; t < tiles; ++t) {
          // No gap is the least number above zero, or it would do no harm.
          std::uint32_t open[kMaxSpans];
          const std::size_t spans = kernels::active().score_below(
              w.gap.data() + t * kMaxSpans, kMaxSpans,
              std::numeric_limits<float>::denorm_min(), open);
          std::uint32_t* list = w.lists.data() + t * groups_;
          std::uint32_t size = 0;
          for (std::size_t s = 0; s < spans; ++s) {
            const std::size_t to =
                std::min<std::size_t>(groups_, (open[s] + 1) * span_);
            for (std::size_t g = open[s] * span_; g < to; ++g) {
              list[size++] = static_cast<std::uint32_t>(g);
            }
          }
          w.list_size[t] = size;
          if (size == 0) continue;
          const std::size_t stop = std::min(count, (t + 1) * kScorePoints);
          for (std::size_t p = t * kScorePoints; p < stop; ++p) {
            center(cells.row(begin + p), w.points.data() + p * dim_, w.square[p]);
          }
          std::fill_n(w.minima.data() + t * kScorePoints * stride_,
                      kScorePoints * stride_, kInfinity);
        }
        score(w, count, true);
        for (std::size_t p = 0; p < count; ++p) {
          if (w.list_size[p / kScorePoints] == 0) continue;
          std::uint32_t& cell = cells.cell[begin + p];
          float& kept = cells.distance[begin + p];
          const std::uint32_t old = cell;
          const float old_distance = kept;
          std::uint32_t id = old;
          float distance = first ? kInfinity : old_distance;
          settle(w, p, cells.row(begin + p), true, id, distance);
          float* bounds = all_bounds + (begin + p) * spans_;
          renew(w, p, id, bounds);
          if (id == old) continue;
          if (!first) {
            // The cell left behind may be in a span that was not scored.
            float& lower = bounds[place_[old] / kGroup / span_];
            lower = std::min(lower, std::sqrt(old_distance) / widen);
          }
          cell = id;
          kept = distance;
          ++w.changed;
        }
      },
      monitor);
  cells.started = true;
  std::size_t changed = 0;
  for (const auto& w : workers) {
    if (!w.empty()) changed += w.front().changed;
  }
  return changed;
}

void CentroidBlocks::sort(Cells& cells) const {
  if (!bounded_) return;
  const std::size_t n = cells.order.size();
  const std::size_t places = groups_ * kGroup;
  std::vector<std::size_t> start(places + 1);
  for (const std::uint32_t c : cells.cell) ++start[place_[c] + 1];
  std::partial_sum(start.begin(), start.end(), start.begin());
  // to[p]: where position p goes. Rows and bounds are carried along the cycles, in
  // place.
  std::vector<std::uint32_t> to(n);
  for (std::size_t p = 0; p < n; ++p) {
    to[p] = static_cast<std::uint32_t>(start[place_[cells.cell[p]]]++);
  }
  auto* rows = reinterpret_cast<float*>(cells.rows.data());
  auto* bounds = reinterpret_cast<float*>(cells.bounds.data());
  std::vector<float> held_row(dim_), held_bounds(spans_);
  for (std::size_t p = 0; p < n; ++p) {
    if (to[p] == p) continue;
    std::copy_n(rows + p * dim_, dim_, held_row.data());
    std::copy_n(bounds + p * spans_, spans_, held_bounds.data());
    std::uint32_t order = cells.order[p];
    std::uint32_t cell = cells.cell[p];
    float distance = cells.distance[p];
    for (std::size_t at = p; to[at] != at;) {
      const std::size_t next = to[at];
      std::swap_ranges(held_row.begin(), held_row.end(), rows + next * dim_);
      std::swap_ranges(held_bounds.begin(), held_bounds.end(), bounds + next * spans_);
      std::swap(order, cells.order[next]);
      std::swap(cell, cells.cell[next]);
      std::swap(distance, cells.distance[next]);
      to[at] = static_cast<std::uint32_t>(at);
      at = next;
    }
  }
}

void CentroidBlocks::forget(Cells& cells,
                            const std::vector<std::uint32_t>& positions) const {
  if (!bounded_ && !lanes_) return;
  auto* bounds = reinterpret_cast<float*>(cells.bounds.data());
  const std::size_t each = bounded_ ? spans_ : 1;
  for (const std::uint32_t p : positions) {
    std::fill_n(bounds + p * each, each, 0.0f);
  }
}

}  // namespace annx::codec
