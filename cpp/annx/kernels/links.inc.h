// SPDX-License-Identifier: Apache-2.0
// Tables for 4-bit codes, and reading those of a node's links, written once over
// link_sums, V, Lanes and LoadF16 of simd_*.h. One table entry is looked up for 16
// links or more by one byte shuffle (Andre, Kermarrec and Le Scouarnec, "Cache locality
// is not enough", 2015).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

#ifndef ANNX_PANEL_BYTES
// out[part][level] = the level's sum less the part's least, times scale, to the
// nearest.
ANNX_INLINE void panel_bytes(const float* sums, const float* leasts, float scale,
                             std::uint8_t* out) {
  for (std::size_t i = 0; i < kLinkPanel; i += kTileLanes) {
    const Lanes least = lanes_load(leasts + i);
    for (std::size_t c = 0; c < kLinkLevels; ++c) {
      const Lanes above = lanes_sub(lanes_load(sums + c * kLinkPanel + i), least);
      float lanes[kTileLanes];
      lanes_store(lanes, lanes_fma(above, lanes_set(scale), lanes_set(0.5f)));
      for (std::size_t j = 0; j < kTileLanes; ++j) {
        out[(i + j) * kLinkLevels + c] =
            static_cast<std::uint8_t>(static_cast<int>(lanes[j]));
      }
    }
  }
}
#endif

void level_tables(const float* coordinates, const float* books,
                  const std::uint8_t* widths, std::size_t panels, float* room,
                  std::uint8_t* out, float* step, float* bias) {
  constexpr std::size_t kVectors = kLinkPanel / kTileLanes;
  // Sums that the registers hold together.
  constexpr std::size_t kTogether = 8;
  constexpr std::size_t kSums = kLinkPanel * kLinkLevels;
  Lanes widest[kVectors];
  Lanes total[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) widest[v] = total[v] = lanes_set(0.0f);
  for (std::size_t p = 0; p < panels; ++p) {
    float* const sums = room + p * (kSums + kLinkPanel);
    const std::size_t width = widths[p];
    ANNX_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) {
      Lanes low = lanes_set(3.402823466e38f);
      Lanes high = lanes_set(-3.402823466e38f);
      for (std::size_t c = 0; c < kLinkLevels; c += kTogether) {
        Lanes t[kTogether];
        ANNX_UNROLL
        for (std::size_t j = 0; j < kTogether; ++j) t[j] = lanes_set(0.0f);
        const float* book = books + c * kLinkPanel + v * kTileLanes;
        for (std::size_t k = 0; k < width; ++k, book += kSums) {
          const Lanes x = lanes_load(coordinates + k * kLinkPanel + v * kTileLanes);
          ANNX_UNROLL
          for (std::size_t j = 0; j < kTogether; ++j) {
            t[j] = lanes_fma(x, lanes_load(book + j * kLinkPanel), t[j]);
          }
        }
        ANNX_UNROLL
        for (std::size_t j = 0; j < kTogether; ++j) {
          lanes_store(sums + (c + j) * kLinkPanel + v * kTileLanes, t[j]);
          low = lanes_min(low, t[j]);
          high = lanes_max(high, t[j]);
        }
      }
      lanes_store(sums + kSums + v * kTileLanes, low);
      widest[v] = lanes_max(widest[v], lanes_sub(high, low));
      total[v] = lanes_add(total[v], low);
    }
    coordinates += width * kLinkPanel;
    books += width * kSums;
  }
  float ranges[kLinkPanel];
  float leasts[kLinkPanel];
  for (std::size_t v = 0; v < kVectors; ++v) {
    lanes_store(ranges + v * kTileLanes, widest[v]);
    lanes_store(leasts + v * kTileLanes, total[v]);
  }
  float range = 0;
  *bias = 0;
  for (std::size_t i = 0; i < kLinkPanel; ++i) {
    range = ranges[i] > range ? ranges[i] : range;
    *bias += leasts[i];
  }
  *step = range / 127;
  const float scale = range > 0 ? 127 / range : 0;
  for (std::size_t p = 0; p < panels; ++p) {
    const float* const sums = room + p * (kSums + kLinkPanel);
    panel_bytes(sums, sums + kSums, scale, out + p * kSums);
  }
}

