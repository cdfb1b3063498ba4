// SPDX-License-Identifier: Apache-2.0
// Puts one instruction set's kernels into its table; included last by isa_*.cpp.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

#define ANNX_FLOATS(kernel) {&kernel<LoadF32>, &kernel<LoadF16>, &kernel<LoadBF16>}
#define ANNX_FLOAT_OPS(kernel, Term) \
  {&kernel<Term, LoadF32>, &kernel<Term, LoadF16>, &kernel<Term, LoadBF16>}
#define ANNX_BYTE_OPS(kernel)                           \
  {                                                     \
    {&kernel<ByteL2<I8>>, &kernel<ByteL2<U8>>},         \
        {&kernel<ByteDot<I8>>, &kernel<ByteDot<U8>>}, { \
      &kernel<ByteL1<I8>>, &kernel<ByteL1<U8>>          \
    }                                                   \
  }
#define ANNX_FIXED(kernel) {&kernel<FixedL2, LoadI16>, &kernel<FixedDot, LoadI16>}
#define ANNX_BYTE_DOTS(kernel) {&kernel<ByteDot<I8>>, &kernel<ByteDot<U8>>}

constexpr KernelTable make_table() {
  return KernelTable{
      ANNX_ISA_NAME,
      {ANNX_FLOAT_OPS(float_rows, TermL2), ANNX_FLOAT_OPS(float_rows, TermDot),
       ANNX_FLOAT_OPS(float_rows, TermL1)},
      {ANNX_FLOAT_OPS(float_gather, TermL2), ANNX_FLOAT_OPS(float_gather, TermDot),
       ANNX_FLOAT_OPS(float_gather, TermL1)},
      ANNX_FLOATS(float_cosine_rows),
      ANNX_FLOATS(float_cosine_gather),
      ANNX_FLOATS(float_squares),
      ANNX_BYTE_OPS(byte_rows),
      ANNX_BYTE_OPS(byte_gather),
      ANNX_BYTE_OPS(byte_block),
      ANNX_BYTE_DOTS(byte_cosine_rows),
      ANNX_BYTE_DOTS(byte_cosine_gather),
      ANNX_BYTE_DOTS(byte_squares),
      &bit_rows<Hamming>,
      &bit_gather<Hamming>,
      &bit_block<Hamming>,
      &bit_rows<Jaccard>,
      &bit_gather<Jaccard>,
      &bit_block<Jaccard>,
      &cosine_finish<float>,
      &cosine_finish<std::int32_t>,
      ANNX_FLOATS(narrow),
      {&widen<LoadF32>, &widen<LoadF16>, &widen<LoadBF16>, &widen<LoadI8>,
       &widen<LoadU8>},
      ANNX_FLOATS(float_scaled_rows),
      tile_kernels(),
      &score_tile,
      &score_least,
      &score_below,
      &score_floors,
      &drift_bounds,
      &merge_bounds,
      &level_tables,
      &link_scan,
      &link_encode,
      &hadamard,
      &join_halves,
      &pack_lanes,
      &nearest_lanes,
      &pair_distances,
      &scan_blocks,
      &tile_meet,
      &piece_encode,
      {&box_bounds<BoxL2>, &box_bounds<BoxL1>},
      {&leaf_keys<LeafL2>, &leaf_keys<LeafL1>, &leaf_keys<LeafScaled>},
      &score_point,
      ANNX_FIXED(float_rows),
      ANNX_FIXED(float_gather),
  };
}

#undef ANNX_FLOATS
#undef ANNX_FLOAT_OPS
#undef ANNX_BYTE_OPS
#undef ANNX_FIXED
#undef ANNX_BYTE_DOTS

}  // namespace

const KernelTable& table() {
  static constexpr KernelTable kTable = make_table();
  return kTable;
}

}  // namespace annx::kernels::ANNX_ISA_NS
