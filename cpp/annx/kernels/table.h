// SPDX-License-Identifier: Apache-2.0
// Every kernel's signature and contract. One table of these per instruction set;
// dispatch.h picks one at run time.
//
// Common contract. Pointers are valid for the stated extent and need no alignment.
// Outputs do not alias inputs. Kernels never allocate, never throw, keep no state (any
// number of threads may call them) and read nothing outside the rows that they are
// given (tails are masked or loaded again from within the row, never over-read).
// `count`, `dim` and `bytes` may be 0. Strides are in bytes and may be any number.
//
// Accumulation. Float kernels hold 32 partial sums: element i goes to lane i % 32 by
// one fused multiply-add in order of i, and the lanes are folded 32 -> 8 -> 4 -> 2 ->
// 1:
//   s8[j] = (l[j] + l[j+8]) + (l[j+16] + l[j+24]); s4[j] = s8[j] + s8[j+4];
//   s2[j] = s4[j] + s4[j+2]; s = (s2[0] + s2[1]) + 0, so that a zero is never negative.
// l1 adds |q - x| instead of a fused multiply-add. So every instruction set gives the
// same bits, and one row's distance does not depend on the rows beside it: this is the
// canonical distance of DESIGN.md. Against exact arithmetic on the given elements the
// error is at most (dim / 32 + 8) * 2^-24 * sum |terms| (underflow aside): one rounding
// for each step of a lane, at most two for the term's subtraction, six for the fold.
// 8-bit kernels are exact in int32; dim must be at most kMaxDim8. Bit kernels are
// exact; rows must be shorter than 2^24 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace annx::kernels {

// Largest dim for which an 8-bit sum cannot overflow int32: 255^2 * 33025 < 2^31.
inline constexpr std::size_t kMaxDim8 = 33025;

// The operations. `kOpDot` is the plain (not negated) inner product.
enum Op : std::uint8_t { kOpL2 = 0, kOpDot = 1, kOpL1 = 2, kOpCount = 3 };

// Float rows: 0 float32, 1 float16, 2 bfloat16 (as annx::DType). The query is float32.
inline constexpr std::size_t kFloatTypes = 3;
// 8-bit rows: 0 int8, 1 uint8. The query has the rows' type.
inline constexpr std::size_t kByteTypes = 2;

// out[i] = op(query, row i) for `count` rows, `stride` bytes apart.
using FloatRows = void (*)(const float* query, const std::byte* rows,
                           std::size_t stride, std::size_t count, std::size_t dim,
                           float* out);
// out[i] = op(query, row slots[i]); rows ahead are prefetched.
using FloatGather = void (*)(const float* query, const std::byte* rows,
                             std::size_t stride, const std::uint32_t* slots,
                             std::size_t count, std::size_t dim, float* out);
// In one pass over row i: dots[i] = <query, row i>, squares[i] = <row i, row i>, each
// canonical. For cosine on rows whose norms are not stored.
using FloatCosineRows = void (*)(const float* query, const std::byte* rows,
                                 std::size_t stride, std::size_t count, std::size_t dim,
                                 float* dots, float* squares);
using FloatCosineGather = void (*)(const float* query, const std::byte* rows,
                                   std::size_t stride, const std::uint32_t* slots,
                                   std::size_t count, std::size_t dim, float* dots,
                                   float* squares);
// out[i] = <row i, row i>, the same bits as FloatCosineRows gives.
using FloatSquares = void (*)(const std::byte* rows, std::size_t stride,
                              std::size_t count, std::size_t dim, float* out);

// out[i] = sum (query - scales[i] * row i)^2, in the canonical order, the difference
// rounded once: cosine as half a squared distance between directions, which keeps its
// digits where 1 - cos loses them.
using FloatScaledRows = void (*)(const float* query, const std::byte* rows,
                                 std::size_t stride, const float* scales,
                                 std::size_t count, std::size_t dim, float* out);

