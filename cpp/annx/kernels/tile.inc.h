// SPDX-License-Identifier: Apache-2.0
// Inner products of a block of queries with a block of rows, in register tiles of
// kTileQueries x kTileRows sums (Goto and van de Geijn, 2008, without a split of the
// depth: a panel of rows is small enough for the second cache, and sums never leave the
// registers half-made). Written once over the primitives `Lanes`, lanes_* and less_* of
// simd_*.h. See TileKernels in table.h for layouts and contracts.
//
// Each sum is one chain of fused multiply-adds in order of the elements, started from
// the row's bias: its error against exact arithmetic is at most
// (dim + 1) * 2^-24 * 1.01 * (|bias| + sum |q x|) for dim <= 2^17. It is not the
// canonical distance.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

inline constexpr std::size_t kTileRows = kTileRegs * kTileLanes;
// By its bits: a library constant would need a library header.
inline constexpr float kTileInfinity = __builtin_bit_cast(float, 0x7F800000u);
static_assert(kTileRows <= kMaxTileRows && kTileQueries <= kMaxTileQueries);

struct TileSums {
  Lanes s[kTileQueries][kTileRegs];
};

// One tile, over the whole depth.
ANNX_INLINE void tile_sums(const float* q, const float* x, std::size_t dim,
                           const Lanes (&bias)[kTileRegs], TileSums& t) {
  ANNX_UNROLL
  for (std::size_t i = 0; i < kTileQueries; ++i) {
    ANNX_UNROLL
    for (std::size_t r = 0; r < kTileRegs; ++r) t.s[i][r] = bias[r];
  }
  for (std::size_t k = 0; k < dim; ++k) {
    Lanes row[kTileRegs];
    ANNX_UNROLL
    for (std::size_t r = 0; r < kTileRegs; ++r) row[r] = lanes_load(x + r * kTileLanes);
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes a = lanes_set(q[i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        t.s[i][r] = lanes_fma(a, row[r], t.s[i][r]);
      }
    }
    q += kTileQueries;
    x += kTileRows;
  }
}

ANNX_INLINE void tile_bias(const float* bias, Lanes (&out)[kTileRegs]) {
  ANNX_UNROLL
  for (std::size_t r = 0; r < kTileRegs; ++r) {
    out[r] = bias == nullptr ? lanes_set(0.0f) : lanes_load(bias + r * kTileLanes);
  }
}

void tile_block(const float* queries, std::size_t query_panels, const float* rows,
                std::size_t row_panels, std::size_t dim, const float* bias, float* out,
                std::size_t out_stride) {
  for (std::size_t p = 0; p < row_panels; ++p) {
    Lanes start[kTileRegs];
    tile_bias(bias == nullptr ? nullptr : bias + p * kTileRows, start);
    for (std::size_t g = 0; g < query_panels; ++g) {
      TileSums t;
      tile_sums(queries + g * dim * kTileQueries, rows + p * dim * kTileRows, dim,
                start, t);
      float* to = out + g * kTileQueries * out_stride + p * kTileRows;
      ANNX_UNROLL
      for (std::size_t i = 0; i < kTileQueries; ++i) {
        ANNX_UNROLL
        for (std::size_t r = 0; r < kTileRegs; ++r) {
          lanes_store(to + i * out_stride + r * kTileLanes, t.s[i][r]);
        }
      }
    }
  }
}

std::size_t tile_scan(const float* queries, std::size_t first, std::size_t query_panels,
                      const float* row_panel, std::size_t dim, const float* bias,
                      const float* limits, float* out, std::uint32_t* hits) {
  Lanes start[kTileRegs];
  tile_bias(bias, start);
  for (std::size_t g = first; g < query_panels; ++g) {
    TileSums t;
    tile_sums(queries + g * dim * kTileQueries, row_panel, dim, start, t);
    const float* limit = limits + g * kTileQueries;
    LessMask any = less_none();
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes bound = lanes_set(limit[i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        any = less_or(any, lanes_less(t.s[i][r], bound));
      }
    }
    if (less_bits(any) == 0) continue;
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes bound = lanes_set(limit[i]);
      std::uint32_t mask = 0;
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        mask |= less_bits(lanes_less(t.s[i][r], bound)) << (r * kTileLanes);
        lanes_store(out + i * kTileRows + r * kTileLanes, t.s[i][r]);
      }
      hits[i] = mask;
    }
    return g;
  }
  return query_panels;
}

// Elements k .. k + kTileLanes of vector `row`, those past the last as zeros.
ANNX_INLINE Lanes tile_elements(const float* row, std::size_t k, std::size_t dim) {
  if (k + kTileLanes <= dim) return lanes_load(row + k);
  float last[kTileLanes];
  for (std::size_t e = 0; e < kTileLanes; ++e)
    last[e] = k + e < dim ? row[k + e] : 0.0f;
  return lanes_load(last);
}

