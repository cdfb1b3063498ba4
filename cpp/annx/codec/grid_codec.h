// SPDX-License-Identifier: Apache-2.0
// Codes of 2 to 8 bits a coordinate for what is left of a row after its list's
// centroid: what an inverted file takes its second look at instead of the row. For r =
// x - c and with q' = q - m, c' = c - m as in piece_codec.h,
//     l2:  |q - x|^2 ~ |q - c|^2 + offset + scale <q', z^>       ip: without the
//     offset,
// where z^ is what the code stands for:
//   scalar   z^_k = low_k + step_k u_k, so that r ~ z^: 2^bits even steps between ends
//            that are chosen for every coordinate, by the least square error over a
//            sample. scale -2 (ip: -1), offset |z^|^2 + 2 <c', z^>, so the key is the
//            distance of the row that the code stands for.
//   rabitq   z^_k = u_k - (2^bits - 1) / 2 for coordinates that were rotated at random,
//            r ~ f z^ with f = |r|^2 / <r, z^>, so that the product of r with itself is
//            exact and the estimate right on average over rotations (Gao et al.,
//            "Practical and asymptotically optimal quantization", 2024). The grid's
//            width is chosen for each row so that the angle of r and z^ is small: the
//            best of kWidths, and then every u_k once tried one up and one down. That
//            is within about 2 % of the least square error from 64 dimensions on.
//            Offset |r|^2 + 2 f <c', z^>, scale -2 f (ip: -f).
// The error of rabitq is that of piece_codec.h, |error| <= eps |q - c| f t / sqrt(d -
// 1) but for a share of exp(-eps^2 / 2), with a t that halves with every bit.
//
// <q', z^> is made of whole numbers: q' (scalar: q'_k step_k) is rounded to 16 bits, in
// two halves of 8, so that the kernels of 8-bit rows serve: a 250th of
// the error that 8-bit codes leave.
//
// A row: float32 offset, for rabitq float32 scale, then the code. 8 bits: a byte a
// coordinate, u - 128. Fewer: planes of the 4, 2 and 1 bits that make up `bits`, the
// upper bits first, in groups of 8 coordinates (pack() says how).
//
// O(kWidths d) to code, O(d) to estimate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/storage/file.h"

namespace annx::codec {

class GridCodec {
 public:
  enum class Kind : std::uint8_t { kScalar = 0, kRabitq = 1 };

  struct Options {
    Kind kind = Kind::kScalar;
    std::size_t bits = 8;   // 2 to 8
    bool products = false;  // keys are negated inner products
  };

  // `residuals`, a sample, is looked at by kScalar only.
  GridCodec(MatrixView<float> residuals, const Options& options);

  const Options& options() const { return options_; }
  // Of one row.
  std::size_t row_bytes() const { return head() + code_bytes(); }
  std::size_t memory_bytes() const {
    return (lows_.size() + steps_.size()) * sizeof(float);
  }

  // Memory that encode() works in.
  struct Work {
    std::vector<float> residual;
    std::vector<std::uint8_t> code;
    std::vector<std::uint8_t> trial;
  };
  // Codes a row: c' and x' as the header says (rabitq: rotated).
  void encode(const float* centroid, const float* row, Work& work,
              std::byte* out) const;
  // r as the code tells, in the same basis.
  void decode(const std::byte* row, float* out) const;

  class Query {
   public:
    // q', in the basis of the codes.
    void set(const GridCodec& codec, const float* vector);
    // out[i] = the key of row slots[i]; `bases` holds |q - c|^2 of its list (ip:
    // -<q, c>).
    void keys(const std::byte* rows, const std::uint32_t* slots, const float* bases,
              std::size_t count, float* out);

   private:
    const GridCodec* codec_ = nullptr;
    std::vector<std::int8_t> upper_;  // 16-bit numbers are 256 upper + lower
    std::vector<std::int8_t> lower_;
    std::vector<std::uint8_t> code_;
    double step_ = 0;
    double bias_ = 0;
  };

  void save_to(storage::FileWriter& writer) const;
  static GridCodec load_from(const storage::FileReader& reader, std::size_t dim,
                             const Options& options);

 private:
  GridCodec(std::size_t dim, const Options& options) : dim_(dim), options_(options) {}

  std::size_t head() const {
    return (options_.kind == Kind::kRabitq ? 2 : 1) * sizeof(float);
  }
  std::size_t code_bytes() const {
    return options_.bits == 8 ? dim_ : (dim_ + 7) / 8 * options_.bits;
  }
  // What the kernels are given for u, less u.
  float shift() const { return options_.bits == 8 ? 128.0f : 0.0f; }
  float middle() const { return 0.5f * static_cast<float>((1u << options_.bits) - 1); }
  void train(MatrixView<float> residuals);
  void choose(const float* unit, std::size_t bits, Work& work) const;
  void pack(const std::uint8_t* code, std::byte* out) const;
  void unpack(const std::byte* in, std::uint8_t* code) const;

  std::size_t dim_ = 0;
  Options options_;
  std::vector<float> lows_;   // scalar
  std::vector<float> steps_;  // scalar
};

}  // namespace annx::codec