// Fixed-point rows: a step s, then whole numbers n, the elements being s n. A row is
// kFixedHead bytes, of which the first four are s as a float32 and the others nothing,
// then `dim` int16. s must have few enough binary digits for s n to be a float32 (9 do,
// and |n| <= 2^15). l2 gives the bits that FloatRows and FloatGather give over float32
// rows of the elements; dot is s times what they give over rows of n. No l1.
inline constexpr std::size_t kFixedHead = 16;  // so that numbers stay aligned
inline constexpr std::size_t kFixedOps = 2;

using ByteRows = void (*)(const std::byte* query, const std::byte* rows,
                          std::size_t stride, std::size_t count, std::size_t dim,
                          std::int32_t* out);
using ByteGather = void (*)(const std::byte* query, const std::byte* rows,
                            std::size_t stride, const std::uint32_t* slots,
                            std::size_t count, std::size_t dim, std::int32_t* out);
using ByteCosineRows = void (*)(const std::byte* query, const std::byte* rows,
                                std::size_t stride, std::size_t count, std::size_t dim,
                                std::int32_t* dots, std::int32_t* squares);
using ByteCosineGather = void (*)(const std::byte* query, const std::byte* rows,
                                  std::size_t stride, const std::uint32_t* slots,
                                  std::size_t count, std::size_t dim,
                                  std::int32_t* dots, std::int32_t* squares);
using ByteSquares = void (*)(const std::byte* rows, std::size_t stride,
                             std::size_t count, std::size_t dim, std::int32_t* out);
// out[i * out_stride + j] = op(query i, row j); out_stride counts elements.
using ByteBlock = void (*)(const std::byte* queries, std::size_t query_stride,
                           std::size_t query_count, const std::byte* rows,
                           std::size_t row_stride, std::size_t row_count,
                           std::size_t dim, std::int32_t* out, std::size_t out_stride);

// Packed bits, `bytes` bytes a row. Hamming: the number of differing bits. Jaccard:
// (|q or x| - |q and x|) / |q or x| as one correctly rounded division, 0 if both are
// empty.
using HammingRows = ByteRows;
using HammingGather = ByteGather;
using HammingBlock = ByteBlock;
using JaccardRows = void (*)(const std::byte* query, const std::byte* rows,
                             std::size_t stride, std::size_t count, std::size_t bytes,
                             float* out);
using JaccardGather = void (*)(const std::byte* query, const std::byte* rows,
                               std::size_t stride, const std::uint32_t* slots,
                               std::size_t count, std::size_t bytes, float* out);
using JaccardBlock = void (*)(const std::byte* queries, std::size_t query_stride,
                              std::size_t query_count, const std::byte* rows,
                              std::size_t row_stride, std::size_t row_count,
                              std::size_t bytes, float* out, std::size_t out_stride);

// out[i] = 1 - dots[i] / (sqrt(query_square) * sqrt(squares[i])), each operation
// rounded; 1 where either square is 0. Two roots, because the product of the squares
// can overflow.
using CosineFinish = void (*)(float query_square, const float* dots,
                              const float* squares, std::size_t count, float* out);
// The same from the 8-bit kernels' sums, converted to float first (one rounding each).
using ByteCosineFinish = void (*)(std::int32_t query_square, const std::int32_t* dots,
                                  const std::int32_t* squares, std::size_t count,
                                  float* out);

// n elements; float32 to the narrow type rounds to nearest, ties to even, overflow
// gives infinity, a NaN stays a NaN. The other direction is exact.
using Narrow = void (*)(const float* in, std::size_t n, std::byte* out);
using Widen = void (*)(const std::byte* in, std::size_t n, float* out);

// Register tiles: blocks of queries against blocks of rows, all float32, as inner
// products in panels. A panel holds `queries` queries or `rows` rows (the members of
// TileKernels), element k of all of them together: panel[k * width + i]. Vectors past
// the last are zeros. Results depend on the instruction set (they shortlist; canonical
// kernels settle), but never on what lies in the same panel.
inline constexpr std::size_t kMaxTileQueries = 16;
inline constexpr std::size_t kMaxTileRows = 32;