std::uint32_t link_scan(const LinkQuery& query, const std::uint8_t* codes,
                        const std::byte* offsets, const std::byte* scales, float base,
                        float limit, const LinkAhead& ahead, float* out) {
  // The scalar reference's vectors are wider than a group.
  constexpr std::size_t kWide = kWidth;
  std::int32_t sums[kWide > kLinkGroup ? kWide : kLinkGroup] = {};
  link_sums(codes, query.parts, query.tables, ahead, sums);
  const V step = v_set(query.step);
  const V bias = v_set(query.bias);
  const V gain = v_set(query.gain);
  const auto key_of = [&](std::size_t i, const V& scale, const V& offset) {
    const V dot = v_fma(v_numbers(sums + i), step, bias);
    return v_fma(v_fma(dot, scale, offset), gain, v_set(base));
  };
  if (kWide > kLinkGroup) {
    const V scale = LoadF16::part(scales, 0, kLinkGroup, kLinkGroup);
    const V offset = LoadF16::part(offsets, 0, kLinkGroup, kLinkGroup);
    v_store_part(out, key_of(0, scale, offset), kLinkGroup);
  }
  for (std::size_t i = 0; i + kWide <= kLinkGroup; i += kWide) {
    v_store(out + i,
            key_of(i, LoadF16::full(scales + 2 * i), LoadF16::full(offsets + 2 * i)));
  }
  std::uint32_t above = 0;
  for (std::size_t i = 0; i < kLinkGroup; i += kTileLanes) {
    above |= less_bits(lanes_less(lanes_set(limit), lanes_load(out + i))) << i;
  }
  return ~above & ((1u << kLinkGroup) - 1);
}

// put(p, nearest) takes the codes of part p, a float for each of kGroup rows. dots[i]
// is what all parts of row i and their nearest entries give: half the square of an
// entry, less its score.
template <std::size_t kGroup, class Put>
ANNX_INLINE void encode_parts(const float* coordinates, const float* books,
                              const float* halves, const std::uint8_t* widths,
                              std::size_t parts, float* dots, const Put& put) {
  constexpr std::size_t kVectors = kGroup / kTileLanes;
  Lanes dot[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) dot[v] = lanes_set(0.0f);
  for (std::size_t p = 0; p < parts; ++p) {
    Lanes best[kVectors], half[kVectors], code[kVectors];
    ANNX_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) {
      best[v] = lanes_set(3.402823466e38f);
      half[v] = code[v] = lanes_set(0.0f);
    }
    for (std::size_t c = 0; c < kLinkLevels; ++c) {
      // Half the squared distance, less half the square of the vector.
      const Lanes square = lanes_set(halves[c]);
      const Lanes number = lanes_set(static_cast<float>(c));
      Lanes score[kVectors];
      ANNX_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) score[v] = square;
      for (std::size_t k = 0; k < widths[p]; ++k) {
        const Lanes entry = lanes_set(-books[k * kLinkLevels + c]);
        ANNX_UNROLL
        for (std::size_t v = 0; v < kVectors; ++v) {
          score[v] = lanes_fma(
              entry, lanes_load(coordinates + k * kGroup + v * kTileLanes), score[v]);
        }
      }
      ANNX_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) {
        const LessMask nearer = lanes_less(score[v], best[v]);
        best[v] = less_pick(nearer, score[v], best[v]);
        half[v] = less_pick(nearer, square, half[v]);
        code[v] = less_pick(nearer, number, code[v]);
      }
    }
    float nearest[kGroup];
    ANNX_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) {
      lanes_store(nearest + v * kTileLanes, code[v]);
      dot[v] = lanes_add(dot[v], lanes_sub(half[v], best[v]));
    }
    put(p, nearest);
    coordinates += widths[p] * kGroup;
    books += widths[p] * kLinkLevels;
    halves += kLinkLevels;
  }
  for (std::size_t v = 0; v < kVectors; ++v) {
    lanes_store(dots + v * kTileLanes, dot[v]);
  }
}

// The first part of a byte sets it, the second is put above.
template <std::size_t kGroup>
ANNX_INLINE void put_levels(const float* nearest, bool first, std::uint8_t* out) {
  for (std::size_t i = 0; i < kGroup; ++i) {
    const auto level = static_cast<std::uint8_t>(nearest[i]);
    out[i] = first ? level : static_cast<std::uint8_t>(out[i] | level << 4);
  }
}

void link_encode(const float* coordinates, const float* books, const float* halves,
                 const std::uint8_t* widths, std::size_t parts, std::uint8_t* codes,
                 float* dots) {
  encode_parts<kLinkGroup>(coordinates, books, halves, widths, parts, dots,
                           [&](std::size_t p, const float* nearest) {
                             put_levels<kLinkGroup>(nearest, link_code_shift(p) == 0,
                                                    codes + link_code_at(p, 0));
                           });
}

