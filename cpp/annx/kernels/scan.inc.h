// SPDX-License-Identifier: Apache-2.0
// Scanning inverted lists of 4-bit pieces, written once over piece_sums, V, Lanes and
// LoadF16 of simd_*.h: 32 codes at a time, one byte shuffle a piece (Andre, Kermarrec
// and Le Scouarnec, "Cache locality is not enough", 2015).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

// Groups that are summed together: enough sums to hide a multiply-add's latency.
template <std::size_t G>
ANNX_INLINE void score_groups(const float* point, const float* packed,
                              const float* offsets, std::size_t dim, float* scores) {
  constexpr std::size_t kRegisters = kGroup / kTileLanes;
  Lanes sums[G * kRegisters];
  ANNX_UNROLL
  for (std::size_t r = 0; r < G * kRegisters; ++r) {
    sums[r] = lanes_load(offsets + r * kTileLanes);
  }
  for (std::size_t i = 0; i < dim; ++i) {
    const Lanes x = lanes_set(point[i]);
    ANNX_UNROLL
    for (std::size_t g = 0; g < G; ++g) {
      ANNX_UNROLL
      for (std::size_t r = 0; r < kRegisters; ++r) {
        const float* c = packed + (g * dim + i) * kGroup + r * kTileLanes;
        sums[g * kRegisters + r] =
            lanes_fma(x, lanes_load(c), sums[g * kRegisters + r]);
      }
    }
  }
  ANNX_UNROLL
  for (std::size_t r = 0; r < G * kRegisters; ++r) {
    lanes_store(scores + r * kTileLanes, sums[r]);
  }
}

void score_point(const float* point, const float* packed, const float* offsets,
                 std::size_t dim, std::size_t groups, float* scores) {
  std::size_t g = 0;
  for (; g + 4 <= groups; g += 4) {
    score_groups<4>(point, packed + g * dim * kGroup, offsets + g * kGroup, dim,
                    scores + g * kGroup);
  }
  for (; g < groups; ++g) {
    score_groups<1>(point, packed + g * dim * kGroup, offsets + g * kGroup, dim,
                    scores + g * kGroup);
  }
}

// Sums of more parts than fit 16 bits go in portions.
ANNX_INLINE void block_sums(const std::uint8_t* codes, std::size_t parts,
                            const std::uint8_t* tables, std::int32_t* sums) {
  if (parts <= kMaxLinkParts) {
    piece_sums(codes, parts, tables, sums);
    return;
  }
  for (std::size_t i = 0; i < kPieceGroup; ++i) sums[i] = 0;
  for (std::size_t p = 0; p < parts; p += kMaxLinkParts) {
    const std::size_t n = parts - p < kMaxLinkParts ? parts - p : kMaxLinkParts;
    std::int32_t some[kPieceGroup];
    piece_sums(codes + p / 2 * kPieceGroup, n, tables + p * kLinkLevels, some);
    for (std::size_t i = 0; i < kPieceGroup; ++i) sums[i] += some[i];
  }
}

// Blocks that are looked at together.
inline constexpr std::size_t kTogether = 2;

// What of a scan is the same for all blocks.
struct Scan {
  V step;
  V bias;
  Lanes below;  // in the unit of the offsets, so that only what passes is converted
  float base;
  float unit;
  float* keys;
  std::uint32_t* places;
  std::size_t found;
};

// Writes those of a block's first `count` codes that pass.
ANNX_INLINE void take_block(Scan& scan, const std::int32_t* sums,
                            const std::byte* offsets, std::size_t count,
                            std::uint32_t first) {
  const std::byte* scales = offsets + 2 * kPieceGroup;
  float terms[kPieceGroup];
  ANNX_UNROLL
  for (std::size_t i = 0; i < kPieceGroup; i += kWidth) {
    const V dot = v_fma(v_numbers(sums + i), scan.step, scan.bias);
    v_store(terms + i,
            v_fma(dot, LoadF16::full(scales + 2 * i), LoadF16::full(offsets + 2 * i)));
  }
  std::uint32_t passed = 0;
  ANNX_UNROLL
  for (std::size_t i = 0; i < kPieceGroup; i += kTileLanes) {
    passed |= less_bits(lanes_less(lanes_load(terms + i), scan.below)) << i;
  }
  if (count < kPieceGroup) passed &= (std::uint32_t{1} << count) - 1;
  for (std::uint32_t i = 0; passed != 0; ++i, passed >>= 1) {
    if ((passed & 0xFFu) == 0) {
      passed >>= 7;
      i += 7;
      continue;
    }
    scan.keys[scan.found] = scan.base + scan.unit * terms[i];
    scan.places[scan.found] = first + i;
    scan.found += passed & 1u;
  }
}

std::size_t scan_blocks(const ScanQuery& query, const std::byte* blocks,
                        std::size_t stride, std::size_t count, float base, float limit,
                        std::uint32_t first, float* keys, std::uint32_t* places) {
  const std::size_t code_bytes = query.parts / 2 * kPieceGroup;
  Scan scan{v_set(query.step),
            v_set(query.bias),
            lanes_set((limit - base) / query.unit),
            base,
            query.unit,
            keys,
            places,
            0};
  std::size_t at = 0;
  if (query.parts <= kMaxLinkParts) {
    for (; at + kPieceGroup < count; at += kTogether * kPieceGroup) {
      std::int32_t sums[kTogether * kPieceGroup];
      const bool more = at + 2 * kTogether * kPieceGroup < count;
      piece_sums_pair(reinterpret_cast<const std::uint8_t*>(blocks), stride,
                      query.parts, query.tables, sums,
                      more ? 2 * kTogether * stride : 0);
      for (std::size_t g = 0; g < kTogether; ++g, blocks += stride) {
        const std::size_t begin = at + g * kPieceGroup;
        take_block(scan, sums + g * kPieceGroup, blocks + code_bytes, count - begin,
                   first + static_cast<std::uint32_t>(begin));
      }
    }
  }
  for (; at < count; at += kPieceGroup, blocks += stride) {
    std::int32_t sums[kPieceGroup];
    block_sums(reinterpret_cast<const std::uint8_t*>(blocks), query.parts, query.tables,
               sums);
    take_block(scan, sums, blocks + code_bytes, count - at,
               first + static_cast<std::uint32_t>(at));
  }
  return scan.found;
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