// Packs `count` vectors, `stride` floats apart, as (x * scale - centre) * factor, where
// x * scale - centre is rounded once. `centre` (dim) and `scales` (count) may be null
// for 0 and 1. `panels` has room for `count` rounded up to whole panels, times dim.
// `squares`, if not null, gets sum (x * scale - centre)^2 for each of the rounded-up
// count; its relative error is at most (dim + 1) * 2^-24 * 1.01.
using TilePack = void (*)(const float* in, std::size_t stride, std::size_t count,
                          std::size_t dim, const float* centre, const float* scales,
                          float factor, float* panels, float* squares);
// out[i * out_stride + j] = bias[j] + <query i, row j> for whole panels; `bias` (rows
// of all row panels) may be null for 0. Query panels should fit the second cache.
using TileBlock = void (*)(const float* queries, std::size_t query_panels,
                           const float* rows, std::size_t row_panels, std::size_t dim,
                           const float* bias, float* out, std::size_t out_stride);
// Sums as TileBlock, of one row panel with the query panels first, first + 1, ...,
// until one holds a sum below its query's limit (limits[query]). Returns that panel,
// with its sums in out[i * rows + j] and, for each query i of it, hits[i] with bit j
// set where sum < limit; returns query_panels when there is none left. Most tiles so
// never leave the registers. Call again with the returned panel + 1.
using TileScan = std::size_t (*)(const float* queries, std::size_t first,
                                 std::size_t query_panels, const float* row_panel,
                                 std::size_t dim, const float* bias,
                                 const float* limits, float* out, std::uint32_t* hits);

struct TileKernels {
  std::size_t queries;  // a query panel's width, at most kMaxTileQueries
  std::size_t rows;     // a row panel's width, at most kMaxTileRows
  TilePack pack_queries;
  TilePack pack_rows;
  TileBlock block;
  TileScan scan;
};

// Centroids come in groups of this many, points in tiles of at most that many.
inline constexpr std::size_t kGroup = 16;
inline constexpr std::size_t kScorePoints = 6;

// For each group g listed, lane l and point p (count <= kScorePoints):
//   scores[p * score_stride + g * kGroup + l] =
//       offsets[g * kGroup + l] + sum_i points[p * stride + i] * packed[(g * dim + i) *
//       kGroup + l]
//   minima[p * minima_stride + g] = the least of those 16 scores.
// One fused multiply-add an element, in order of i. Either output may be null.
using ScoreTile = void (*)(const float* points, std::size_t stride, std::size_t count,
                           const float* packed, const float* offsets, std::size_t dim,
                           const std::uint32_t* groups, std::size_t group_count,
                           float* scores, std::size_t score_stride, float* minima,
                           std::size_t minima_stride);

// The least of `count` scores, a multiple of kGroup.
using ScoreLeast = float (*)(const float* scores, std::size_t count);
// Positions of the scores below `limit`, in order; returns how many. `out` has room for
// `count`.
using ScoreBelow = std::size_t (*)(const float* scores, std::size_t count, float limit,
                                   std::uint32_t* out);

// What k-means makes of scores; codec/centroid_blocks.h says what they are.
// With e[g] = error * (length + reach[g])^2 + slack for `groups` groups, a multiple of
// kGroup: floors[g] = minima[g] - e[g]; returns the least minima[g] + e[g].
using ScoreFloors = float (*)(const float* minima, const float* reach,
                              std::size_t groups, float length, float error,
                              float slack, float* floors);
// bounds[s] = (bounds[s] - drift[s]) (1 - 2^-22), which no rounding can leave too high;
// gap[s] = min(gap[s], bounds[s] - need).
using DriftBounds = void (*)(float* bounds, const float* drift, std::size_t spans,
                             float need, float* gap);
// Where gap[s] <= 0: bounds[s] = sqrt(max(0, floors[s] + base)) (1 - 2^-22).
using MergeBounds = void (*)(float* bounds, const float* floors, const float* gap,
                             std::size_t spans, float base);

