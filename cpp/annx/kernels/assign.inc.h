// SPDX-License-Identifier: Apache-2.0
// Scores of a few points against groups of 16 centroids, the arithmetic of k-means and
// of encoding. Centroids are stored transposed, 16 side by side, so that one broadcast
// of a point's element meets 16 centroids and no sum is ever taken across lanes.
// Written over the primitives of tile.inc.h.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

inline constexpr std::size_t kGroupRegs = kGroup / kTileLanes;
static_assert(kGroup % kTileLanes == 0);

// The least of 16 values, as a tree: a chain would wait for every comparison.
ANNX_INLINE float least_of(const Lanes (&x)[kGroupRegs]) {
  Lanes least = x[0];
  ANNX_UNROLL
  for (std::size_t r = 1; r < kGroupRegs; ++r) {
    least = less_pick(lanes_less(x[r], least), x[r], least);
  }
  float v[kTileLanes];
  lanes_store(v, least);
  ANNX_UNROLL
  for (std::size_t half = kTileLanes / 2; half > 0; half /= 2) {
    ANNX_UNROLL
    for (std::size_t l = 0; l < half; ++l)
      v[l] = v[l + half] < v[l] ? v[l + half] : v[l];
  }
  return v[0];
}

// `P` points against one group. Each sum runs over the elements in order, so a score
// does not depend on which points and groups stand beside it.
template <std::size_t P>
ANNX_INLINE void score_group(const float* points, std::size_t stride,
                             const float* packed, const float* offsets, std::size_t dim,
                             float* scores, std::size_t score_stride, float* minima,
                             std::size_t minima_stride) {
  Lanes sum[P][kGroupRegs];
  ANNX_UNROLL
  for (std::size_t p = 0; p < P; ++p) {
    ANNX_UNROLL
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      sum[p][r] = lanes_load(offsets + r * kTileLanes);
    }
  }
  for (std::size_t i = 0; i < dim; ++i) {
    Lanes c[kGroupRegs];
    ANNX_UNROLL
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      c[r] = lanes_load(packed + i * kGroup + r * kTileLanes);
    }
    ANNX_UNROLL
    for (std::size_t p = 0; p < P; ++p) {
      const Lanes x = lanes_set(points[p * stride + i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kGroupRegs; ++r) {
        sum[p][r] = lanes_fma(x, c[r], sum[p][r]);
      }
    }
  }
  if (scores != nullptr) {
    ANNX_UNROLL
    for (std::size_t p = 0; p < P; ++p) {
      ANNX_UNROLL
      for (std::size_t r = 0; r < kGroupRegs; ++r) {
        lanes_store(scores + p * score_stride + r * kTileLanes, sum[p][r]);
      }
    }
  }
  if (minima == nullptr) return;
  ANNX_UNROLL
  for (std::size_t p = 0; p < P; ++p) minima[p * minima_stride] = least_of(sum[p]);
}

template <std::size_t P>
inline void score_groups(const float* points, std::size_t stride, const float* packed,
                         const float* offsets, std::size_t dim,
                         const std::uint32_t* groups, std::size_t group_count,
                         float* scores, std::size_t score_stride, float* minima,
                         std::size_t minima_stride) {
  for (std::size_t j = 0; j < group_count; ++j) {
    const std::size_t g = groups[j];
    score_group<P>(points, stride, packed + g * dim * kGroup, offsets + g * kGroup, dim,
                   scores == nullptr ? nullptr : scores + g * kGroup, score_stride,
                   minima == nullptr ? nullptr : minima + g, minima_stride);
  }
}

void score_tile(const float* points, std::size_t stride, std::size_t count,
                const float* packed, const float* offsets, std::size_t dim,
                const std::uint32_t* groups, std::size_t group_count, float* scores,
                std::size_t score_stride, float* minima, std::size_t minima_stride) {
  if (count == kScorePoints) {
    score_groups<kScorePoints>(points, stride, packed, offsets, dim, groups,
                               group_count, scores, score_stride, minima,
                               minima_stride);
    return;
  }
  for (std::size_t p = 0; p < count; ++p) {
    score_groups<1>(
        points + p * stride, stride, packed, offsets, dim, groups, group_count,
        scores == nullptr ? nullptr : scores + p * score_stride, score_stride,
        minima == nullptr ? nullptr : minima + p * minima_stride, minima_stride);
  }
}

