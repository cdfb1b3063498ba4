// SPDX-License-Identifier: Apache-2.0
// The nearest centroid of many short points: lanes are points, so no sum and no minimum
// is ever taken across lanes. With few dimensions choosing the least score costs as
// much as computing it; here it is two logical operations and three minima a register
// of scores, the second-least score for the certificate included. Written over the
// primitives of tile.inc.h.
//
// Error. Let S = |x| + |c|, u = 2^-24. |x|^2 is off by at most (d + 1) u |x|^2, |c|^2
// by u |c|^2, the d + 1 roundings of the chain by u S^2 each, centring moves |x - c|^2
// by at most 4 u S^2, and the canonical distance is off by (d / 32 + 8) u |x - c|^2: in
// all e = (2.1 d + 16) u S^2 <= 2 (2.1 d + 16) u (|x|^2 + max |c|^2). The chain starts
// from |x|^2 + e + |c|^2, so a score is never negative and lies in [s, s + 2 e] for the
// canonical s; replacing its last b bits moves it by a factor of at most 1 + 2^(b -
// 23).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

void pack_lanes(const float* rows, std::size_t stride, const std::uint32_t* index,
                std::size_t count, std::size_t dim, const float* centre,
                float* panels) {
  for (std::size_t begin = 0; begin < count; begin += kTileRows) {
    for (std::size_t g = 0; g < kTileRows; g += kTileLanes) {
      const float* from[kTileLanes];
      for (std::size_t j = 0; j < kTileLanes; ++j) {
        const std::size_t i = begin + g + j < count ? begin + g + j : count - 1;
        from[j] = rows + (index == nullptr ? i : index[i]) * stride;
      }
      float* to = panels + begin * dim + g;
      for (std::size_t k = 0; k < dim; k += kTileLanes) {
        Lanes x[kTileLanes];
        const std::size_t n = dim - k;
        if (n >= kTileLanes) {
          ANNX_UNROLL
          for (std::size_t j = 0; j < kTileLanes; ++j) x[j] = lanes_load(from[j] + k);
          lanes_turn(x);
          ANNX_UNROLL
          for (std::size_t e = 0; e < kTileLanes; ++e) {
            lanes_store(to + (k + e) * kTileRows,
                        lanes_sub(x[e], lanes_set(centre[k + e])));
          }
        } else {
          ANNX_UNROLL
          for (std::size_t j = 0; j < kTileLanes; ++j) {
            x[j] = lanes_part(from[j] + k, n);
          }
          lanes_turn(x);
          for (std::size_t e = 0; e < n; ++e) {
            lanes_store(to + (k + e) * kTileRows,
                        lanes_sub(x[e], lanes_set(centre[k + e])));
          }
        }
      }
    }
  }
}

// Scores of one panel of centroids, from the points' own part on.
ANNX_INLINE void screen_sums(const float* panel, const float* centroids,
                             const float* offsets, std::size_t dim,
                             const Lanes (&base)[kTileRegs], TileSums& t) {
  ANNX_UNROLL
  for (std::size_t i = 0; i < kTileQueries; ++i) {
    const Lanes offset = lanes_set(offsets[i]);
    ANNX_UNROLL
    for (std::size_t r = 0; r < kTileRegs; ++r) t.s[i][r] = lanes_add(offset, base[r]);
  }
  for (std::size_t k = 0; k < dim; ++k) {
    Lanes x[kTileRegs];
    ANNX_UNROLL
    for (std::size_t r = 0; r < kTileRegs; ++r) {
      x[r] = lanes_load(panel + k * kTileRows + r * kTileLanes);
    }
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes c = lanes_set(centroids[k * kTileQueries + i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        t.s[i][r] = lanes_fma(c, x[r], t.s[i][r]);
      }
    }
  }
}

