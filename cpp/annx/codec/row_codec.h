// SPDX-License-Identifier: Apache-2.0
// The rows of a graph index: kept so that a hop reads few bytes and the final distance
// loses none.
//
// float32 rows are split in two planes. The high plane is the row rounded to bfloat16,
// the low plane the 16-bit difference of the two bit patterns, so high and low together
// are the float32 value bit for bit and take no more memory than it. Traversal reads
// the high plane alone: half the bytes, and 8 bits of mantissa, which is enough to
// steer by. Where it is not enough (clusters much tighter than their distance from one
// another), `refine_layout` finds out from the data and joins the planes into plain
// float32 rows. Dimensions whose values lie far from zero compared with their spread
// are centred first, by a multiple of a power of two, so that the rounding is relative
// to the spread.
//
// For the inner product every dimension that is off zero is centred, see
// Query::set_item.
//
// Where the caller agrees to lose digits (`narrow`), float32 rows, centred and scaled
// to length 1 as before, become fixed-point ones (kernels/table.h): whole numbers n of
// 16 bits and a step s for the row, element j being s n_j. s is the largest |x_j| /
// 32767, rounded up: to a power of two if the row then stays as it is (one of whole
// numbers of 16 bits does), else to 9 binary digits. So s n_j is a float32, and
// distances are canonical ones of the rows kept. Each element is off by up to s / 2
// (2^-135 if that is more), whatever the size of the row; half the memory. It is done
// only where it changes the distances of near pairs by less than a thousandth.
//
// Other types (float16, bfloat16, int8, uint8) are kept and traversed as they are.
//
// Where the caller wants little memory (`learn_grid`), rows of floats become 8-bit
// codes on one grid (row_grid.h): traversal compares whole numbers, the query rounded
// to the grid as well; the final distance is that of the row that the code stands for
// to the query as it came.
//
// Poincare's distance: rows are kept and traversed as they are (near the edge of the
// ball every digit counts), by the keys of base/ball.h.
//
// Cosine: float32 rows are scaled to length 1 and their length is kept beside them, so
// `decode` is exact to one unit in the last place; other types keep 1/length beside the
// row. Every zero row has cosine distance 1 to everything.
//
// Thread safety: const members may run together; others need exclusive access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/types.h"
#include "annx/codec/row_grid.h"
#include "annx/codec/scorer.h"
#include "annx/kernels/table.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

class RowCodec {
 public:
  // How float32 rows lie in memory; native for the other types. kGrid: rows of any
  // type of floats. Files have these numbers; 3 was another layout once.
  enum class Layout : std::uint8_t {
    kNative = 0,
    kSplit = 1,
    kWhole = 2,
    kGrid = 4,
    kFixed = 5
  };

  RowCodec(std::size_t dim, Metric metric, DType dtype);

  std::size_t dim() const { return dim_; }
  std::size_t size() const { return size_; }
  Metric metric() const { return metric_; }
  DType dtype() const { return dtype_; }
  Layout layout() const { return layout_; }
  // Whether float32 rows are kept relative to a centre.
  bool centred() const { return !centre_.empty(); }

  void reserve(std::size_t count);
  // Appends rows of `dtype`, `stride` bytes apart. Strong guarantee.
  void append(const std::byte* rows, std::size_t stride, std::size_t count);
  void truncate(std::size_t count);

  // The row as it was given (see above), dim values of `dtype`.
  void decode(std::size_t slot, std::byte* out) const;

  // The vector y of the row for which keys of queries are, but for a constant,
  // |q - y|^2 or -<q, y>: the row itself; for cosine scaled to length 1. `out` has room
  // for dim values.
  void vector(std::size_t slot, float* out) const;
  // |y - y'|^2 where Query::set_item gives the key between rows (not for l1 and ip).
  float square_of_key(float key) const {
    return metric_ == Metric::kCosine && dtype_ != DType::kFloat32 ? 2 * key : key;
  }

  // Of rows on a grid or in fixed point: of half of these pairs (slots, two and two)
  // the squared distance (ip: the key, in units of that) is off by no more than this
  // share, in standard deviations. 1: they have the same code. Told from the rows kept
  // alone.
  double rounding_share(const std::vector<std::uint32_t>& pairs) const;

  // Chooses the centre from the rows held. Call while the codec is small or has
  // doubled; re-encodes everything if the choice changes.
  void refine_centre();
  // Whether traversal keys misjudge the given pairs of near rows (slot, slot, ...):
  // then joins the planes, or, where rows were rounded, keeps those to come whole.
  // Returns true if the layout changed.
  bool refine_layout(const std::vector<std::uint32_t>& pairs);
  // Rounds split float32 rows to fixed point if that judges the given pairs of near
  // rows well. Returns true if the layout changed. Not for l1 and Poincare's distance.
  bool narrow(const std::vector<std::uint32_t>& pairs);
  // Learns a grid from the rows held and those to come (of `dtype`), and codes the rows
  // held. Not for 8-bit types and Poincare's distance. Strong guarantee.
  void learn_grid(RowsView to_come, std::uint64_t seed);
  // Null without one.
  const RowGrid* grid() const { return grid_.get(); }
  // The e of a row on the grid.
  std::uint8_t exponent(std::size_t slot) const {
    const std::uint8_t e = exponents_.empty() ? std::uint8_t{0} : exponents_[slot];
    return e == kZeroRow ? std::uint8_t{0} : e;
  }

