// SPDX-License-Identifier: Apache-2.0
// Codes of 4-bit or 8-bit pieces for inverted lists: what a scan reads.
//
// A row x in the list of centroid c is r = x - c, and with c' = c - m, q' = q - m (m is
// the mean of the rows)
//     l2:  |q - x|^2 = |q - c|^2 + (|r|^2 + 2 <c', r>) - 2 <q', r>
//     ip:    -<q, x> = -<q, c> - <q, r>                        (m = 0)
// so that only <q', r> needs the code, and one table a query serves every list. (An
// index that codes rows and not residuals has m for c in every list, so c' = 0.)
//
// The code. r is rotated and scaled to length 1, its coordinates z are cut into pieces
// of a few each, and each piece is replaced by one of 16 levels, or of 256:
//   rabitq   a random rotation (rotation.h), 4 coordinates a piece, levels the signs
//            over sqrt(d): one bit a dimension (Gao and Long, "RaBitQ", 2024);
//   pq       levels trained by k-means (Jegou, Douze and Schmid, 2011), without a
//            rotation unless asked for: where some coordinates vary more than others a
//            random one spreads that over all pieces, and a learnt one
//            (learnt_rotation.h) leaves less yet, for O(d^2) a query and a row.
// With z^ the levels, r ~ f z^, f = |r| / <z, z^>, so that the inner product of r with
// itself is exact: <q', r> is estimated by f <q', z^> with an error in proportion to
// the part of q' across r alone. For a random rotation that error has mean 0, and
//     |error| <= eps |q - c| f t / sqrt(d - 1),   t^2 = |z^|^2 - <z, z^>^2,
// but for a share of queries of about exp(-eps^2 / 2) (Gao and Long, theorem 3.2; for
// ip |q|). Estimates are made of tables rounded to 7 bits, see LevelTables in
// kernels/table.h: each of the pieces adds at most half a step to <q', z^>, times f.
// Those of 8-bit pieces are float32, not rounded, and read from memory: one look-up
// instead of a 32nd of a shuffle.
//
// A code keeps two float16 beside its pieces: offset, |r|^2 + 2 f <c', z^>, and scale,
// -2 f (ip: 0 and -f), in units that are powers of two. 8-bit pieces of a block: a byte
// each, those of the block's 32 codes one after the other, then the same.
//
// Costs: a query O(d log d) (rabitq) and 16 d or 256 d, a code as much, an estimate a
// look-up a piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/codec/level_panels.h"
#include "annx/codec/rotation.h"
#include "annx/kernels/table.h"
#include "annx/storage/file.h"

namespace annx::codec {

class PieceCodec {
 public:
  enum class Kind : std::uint8_t { kRabitq = 0, kProduct = 1, kBytes = 3 };
  // kRabitq always has kRandom.
  enum class Turn : std::uint8_t { kNone = 0, kRandom = 1, kLearnt = 2 };

  struct Options {
    Kind kind = Kind::kRabitq;
    std::size_t segments = 0;  // of kProduct and kBytes
    Turn turn = Turn::kNone;   // of kProduct and kBytes
    bool products = false;     // keys are negated inner products, not distances
    std::uint64_t seed = 0;
  };

  // `residuals`: rows less the centroid of their list, a sample; `mean` of the rows.
  // Throws InvalidArgument where there are fewer than levels, or bad options.
  PieceCodec(MatrixView<float> residuals, std::vector<float> mean,
             const Options& options, std::size_t threads, Monitor* monitor);

  std::size_t dim() const { return dim_; }
  // The last may be empty.
  std::size_t pieces() const { return widths_.size(); }
  const Options& options() const { return options_; }
  // Of a block of kPieceGroup codes with their offsets and scales.
  std::size_t payload_bytes() const;
  std::size_t memory_bytes() const;
  // The standard deviation of a key's error for a code of this scale (as a float16
  // gives it), with `reach` = |q - c| (ip: |q|); see the header. Rounding of the tables
  // included.
  float error(float scale, float reach, float step) const;
  // The largest t of all codes made.
  void widen_spread(double spread) { spread_ = spread > spread_ ? spread : spread_; }
  // |scale| of a code, as the float16 says.
  float scale(const std::byte* block, std::uint32_t lane) const;

