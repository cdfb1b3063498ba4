// SPDX-License-Identifier: Apache-2.0
// Tables for 4-bit codes, and reading those of a node's links, written once over
// link_sums, V, Lanes and LoadF16 of simd_*.h. One table entry is looked up for 16
// links or more by one byte shuffle (Andre, Kermarrec and Le Scouarnec, "Cache locality
// is not enough", 2015).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

// The least and the greatest of all lanes, in each of them.
ANNX_INLINE Lanes least_everywhere(Lanes a) {
  ANNX_UNROLL
  for (std::size_t h = 1; h < kTileLanes; h *= 2) a = lanes_min(a, lanes_partner(a, h));
  return a;
}
ANNX_INLINE Lanes most_everywhere(Lanes a) {
  ANNX_UNROLL
  for (std::size_t h = 1; h < kTileLanes; h *= 2) a = lanes_max(a, lanes_partner(a, h));
  return a;
}

void level_tables(const float* coordinates, const float* books,
                  const std::uint8_t* widths, std::size_t parts, float* sums,
                  std::uint8_t* out, float* step, float* bias) {
  constexpr std::size_t kRegisters = kLinkLevels / kTileLanes;
  // The same number in every lane: the widest range so far, the sum of the least ones.
  Lanes widest = lanes_set(0.0f);
  Lanes least_sum = lanes_set(0.0f);
  for (std::size_t p = 0; p < parts; ++p) {
    Lanes t[kRegisters];
    ANNX_UNROLL
    for (std::size_t r = 0; r < kRegisters; ++r) t[r] = lanes_set(0.0f);
    for (std::size_t k = 0; k < widths[p]; ++k) {
      const Lanes x = lanes_set(*coordinates++);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kRegisters; ++r) {
        t[r] = lanes_fma(x, lanes_load(books + r * kTileLanes), t[r]);
      }
      books += kLinkLevels;
    }
    Lanes least = t[0];
    Lanes most = t[0];
    ANNX_UNROLL
    for (std::size_t r = 1; r < kRegisters; ++r) {
      least = lanes_min(least, t[r]);
      most = lanes_max(most, t[r]);
    }
    least = least_everywhere(least);
    most = most_everywhere(most);
    ANNX_UNROLL
    for (std::size_t r = 0; r < kRegisters; ++r) {
      lanes_store(sums + p * kLinkLevels + r * kTileLanes, lanes_sub(t[r], least));
    }
    least_sum = lanes_add(least_sum, least);
    widest = lanes_max(widest, lanes_sub(most, least));
  }
  float lanes[kTileLanes];
  lanes_store(lanes, least_sum);
  *bias = lanes[0];
  lanes_store(lanes, widest);
  *step = lanes[0] / 127;
  const float scale = lanes[0] > 0 ? 127 / lanes[0] : 0;
  for (std::size_t i = 0; i < parts * kLinkLevels; ++i) {
    out[i] = static_cast<std::uint8_t>(static_cast<int>(sums[i] * scale + 0.5f));
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

// Butterflies of the strides h, 2 h, ... R h / 2 over n values, n at least R h.
template <std::size_t R>
ANNX_INLINE void wide_butterflies(float* x, std::size_t n, std::size_t h) {
  for (std::size_t i = 0; i < n; i += R * h) {
    for (std::size_t j = i; j < i + h; j += kTileLanes) {
      Lanes v[R];
      ANNX_UNROLL
      for (std::size_t m = 0; m < R; ++m) v[m] = lanes_load(x + j + m * h);
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
      ANNX_UNROLL
      for (std::size_t m = 0; m < R; ++m) lanes_store(x + j + m * h, v[m]);
    }
  }
}

void hadamard(float* x, std::size_t n) {
  if (n < kTileLanes) {
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
  // signs[h][i] is -1 where i & h: lane i then becomes its partner's value plus or
  // minus its own.
  float signs[kTileLanes][kTileLanes];
  for (std::size_t h = 1; h < kTileLanes; h *= 2) {
    for (std::size_t i = 0; i < kTileLanes; ++i) signs[h][i] = (i & h) != 0 ? -1 : 1;
  }
  for (std::size_t i = 0; i < n; i += kTileLanes) {
    Lanes a = lanes_load(x + i);
    for (std::size_t h = 1; h < kTileLanes; h *= 2) {
      a = lanes_fma(lanes_load(signs[h]), a, lanes_partner(a, h));
    }
    lanes_store(x + i, a);
  }
  // Three strides at a time: memory is read and written a third as often.
  std::size_t h = kTileLanes;
  for (; 8 * h <= n; h *= 8) wide_butterflies<8>(x, n, h);
  if (4 * h <= n) {
    wide_butterflies<4>(x, n, h);
  } else if (2 * h <= n) {
    wide_butterflies<2>(x, n, h);
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