// 4-bit codes of the links of a node (codec/link_codec.h says what they mean), in
// groups of kLinkGroup links.
inline constexpr std::size_t kLinkGroup = 16;
// Codes of one group: parts come in fours, 2 * kLinkGroup bytes for each four: of a
// link the byte in the first half holds parts 0 (low bits) and 2, that in the second
// half parts 1 and 3. So 32 bytes in a row need the tables of two parts in a row.
inline constexpr std::size_t kLinkPartsStep = 4;
constexpr std::size_t link_code_bytes(std::size_t parts) {
  return parts / 2 * kLinkGroup;
}
// At which byte of a group's codes a link has a part, and how many bits up.
constexpr std::size_t link_code_at(std::size_t part, std::size_t link) {
  return (part / 4 * 2 + part % 2) * kLinkGroup + link;
}
constexpr std::size_t link_code_shift(std::size_t part) { return part / 2 % 2 * 4; }
inline constexpr std::size_t kMaxLinkParts = 256;  // 256 x 127 fits 16 bits
inline constexpr std::size_t kLinkLevels = 16;

// The tables of one query: part p, made of some dimensions, gives the sums
//   t[c] = sum_k coordinate[k] * book[k][c], one fused multiply-add a term, over its
//   dimensions k in order;
// out[p * kLinkLevels + c] = t[c] less the part's least t in units of *step, rounded to
// nearest; *step is the widest part's range / 127 (0 where that is 0), *bias the sum of
// the least ones: part by part for each of the kLinkPanel places in a panel, then of
// those. So sum_p t_p[c_p] ~ *bias + *step * sum_p out.
//
// Parts stand side by side in panels of kLinkPanel, so that no sum crosses lanes: panel
// i has widths[i] times coordinates[kLinkPanel] and books[kLinkLevels][kLinkPanel],
// with zeros where a part has fewer dimensions or there is none (codec/level_panels.h).
// `room` holds level_table_room(panels) floats, `out` whole panels.
inline constexpr std::size_t kLinkPanel = 16;
constexpr std::size_t level_table_room(std::size_t panels) {
  return panels * kLinkPanel * (kLinkLevels + 1);
}
using LevelTables = void (*)(const float* coordinates, const float* books,
                             const std::uint8_t* widths, std::size_t panels,
                             float* room, std::uint8_t* out, float* step, float* bias);
// For each link i of a group, with S the sum of its table entries:
//   out[i] = base + gain * (offsets[i] + scales[i] * (bias + step * S)),
// each product and sum one fused multiply-add; offsets and scales are float16. Returns
// a bit for each link whose value is not above `limit`; NaN is not above anything.
struct LinkQuery {
  const std::uint8_t* tables;
  std::size_t parts;
  float step;
  float bias;
  float gain;
};
// Asks for memory meanwhile that will be needed next, so many lines of two runs, line
// by line as it goes: at the pace at which memory comes, instead of all at once.
struct LinkAhead {
  const std::byte* codes;
  const std::byte* row;
  std::size_t code_lines;
  std::size_t row_lines;
};
using LinkScan = std::uint32_t (*)(const LinkQuery& query, const std::uint8_t* codes,
                                   const std::byte* offsets, const std::byte* scales,
                                   float base, float limit, const LinkAhead& ahead,
                                   float* out);

// The nearest entry of each part for the links of one group: coordinates[k * kLinkGroup
// + i] is dimension k of link i, halves[p * kLinkLevels + c] half the squared length of
// entry c of part p. Ties go to the lower entry. `codes` as LinkScan reads them;
// dots[i] is the inner product of link i with all its entries, part by part half of the
// entry's square less its score.
using LinkEncode = void (*)(const float* coordinates, const float* books,
                            const float* halves, const std::uint8_t* widths,
                            std::size_t parts, std::uint8_t* codes, float* dots);

// The same for a block of kPieceGroup rows of an inverted list, codes as ScanBlocks
// reads them.
using PieceEncode = LinkEncode;

