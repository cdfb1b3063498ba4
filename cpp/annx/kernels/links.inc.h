// SPDX-License-Identifier: Apache-2.0
// Reading the codes of a node's links, written once over link_sums, V, Lanes and
// LoadF16 of simd_*.h. One table entry is looked up for 16 links or more by one byte
// shuffle (Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough", 2015).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

void link_tables(const float* coordinates, const float* books,
                 const std::uint8_t* widths, std::size_t parts, std::uint8_t* out,
                 float* step, float* bias) {
  float tables[kMaxLinkParts * kLinkLevels];
  float widest = 0;
  float least_sum = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    float* table = tables + p * kLinkLevels;
    for (std::size_t c = 0; c < kLinkLevels; ++c) table[c] = 0;
    for (std::size_t k = 0; k < widths[p]; ++k) {
      for (std::size_t c = 0; c < kLinkLevels; c += kTileLanes) {
        lanes_store(table + c, lanes_fma(lanes_set(*coordinates), lanes_load(books + c),
                                         lanes_load(table + c)));
      }
      ++coordinates;
      books += kLinkLevels;
    }
    float least = table[0];
    float most = table[0];
    for (std::size_t c = 1; c < kLinkLevels; ++c) {
      least = table[c] < least ? table[c] : least;
      most = table[c] > most ? table[c] : most;
    }
    for (std::size_t c = 0; c < kLinkLevels; ++c) table[c] -= least;
    least_sum += least;
    widest = most - least > widest ? most - least : widest;
  }
  *bias = least_sum;
  *step = widest / 127;
  const float scale = widest > 0 ? 127 / widest : 0;
  for (std::size_t i = 0; i < parts * kLinkLevels; ++i) {
    out[i] = static_cast<std::uint8_t>(tables[i] * scale + 0.5f);
  }
}

std::uint32_t link_scan(const LinkQuery& query, const std::uint8_t* codes,
                        const std::byte* offsets, const std::byte* scales, float base,
                        float limit, const LinkAhead& ahead, float* out) {
  std::int32_t sums[kLinkGroup];
  link_sums(codes, query.parts, query.tables, ahead, sums);
  const V step = v_set(query.step);
  const V bias = v_set(query.bias);
  const V gain = v_set(query.gain);
  for (std::size_t i = 0; i < kLinkGroup; i += kWidth) {
    const V dot = v_fma(v_numbers(sums + i), step, bias);
    const V key =
        v_fma(dot, LoadF16::full(scales + 2 * i), LoadF16::full(offsets + 2 * i));
    v_store(out + i, v_fma(key, gain, v_set(base)));
  }
  std::uint32_t above = 0;
  for (std::size_t i = 0; i < kLinkGroup; i += kTileLanes) {
    above |= less_bits(lanes_less(lanes_set(limit), lanes_load(out + i))) << i;
  }
  return ~above & ((1u << kLinkGroup) - 1);
}

void link_encode(const float* coordinates, const float* books, const float* halves,
                 const std::uint8_t* widths, std::size_t parts, std::uint8_t* codes) {
  for (std::size_t p = 0; p < parts; ++p) {
    float nearest[kLinkGroup];
    for (std::size_t i = 0; i < kLinkGroup; i += kTileLanes) {
      Lanes best = lanes_set(3.402823466e38f);
      Lanes code = lanes_set(0.0f);
      for (std::size_t c = 0; c < kLinkLevels; ++c) {
        // Half the squared distance, less half the square of the vector.
        Lanes score = lanes_set(halves[c]);
        for (std::size_t k = 0; k < widths[p]; ++k) {
          score = lanes_fma(lanes_set(-books[k * kLinkLevels + c]),
                            lanes_load(coordinates + k * kLinkGroup + i), score);
        }
        const LessMask nearer = lanes_less(score, best);
        best = less_pick(nearer, score, best);
        code = less_pick(nearer, lanes_set(static_cast<float>(c)), code);
      }
      lanes_store(nearest + i, code);
    }
    std::uint8_t* out = codes + link_code_at(p, 0);
    for (std::size_t i = 0; i < kLinkGroup; ++i) {
      const auto level = static_cast<std::uint8_t>(nearest[i]);
      out[i] = link_code_shift(p) == 0 ? level
                                       : static_cast<std::uint8_t>(out[i] | level << 4);
    }
    coordinates += widths[p] * kLinkGroup;
    books += widths[p] * kLinkLevels;
    halves += kLinkLevels;
  }
}

// One pass of butterflies of stride h over n values, n at least 2 h.
ANNX_INLINE void wide_butterflies(float* x, std::size_t n, std::size_t h) {
  const Lanes one = lanes_set(1.0f);
  const Lanes minus = lanes_set(-1.0f);
  for (std::size_t i = 0; i < n; i += 2 * h) {
    for (std::size_t j = i; j < i + h; j += kTileLanes) {
      const Lanes a = lanes_load(x + j);
      const Lanes b = lanes_load(x + j + h);
      // Exactly a + b and a - b.
      lanes_store(x + j, lanes_fma(one, b, a));
      lanes_store(x + j + h, lanes_fma(minus, b, a));
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
  for (std::size_t h = kTileLanes; h < n; h *= 2) wide_butterflies(x, n, h);
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