  std::span<const float> mean() const { return mean_; }

  // Coordinates of row - m, dim() of them.
  void project(const float* row, float* out) const;
  // In place: coordinates of a difference of rows to that difference.
  void turn_back(float* x) const;

  // Codes up to kPieceGroup projected rows of the list with this projected centroid,
  // and puts code i, its offset and its scale into lane lanes[i] of blocks[i].
  // `squares` holds |r|^2. Returns the largest t of them.
  double encode(const float* centroid, const float* const* rows, const float* squares,
                std::size_t count, std::byte* const* blocks,
                const std::uint32_t* lanes) const;

  // Copies a code from a lane of a block to another, with its offset and scale.
  void copy(const std::byte* from, std::uint32_t from_lane, std::byte* to,
            std::uint32_t to_lane) const;

  // Where r points, as the code of one lane tells: f z^ in the basis of the rows.
  void decode(const std::byte* block, std::uint32_t lane, float* out) const;

  // A query, ready to scan with. Reusable; must not outlive the codec.
  class Query {
   public:
    void set(const PieceCodec& codec, const float* vector);
    // Of the vector, as project() gives them.
    const float* coordinates() const { return coordinates_.data(); }
    // Of rounding: in units of the offsets over those of the scales.
    float step() const { return view_.step; }

   private:
    friend class PieceCodec;
    kernels::ScanQuery view_{};
    std::vector<float> coordinates_;
    std::vector<float> sums_;  // of kBytes: -<q', level>, [piece][256]
    LevelPanels::Tables tables_;
  };
  // As ScanBlocks in kernels/table.h: keys and places of those of `count` codes whose
  // key is below `limit`.
  std::size_t scan(const Query& query, const std::byte* blocks, std::size_t count,
                   float base, float limit, std::uint32_t first, float* keys,
                   std::uint32_t* places) const;

  void save_to(storage::FileWriter& writer) const;
  static PieceCodec load_from(const storage::FileReader& reader, std::size_t dim);

 private:
  PieceCodec() = default;
  friend class Query;
  void shape();
  void derive();
  Turn turn() const {
    return options_.kind == Kind::kRabitq ? Turn::kRandom : options_.turn;
  }
  bool bytes() const { return options_.kind == Kind::kBytes; }
  std::size_t level_count() const { return bytes() ? 256 : kernels::kLinkLevels; }
  std::size_t code_bytes() const;
  // Of a block's codes.
  unsigned code_at(const std::uint8_t* codes, std::size_t lane, std::size_t p) const;
  void turn_rows(float* x) const;
  void encode_bytes(const float* units, std::size_t count, std::uint8_t* codes,
                    float* dots) const;
  std::size_t scan_bytes(const Query& query, const std::byte* blocks, std::size_t count,
                         float base, float limit, std::uint32_t first, float* keys,
                         std::uint32_t* places) const;
  void train(MatrixView<float> units, std::size_t threads, Monitor* monitor);

  std::size_t dim_ = 0;
  Options options_;
  float offset_unit_ = 1;
  float scale_unit_ = 1;
  double spread_ = 0;
  std::vector<float> mean_;
  std::vector<std::uint8_t> widths_;
  std::vector<float> levels_;  // [coordinate][level_count()]
  std::vector<float> axes_;    // of kLearnt, [coordinate][dim]

  // Derived from the above.
  std::vector<float> halves_;  // [piece][level_count()]: half the square of a level
  std::vector<float> packed_;  // of kBytes, as ScoreTile reads them: -levels
  LevelPanels panels_;         // of the others
  std::optional<RandomRotation> rotation_;
};

}  // namespace annx::codec