// x[i] becomes sum_j (-1)^popcount(i & j) signs[j] x[j] for n values, n a power of two:
// the Hadamard transform, by butterflies of stride 1, 2, 4, ...; O(n log n) sums.
using Hadamard = void (*)(float* x, const float* signs, std::size_t n);

// Puts float32 values together from the two halves that they were split into: out[i] is
// the number with the bits (high[i] << 16) + low[i], low being signed.
using JoinHalves = void (*)(const std::byte* high, const std::byte* low, std::size_t n,
                            float* out);

// Points in lanes: panels of TileKernels::rows points, element k of all together, as
// those of TilePack. Row i is rows + (index ? index[i] : i) * stride (in floats), less
// `centre`; places past the last repeat it.
using PackLanes = void (*)(const float* rows, std::size_t stride,
                           const std::uint32_t* index, std::size_t count,
                           std::size_t dim, const float* centre, float* panels);

// Centroids to screen a panel of points against, centred as they are.
struct LaneScreen {
  const float* centroids;  // panels of TileKernels::queries: -2 c
  const float* offsets;    // |c|^2; kNoCentroid where there is none
  const float* tags;       // floats whose bits are the number of the centroid
  std::size_t panels;
  std::size_t dim;
  std::uint32_t tag_bits;  // every number is below 2^tag_bits
  float farthest;          // the largest |c|^2
};
inline constexpr float kNoCentroid = 1.7e38f;
inline constexpr std::uint32_t kMaxTagBits = 12;

// The centroid nearest to each point of a panel by |x|^2 + |c|^2 - 2 <x, c>, where that
// is beyond doubt. Bit i of the result is set where it is not: there another centroid
// comes within what rounding (also that of the centring) and the tags can account for,
// or something overflows, and ids[i] may be wrong. floors[i] (if not null) is at most
// |x - c|^2 of every centroid but ids[i], in exact arithmetic on the vectors before
// centring; of every centroid where the bit is set.
//
// A score is compared with its last tag_bits bits replaced by the centroid's number:
// the least of the tagged scores says which centroid it was, without a second register,
// a comparison or a blend.
using NearestLanes = std::uint32_t (*)(const float* panel, const LaneScreen& screen,
                                       std::uint32_t* ids, float* floors);

// out[i] = canonical squared distance of row (index ? index[i] : i) and centroid
// cells[i]; strides in floats.
using PairDistances = void (*)(const float* rows, std::size_t stride,
                               const std::uint32_t* index, const float* centroids,
                               std::size_t centroid_stride, const std::uint32_t* cells,
                               std::size_t count, std::size_t dim, float* out);

// Inverted lists of 4-bit pieces (codec/piece_codec.h says what they mean), read with
// the tables of LevelTables.
//
// Blocks of kPieceGroup codes, `stride` bytes apart: codes, 2 parts a byte, the first
// in the low half, a byte a row (parts / 2 * kPieceGroup bytes), then offsets and
// scales, a float16 each a code. With S the sum of a code's table entries,
//   term = offset + scale * (bias + step * S), key = base + unit * term,
// each product and sum of the first one fused multiply-add. Of the first `count` codes
// those with term < (limit - base) / unit are written, in order, keys and places
// (first + number of the code); returns how many. keys and places have room for one
// more than `count` rounded up to whole blocks. unit > 0.
inline constexpr std::size_t kPieceGroup = 32;
struct ScanQuery {
  const std::uint8_t* tables;
  std::size_t parts;
  float step;
  float bias;
  float unit;
};
using ScanBlocks = std::size_t (*)(const ScanQuery& query, const std::byte* blocks,
                                   std::size_t stride, std::size_t count, float base,
                                   float limit, std::uint32_t first, float* keys,
                                   std::uint32_t* places);
// Tiles of vectors where both sides look for neighbours. What is known of one side: a
// number for each vector that is added to its sums, and the value below which it wants
// to hear of a pair.
struct MeetSide {
  const float* shares;
  const float* limits;
};
// As TileScan, with value = <query i, row j> + (left.shares[i] + right.shares[j]),
// whose two sums are rounded, so that exchanging the sides changes no bit of it; a hit
// is a value below left.limits[i] or right.limits[j]. `left` counts from the first
// query panel, `right` from this row panel.
using TileMeet = std::size_t (*)(const float* queries, std::size_t first,
                                 std::size_t query_panels, const float* row_panel,
                                 std::size_t dim, const MeetSide& left,
                                 const MeetSide& right, float* out,
                                 std::uint32_t* hits);