void piece_encode(const float* coordinates, const float* books, const float* halves,
                  const std::uint8_t* widths, std::size_t parts, std::uint8_t* codes,
                  float* dots) {
  encode_parts<kPieceGroup>(coordinates, books, halves, widths, parts, dots,
                            [&](std::size_t p, const float* nearest) {
                              put_levels<kPieceGroup>(nearest, p % 2 == 0,
                                                      codes + p / 2 * kPieceGroup);
                            });
}

// Butterflies between R vectors, at strides of 1, 2, ... R / 2 of them.
template <std::size_t R>
ANNX_INLINE void butterflies(Lanes (&v)[R]) {
  ANNX_UNROLL
  for (std::size_t s = 1; s < R; s *= 2) {
    ANNX_UNROLL
    for (std::size_t m = 0; m < R; ++m) {
      if ((m & s) != 0) continue;
      const Lanes a = v[m];
      const Lanes b = v[m + s];
      v[m] = lanes_add(a, b);
      v[m + s] = lanes_sub(a, b);
    }
  }
}

// Butterflies of the strides h, 2 h, ... R h / 2 over n values, n at least R h.
template <std::size_t R>
ANNX_INLINE void wide_butterflies(float* x, std::size_t n, std::size_t h) {
  for (std::size_t i = 0; i < n; i += R * h) {
    for (std::size_t j = i; j < i + h; j += kTileLanes) {
      Lanes v[R];
      ANNX_UNROLL
      for (std::size_t m = 0; m < R; ++m) v[m] = lanes_load(x + j + m * h);
      butterflies(v);
      ANNX_UNROLL
      for (std::size_t m = 0; m < R; ++m) lanes_store(x + j + m * h, v[m]);
    }
  }
}

// What a butterfly within vectors needs: signs[b][i] is -1 where bit b of i is set, and
// lane i becomes its partner's value plus or minus its own.
struct LaneSigns {
  static constexpr std::size_t kBits = kTileLanes == 16 ? 4 : kTileLanes == 8 ? 3 : 2;
  Lanes signs[kBits];

  LaneSigns() {
    for (std::size_t b = 0; b < kBits; ++b) {
      float lanes[kTileLanes];
      for (std::size_t i = 0; i < kTileLanes; ++i)
        lanes[i] = (i >> b & 1) != 0 ? -1 : 1;
      signs[b] = lanes_load(lanes);
    }
  }
  ANNX_INLINE Lanes all_strides(Lanes a) const {
    ANNX_UNROLL
    for (std::size_t b = 0; b < kBits; ++b) {
      a = lanes_fma(signs[b], a, lanes_partner(a, std::size_t{1} << b));
    }
    return a;
  }
};

// Strides up to half of R vectors, of values times their signs.
template <std::size_t R>
ANNX_INLINE void first_butterflies(float* x, const float* signs, std::size_t n) {
  const LaneSigns within;
  for (std::size_t i = 0; i < n; i += R * kTileLanes) {
    Lanes v[R];
    ANNX_UNROLL
    for (std::size_t m = 0; m < R; ++m) {
      const std::size_t at = i + m * kTileLanes;
      const Lanes product =
          lanes_fma(lanes_load(x + at), lanes_load(signs + at), lanes_set(0.0f));
      v[m] = within.all_strides(product);
    }
    butterflies(v);
    ANNX_UNROLL
    for (std::size_t m = 0; m < R; ++m) lanes_store(x + i + m * kTileLanes, v[m]);
  }
}

void hadamard(float* x, const float* signs, std::size_t n) {
  if (n < kTileLanes) {
    for (std::size_t i = 0; i < n; ++i) x[i] *= signs[i];
    for (std::size_t h = 1; h < n; h *= 2) {
      for (std::size_t i = 0; i < n; ++i) {
        if ((i & h) != 0) continue;
        const float a = x[i];
        const float b = x[i + h];
        x[i] = a + b;
        x[i + h] = a - b;
      }
    }
    return;
  }
  // Several strides at a time, so that memory is read and written less often.
  constexpr std::size_t kFirst = 8;
  std::size_t h = kTileLanes;
  if (n >= kFirst * kTileLanes) {
    first_butterflies<kFirst>(x, signs, n);
    h *= kFirst;
  } else {
    first_butterflies<1>(x, signs, n);
  }
  for (; 8 * h <= n; h *= 8) wide_butterflies<8>(x, n, h);
  if (4 * h <= n) {
    wide_butterflies<4>(x, n, h);
  } else if (2 * h <= n) {
    wide_butterflies<2>(x, n, h);
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
