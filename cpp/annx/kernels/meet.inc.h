// SPDX-License-Identifier: Apache-2.0
// Register tiles of a set of vectors with another where both sides look for neighbours:
// each product is computed once and judged twice. Written over the primitives of
// tile.inc.h; see TileMeet in table.h.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

std::size_t tile_meet(const float* queries, std::size_t first, std::size_t query_panels,
                      const float* row_panel, std::size_t dim, const MeetSide& left,
                      const MeetSide& right, float* out, std::uint32_t* hits) {
  Lanes zero[kTileRegs], share[kTileRegs], bound[kTileRegs];
  ANNX_UNROLL
  for (std::size_t r = 0; r < kTileRegs; ++r) {
    zero[r] = lanes_set(0.0f);
    share[r] = lanes_load(right.shares + r * kTileLanes);
    bound[r] = lanes_load(right.limits + r * kTileLanes);
  }
  for (std::size_t g = first; g < query_panels; ++g) {
    TileSums t;
    tile_sums(queries + g * dim * kTileQueries, row_panel, dim, zero, t);
    const float* shares = left.shares + g * kTileQueries;
    const float* limits = left.limits + g * kTileQueries;
    LessMask any = less_none();
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes own = lanes_set(shares[i]);
      const Lanes limit = lanes_set(limits[i]);
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        t.s[i][r] = lanes_add(t.s[i][r], lanes_add(own, share[r]));
        any = less_or(any, lanes_less(t.s[i][r], lanes_max(limit, bound[r])));
      }
    }
    if (less_bits(any) == 0) continue;
    ANNX_UNROLL
    for (std::size_t i = 0; i < kTileQueries; ++i) {
      const Lanes limit = lanes_set(limits[i]);
      std::uint32_t mask = 0;
      ANNX_UNROLL
      for (std::size_t r = 0; r < kTileRegs; ++r) {
        const LessMask less = lanes_less(t.s[i][r], lanes_max(limit, bound[r]));
        mask |= less_bits(less) << (r * kTileLanes);
        lanes_store(out + i * kTileRows + r * kTileLanes, t.s[i][r]);
      }
      hits[i] = mask;
    }
    return g;
  }
  return query_panels;
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