// Boxes and leaves of search/kd_tree.h. A node has kBoxFan boxes: boxes[k * 2 * kBoxFan
// + i] is the lower and boxes[(2 k + 1) * kBoxFan + i] the upper end of box i in
// dimension k. A leaf has kLeafPoints points, element k of all of them together, of at
// most kMaxLeafDim dimensions.
inline constexpr std::size_t kBoxFan = 8;
inline constexpr std::size_t kLeafPoints = 16;
inline constexpr std::size_t kMaxLeafDim = 32;

// out[i] = the sum over k of how far query[k] lies outside box i (or of its square), in
// any order: relative error at most (dim + 3) * 2^-24.
using BoxBounds = void (*)(const float* query, const float* boxes, std::size_t dim,
                           float* out);
// out[i] = canonical distance of the query and point i; 1 <= dim <= kMaxLeafDim. As
// FloatScaledRows where `scales` (kLeafPoints of them) is not null. Bit i of the result
// is set where out[i] is not above `limit` (and where it is NaN).
using LeafKeys = std::uint32_t (*)(const float* query, const float* points,
                                   const float* scales, std::size_t dim, float limit,
                                   float* out);

// ScoreTile for one point and all of `groups` groups: the same bits.
using ScorePoint = void (*)(const float* point, const float* packed,
                            const float* offsets, std::size_t dim, std::size_t groups,
                            float* scores);

struct KernelTable {
  const char* isa;
  FloatRows float_rows[kOpCount][kFloatTypes];
  FloatGather float_gather[kOpCount][kFloatTypes];
  FloatCosineRows float_cosine_rows[kFloatTypes];
  FloatCosineGather float_cosine_gather[kFloatTypes];
  FloatSquares float_squares[kFloatTypes];
  ByteRows byte_rows[kOpCount][kByteTypes];
  ByteGather byte_gather[kOpCount][kByteTypes];
  ByteBlock byte_block[kOpCount][kByteTypes];
  ByteCosineRows byte_cosine_rows[kByteTypes];
  ByteCosineGather byte_cosine_gather[kByteTypes];
  ByteSquares byte_squares[kByteTypes];
  HammingRows hamming_rows;
  HammingGather hamming_gather;
  HammingBlock hamming_block;
  JaccardRows jaccard_rows;
  JaccardGather jaccard_gather;
  JaccardBlock jaccard_block;
  CosineFinish cosine_finish;
  ByteCosineFinish byte_cosine_finish;
  Narrow narrow[kFloatTypes];  // indexed by the narrow type; float32 is a copy
  Widen widen[kFloatTypes + kByteTypes];  // as annx::DType: 3 int8, 4 uint8
  FloatScaledRows float_scaled_rows[kFloatTypes];
  TileKernels tile;
  ScoreTile score_tile;
  ScoreLeast score_least;
  ScoreBelow score_below;
  ScoreFloors score_floors;
  DriftBounds drift_bounds;
  MergeBounds merge_bounds;
  LevelTables level_tables;
  LinkScan link_scan;
  LinkEncode link_encode;
  Hadamard hadamard;
  JoinHalves join_halves;
  PackLanes pack_lanes;
  NearestLanes nearest_lanes;
  PairDistances pair_distances;
  ScanBlocks scan_blocks;
  TileMeet tile_meet;
  PieceEncode piece_encode;
  BoxBounds box_bounds[2];  // l2, l1
  LeafKeys leaf_keys[3];    // l2, l1, l2 of scaled points
  ScorePoint score_point;
  FloatRows fixed_rows[kFixedOps];
  FloatGather fixed_gather[kFixedOps];
};

}  // namespace annx::kernels