  // A query in the form that traversal and the final distance need. Reusable; owns its
  // buffers. Holds a pointer to the codec.
  class Query final : public Scorer {
   public:
    // A query from outside: dim values of `dtype`, which must outlive this use.
    void set(const RowCodec& codec, const std::byte* query);
    // The row `slot` as a query, for building. Keys between rows are l2 for "l2" and
    // for float32 "cosine" (on unit rows, where it orders alike), 1 - cosine for the
    // other types, l1 for "l1", Poincare's for "poincare", and for "ip" the negated
    // inner product of the centred rows: without a centre, data far from the origin
    // would all be one another's best.
    void set_item(const RowCodec& codec, std::size_t slot);

    void score(const std::uint32_t* slots, std::size_t count,
               float* out) const override;
    std::span<const std::byte> bytes_of(std::uint32_t slot) const override;
    // The same for `exact`.
    void prefetch_exact(std::uint32_t slot) const;

    // The query as `vector` gives rows, dim values, and by how much its keys grow when
    // |q - y|^2 (for ip: -<q, y>) grows by one. Not for l1. Only after `set`.
    const float* vector(float& gain);

    // The key of a row that equals the query, from which keys grow; -inf for inner
    // products, where none is least.
    float zero_key() const;

    // How far rounding of the rows can put a key off, for rows with keys near this one:
    // not the worst case, but several standard deviations. Infinite where there is no
    // saying. Only after `set`.
    float key_error(float key) const;

    // The metric's distance, from the full row and the canonical kernel. Only after
    // `set`.
    double exact(std::uint32_t slot);
    // Whether keys are those distances already, but for their last bits.
    bool keys_are_exact() const;

   private:
    // The query in 8 bits, beside rows of one e.
    struct Coded {
      bool made = false;
      float factor = 0;         // of the kernel's number
      float base = 0;           // what every key has
      float beyond_factor = 0;  // of the products of `beyond` with rows; 0: none
      std::vector<std::int8_t> bytes;
      std::vector<std::int8_t> beyond;  // l2: by how much the query is off the grid
    };
    void set_on_grid();
    Coded& coded(std::uint8_t e) const;
    void score_coded(const Coded& coded, const std::uint32_t* slots, std::size_t count,
                     float* out) const;
    void score_on_grid(const std::uint32_t* slots, std::size_t count, float* out) const;
    double exact_on_grid(std::uint32_t slot);

    const RowCodec* codec_ = nullptr;
    const std::byte* query_ = nullptr;  // as given
    float query_norm_ = 0;              // cosine: length; an item: its scale_
    double weight_ = 0;                 // poincare: 1 / (1 - |query|^2)
    bool item_ = false;
    std::size_t item_slot_ = 0;  // on a grid
    kernels::Op op_ = kernels::kOpL2;
    std::vector<float> traversal_;  // padded, centred; float types
    std::vector<std::byte> bytes_;  // padded; 8-bit types
    std::vector<float> unit_;       // cosine: the query scaled to length 1
    std::vector<float> row_;        // a decoded row
    double base_ = 0;  // on a grid, ip: <query, centre>; cosine: |centre|^2
    mutable std::vector<Coded> coded_;     // on a grid, by e
    mutable std::vector<float> item_row_;  // what it needs to make those
    mutable std::vector<float> missing_;
    mutable std::vector<std::int32_t> integer_keys_;
  };

  std::size_t memory_bytes() const;
  // The first `count` rows.
  void save_to(storage::FileWriter& file, std::size_t count) const;
  static RowCodec load_from(const storage::FileReader& file, std::size_t count);

 private:
  friend class Query;

  // Stands for e of a zero row under cosine, whose distance its code does not tell.
  static constexpr std::uint8_t kZeroRow = 255;

  bool is_byte() const { return dtype_ == DType::kInt8 || dtype_ == DType::kUInt8; }
  // Whether rows are kept in a basis of their own: around a centre and, for cosine,
  // scaled to length 1.
  bool own_basis() const {
    return dtype_ == DType::kFloat32 || layout_ == Layout::kGrid;
  }
  bool keeps_scale() const {
    return metric_ == Metric::kCosine || metric_ == Metric::kPoincare ||
           (metric_ == Metric::kInnerProduct && !own_basis());
  }
  float native_scale(std::size_t slot, std::vector<float>& row) const;
  void set_layout(Layout layout);
  void relay(Layout layout);
  double median_error(const std::vector<std::uint32_t>& pairs, bool fixed) const;
  float step_of(std::size_t slot) const;
  void encode_float32(float* row, std::size_t slot);
  void encode_on_grid(float* row, std::size_t slot);
  void decode_centred(std::size_t slot, float* out) const;
  void decode_float32(std::size_t slot, float* out) const;
  void widen(std::size_t slot, float* out) const;

  std::size_t dim_;
  std::size_t padded_dim_;
  Metric metric_;
  DType dtype_;
  Layout layout_;
  std::size_t size_ = 0;
  std::size_t stride_ = 0;          // bytes of a high row
  std::size_t low_stride_ = 0;      // bytes of a low row
  std::size_t traversal_type_ = 0;  // DType of the high rows, as an index
  storage::Array<std::byte> high_;
  storage::Array<std::byte> low_;
  // A number a row. Cosine: its length (float32) or 1/length (others); Poincare:
  // 1 / (1 - |row|^2); inner product on other types than float32: <row, centre>.
  storage::Array<float> scale_;
  storage::Array<float> centre_;  // padded_dim_ values; empty while all are zero
  std::unique_ptr<RowGrid> grid_;
  storage::Array<std::uint8_t> exponents_;  // of the grid; empty while all are 0
};

}  // namespace annx::codec