std::uint32_t nearest_lanes(const float* panel, const LaneScreen& screen,
                            std::uint32_t* ids, float* floors) {
  constexpr float kUnit = 0x1.0p-24f;
  constexpr float kMost = 0x1.0p125f;
  const std::size_t dim = screen.dim;
  const std::uint32_t mask = (std::uint32_t{1} << screen.tag_bits) - 1;
  const Lanes keep = lanes_set(__builtin_bit_cast(float, ~mask));
  const Lanes farthest = lanes_set(screen.farthest);
  // A little more than 2 (2.1 d + 16) u, for the rounding of e itself.
  const Lanes share = lanes_set((4.3f * static_cast<float>(dim) + 34.0f) * kUnit);
  Lanes base[kTileRegs], error[kTileRegs], least[kTileRegs], next[kTileRegs];
  LessMask fits[kTileRegs];
  ANNX_UNROLL
  for (std::size_t r = 0; r < kTileRegs; ++r) {
    Lanes square = lanes_set(0.0f);
    for (std::size_t k = 0; k < dim; ++k) {
      const Lanes x = lanes_load(panel + k * kTileRows + r * kTileLanes);
      square = lanes_fma(x, x, square);
    }
    const Lanes lengths = lanes_add(square, farthest);
    // Squares below the normal range lose digits absolutely, not relatively.
    error[r] = lanes_fma(share, lengths, lanes_set(1e-35f));
    base[r] = lanes_add(square, error[r]);
    fits[r] = lanes_less(lengths, lanes_set(kMost));
    least[r] = next[r] = lanes_set(kNoCentroid * 2.0f);
  }
  for (std::size_t p = 0; p < screen.panels; ++p) {
    TileSums t;
    const std::size_t first = p * kTileQueries;
    screen_sums(panel, screen.centroids + first * dim, screen.offsets + first, dim,
                base, t);
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes tag = lanes_set(screen.tags[first + i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        const Lanes score = lanes_tag(t.s[i][r], keep, tag);
        next[r] = lanes_min(next[r], lanes_max(least[r], score));
        least[r] = lanes_min(least[r], score);
      }
    }
  }
  const float tagged =
      __builtin_bit_cast(float, (127u - 23u + screen.tag_bits) << 23) + 0x1.0p-21f;
  const Lanes wider = lanes_set(1.0f + tagged);
  const Lanes narrower = lanes_set(1.0f - tagged);
  const Lanes minus_two = lanes_set(-2.0f);
  const Lanes zero = lanes_set(0.0f);
  std::uint32_t sure = 0;
  ANNX_UNROLL
  for (std::size_t r = 0; r < kTileRegs; ++r) {
    const Lanes lower =
        lanes_fma(minus_two, error[r], lanes_fma(next[r], narrower, zero));
    const Lanes upper = lanes_fma(least[r], wider, zero);
    // Both must hold; NaN fails either.
    const std::uint32_t apart =
        less_bits(lanes_less(upper, lower)) & less_bits(fits[r]);
    sure |= apart << (r * kTileLanes);
    float number[kTileLanes];
    lanes_store(number, least[r]);
    for (std::size_t l = 0; l < kTileLanes; ++l) {
      ids[r * kTileLanes + l] = __builtin_bit_cast(std::uint32_t, number[l]) & mask;
    }
    if (floors == nullptr) continue;
    const Lanes of_all =
        lanes_fma(minus_two, error[r], lanes_fma(least[r], narrower, zero));
    float of[kTileLanes], other[kTileLanes];
    lanes_store(of, of_all);
    lanes_store(other, lower);
    for (std::size_t l = 0; l < kTileLanes; ++l) {
      const float floor = (apart >> l) & 1u ? other[l] : of[l];
      floors[r * kTileLanes + l] = floor > 0.0f ? floor : 0.0f;
    }
  }
  constexpr std::uint32_t kAll = kTileRows == 32 ? ~0u : (1u << (kTileRows % 32)) - 1u;
  return ~sure & kAll;
}

// The canonical l2 of R pairs: the order of the sums is that of float_group.
template <int R, bool kShort>
ANNX_INLINE void pair_group(const float* const* rows, const float* const* others,
                            std::size_t dim, float* out) {
  V s[R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  const auto bytes = [](const float* p) {
    return reinterpret_cast<const std::byte*>(p);
  };
  std::size_t i = 0;
  if constexpr (!kShort) {
    for (; i + 32 <= dim; i += 32) {
      ANNX_UNROLL
      for (int j = 0; j < kRegs; ++j) {
        const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
        ANNX_UNROLL
        for (int r = 0; r < R; ++r) {
          const V d = v_sub(LoadF32::full(bytes(rows[r] + at)),
                            LoadF32::full(bytes(others[r] + at)));
          s[r][j] = v_fma(d, d, s[r][j]);
        }
      }
    }
  }
  ANNX_UNROLL
  for (int j = 0; j < (kShort ? 1 : kRegs); ++j) {
    if (i >= dim) break;
    const std::size_t left = dim - i;
    const bool whole = left >= static_cast<std::size_t>(kWidth);
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const V x = whole ? LoadF32::full(bytes(rows[r] + i))
                        : LoadF32::part(bytes(rows[r]), i, left, dim);
      const V y = whole ? LoadF32::full(bytes(others[r] + i))
                        : LoadF32::part(bytes(others[r]), i, left, dim);
      const V d = v_sub(x, y);
      s[r][j] = v_fma(d, d, s[r][j]);
    }
    i += static_cast<std::size_t>(kWidth);
  }
  v_fold<R>(s, out);
}

template <bool kShort>
inline void pair_loop(const float* rows, std::size_t stride, const std::uint32_t* index,
                      const float* centroids, std::size_t centroid_stride,
                      const std::uint32_t* cells, std::size_t count, std::size_t dim,
                      float* out) {
  const auto row = [&](std::size_t i) {
    return rows + (index == nullptr ? i : index[i]) * stride;
  };
  const auto other = [&](std::size_t i) {
    return centroids + cells[i] * centroid_stride;
  };
  for_groups<kFloatGroup>(
      count,
      [&](std::size_t i) {
        const float* x[kFloatGroup];
        const float* y[kFloatGroup];
        ANNX_UNROLL
        for (int r = 0; r < kFloatGroup; ++r) {
          x[r] = row(i + static_cast<std::size_t>(r));
          y[r] = other(i + static_cast<std::size_t>(r));
        }
        pair_group<kFloatGroup, kShort>(x, y, dim, out + i);
      },
      [&](std::size_t i) {
        const float* x = row(i);
        const float* y = other(i);
        pair_group<1, kShort>(&x, &y, dim, out + i);
      });
}

void pair_distances(const float* rows, std::size_t stride, const std::uint32_t* index,
                    const float* centroids, std::size_t centroid_stride,
                    const std::uint32_t* cells, std::size_t count, std::size_t dim,
                    float* out) {
  if (dim <= static_cast<std::size_t>(kWidth)) {
    pair_loop<true>(rows, stride, index, centroids, centroid_stride, cells, count, dim,
                    out);
  } else {
    pair_loop<false>(rows, stride, index, centroids, centroid_stride, cells, count, dim,
                     out);
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