float score_least(const float* scores, std::size_t count) {
  Lanes least[kGroupRegs];
  ANNX_UNROLL
  for (std::size_t r = 0; r < kGroupRegs; ++r) least[r] = lanes_set(kTileInfinity);
  for (std::size_t i = 0; i < count; i += kGroup) {
    ANNX_UNROLL
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      const Lanes score = lanes_load(scores + i + r * kTileLanes);
      least[r] = less_pick(lanes_less(score, least[r]), score, least[r]);
    }
  }
  return least_of(least);
}

std::size_t score_below(const float* scores, std::size_t count, float limit,
                        std::uint32_t* out) {
  const Lanes most = lanes_set(limit);
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; i += kGroup) {
    LessMask part[kGroupRegs];
    LessMask any = less_none();
    ANNX_UNROLL
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      part[r] = lanes_less(lanes_load(scores + i + r * kTileLanes), most);
      any = less_or(any, part[r]);
    }
    if (less_bits(any) == 0) continue;
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      // Shifted out bit by bit: there are rarely two, so the last one ends the loop.
      std::uint32_t bits = less_bits(part[r]);
      for (std::size_t l = r * kTileLanes; bits != 0; bits >>= 1, ++l) {
        out[found] = static_cast<std::uint32_t>(i + l);
        found += bits & 1u;
      }
    }
  }
  return found;
}

float score_floors(const float* minima, const float* reach, std::size_t groups,
                   float length, float error, float slack, float* floors) {
  const Lanes one = lanes_set(1.0f);
  const Lanes minus = lanes_set(-1.0f);
  const Lanes zero = lanes_set(0.0f);
  const Lanes e0 = lanes_set(error);
  const Lanes e1 = lanes_set(slack);
  const Lanes base = lanes_set(length);
  Lanes least[kGroupRegs];
  ANNX_UNROLL
  for (std::size_t r = 0; r < kGroupRegs; ++r) least[r] = lanes_set(kTileInfinity);
  for (std::size_t g = 0; g < groups; g += kGroup) {
    ANNX_UNROLL
    for (std::size_t r = 0; r < kGroupRegs; ++r) {
      const std::size_t at = g + r * kTileLanes;
      const Lanes sum = lanes_fma(one, base, lanes_load(reach + at));
      const Lanes wide = lanes_fma(lanes_fma(sum, e0, zero), sum, e1);
      const Lanes score = lanes_load(minima + at);
      lanes_store(floors + at, lanes_fma(minus, wide, score));
      const Lanes upper = lanes_fma(one, wide, score);
      least[r] = less_pick(lanes_less(upper, least[r]), upper, least[r]);
    }
  }
  return least_of(least);
}

void drift_bounds(float* bounds, const float* drift, std::size_t spans, float need,
                  float* gap) {
  for (std::size_t s = 0; s < spans; ++s) {
    const float lower = (bounds[s] - drift[s]) * (1.0f - 0x1.0p-22f);
    const float above = lower - need;
    bounds[s] = lower;
    gap[s] = above < gap[s] ? above : gap[s];
  }
}

void merge_bounds(float* bounds, const float* floors, const float* gap,
                  std::size_t spans, float base) {
  // Spelt out: compilers leave the root scalar, for fear of what the lanes not chosen
  // might raise.
  const V shrink = v_set(1.0f - 0x1.0p-22f);
  std::size_t s = 0;
  for (; s + static_cast<std::size_t>(kWidth) <= spans;
       s += static_cast<std::size_t>(kWidth)) {
    const V square = v_add(v_numbers(floors + s), v_set(base));
    const V root = v_mul(v_sqrt(v_where_positive(square, square, v_zero())), shrink);
    v_store(bounds + s,
            v_where_positive(v_numbers(gap + s), v_numbers(bounds + s), root));
  }
  for (; s < spans; ++s) {
    const float square = floors[s] + base;
    const float root =
        __builtin_sqrtf(square > 0.0f ? square : 0.0f) * (1.0f - 0x1.0p-22f);
    bounds[s] = gap[s] > 0.0f ? bounds[s] : root;
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