// Panels of kWide vectors: converts kTileLanes elements of each, then turns them so
// that element k of all the vectors lies together.
template <std::size_t kWide>
void tile_pack(const float* in, std::size_t stride, std::size_t count, std::size_t dim,
               const float* centre, const float* scales, float factor, float* panels,
               float* squares) {
  constexpr bool kSquares = kWide % kTileLanes == 0;  // whole squares to turn
  constexpr std::size_t kStep = kSquares ? kTileLanes : kWide;
  const Lanes times = lanes_set(factor);
  const Lanes minus_one = lanes_set(-1.0f);
  const Lanes zero = lanes_set(0.0f);
  for (std::size_t begin = 0; begin < count; begin += kWide) {
    float* panel = panels + begin * dim;
    // Vectors in turns of kStep, each along its whole length: what is read at a time
    // are a few streams, not one for each vector of the panel.
    for (std::size_t j = 0; j < kWide; j += kStep) {
      const std::size_t first = begin + j;
      const std::size_t left = first < count ? count - first : 0;
      const std::size_t held = left < kStep ? left : kStep;
      Lanes square[kStep];
      float scale[kStep];
      for (std::size_t i = 0; i < kStep; ++i) {
        square[i] = zero;
        scale[i] = scales == nullptr || i >= held ? 1.0f : scales[first + i];
      }
      for (std::size_t k = 0; k < dim; k += kTileLanes) {
        const std::size_t n = dim - k < kTileLanes ? dim - k : kTileLanes;
        const Lanes minus =
            centre == nullptr
                ? zero
                : lanes_fma(minus_one, tile_elements(centre, k, dim), zero);
        Lanes part[kStep];
        ANNX_UNROLL
        for (std::size_t i = 0; i < kStep; ++i) {
          part[i] = zero;
          if (i >= held) continue;
          const Lanes x =
              lanes_fma(lanes_set(scale[i]),
                        tile_elements(in + (first + i) * stride, k, dim), minus);
          square[i] = lanes_fma(x, x, square[i]);
          part[i] = lanes_fma(times, x, zero);
        }
        float* to = panel + k * kWide + j;
        if constexpr (kSquares) {
          lanes_turn(part);
          if (n == kTileLanes) {
            ANNX_UNROLL
            for (std::size_t e = 0; e < kTileLanes; ++e) {
              lanes_store(to + e * kWide, part[e]);
            }
          } else {
            for (std::size_t e = 0; e < n; ++e) lanes_store(to + e * kWide, part[e]);
          }
        } else {
          float all[kStep][kTileLanes];
          for (std::size_t i = 0; i < kStep; ++i) lanes_store(all[i], part[i]);
          for (std::size_t e = 0; e < n; ++e) {
            for (std::size_t i = 0; i < kStep; ++i) to[e * kWide + i] = all[i][e];
          }
        }
      }
      for (std::size_t i = 0; squares != nullptr && i < kStep; ++i) {
        float lanes[kTileLanes];
        lanes_store(lanes, square[i]);
        float sum = 0.0f;
        for (std::size_t e = 0; e < kTileLanes; ++e) sum += lanes[e];
        squares[first + i] = sum;
      }
    }
  }
}

// Settles what cosine's tiles shortlist.
template <class Load, int R>
ANNX_INLINE void float_scaled_group(const float* query, const std::byte* rows,
                                    std::size_t stride, const float* scales,
                                    std::size_t dim, float* out) {
  const auto* q = reinterpret_cast<const std::byte*>(query);
  V minus[R];
  V s[R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    minus[r] = v_splat(-scales[r]);
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) {
      const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
      const V qv = LoadF32::full(q + at * 4);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        const std::byte* row = rows + static_cast<std::size_t>(r) * stride;
        const V d = v_fma(minus[r], Load::full(row + at * Load::kBytes), qv);
        s[r][j] = v_fma(d, d, s[r][j]);
      }
    }
  }
  ANNX_UNROLL
  for (int j = 0; j < kRegs; ++j) {
    if (i >= dim) break;
    const std::size_t left = dim - i;
    const bool whole = left >= static_cast<std::size_t>(kWidth);
    const V qv = whole ? LoadF32::full(q + i * 4) : LoadF32::part(q, i, left, dim);
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const std::byte* row = rows + static_cast<std::size_t>(r) * stride;
      const V x =
          whole ? Load::full(row + i * Load::kBytes) : Load::part(row, i, left, dim);
      const V d = v_fma(minus[r], x, qv);
      s[r][j] = v_fma(d, d, s[r][j]);
    }
    i += static_cast<std::size_t>(kWidth);
  }
  v_fold<R>(s, out);
}

template <class Load>
void float_scaled_rows(const float* query, const std::byte* rows, std::size_t stride,
                       const float* scales, std::size_t count, std::size_t dim,
                       float* out) {
  const Parts<2> parts(count, stride);
  for (std::size_t g = 0; g < parts.groups; ++g) {
    const std::size_t i = g * parts.advance;
    const std::size_t j = i + parts.step;
    const float scale[2] = {scales[i], scales[j]};
    float sums[2];
    float_scaled_group<Load, 2>(query, rows + i * stride, parts.step * stride, scale,
                                dim, sums);
    out[i] = sums[0];
    out[j] = sums[1];
  }
  for (std::size_t i = parts.rows(); i < count; ++i) {
    float_scaled_group<Load, 1>(query, rows + i * stride, stride, scales + i, dim,
                                out + i);
  }
}

constexpr TileKernels tile_kernels() {
  return TileKernels{kTileQueries,          kTileRows,   &tile_pack<kTileQueries>,
                     &tile_pack<kTileRows>, &tile_block, &tile_scan};
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
