// SPDX-License-Identifier: Apache-2.0
// What is done to vectors before an index sees them, and to queries before a search: a
// chain of steps on float32 rows.
//
//   centre     x - m
//   pca        s * (C (x - m)), C orthonormal rows, s scales (1, or 1 / deviation)
//   rotation   R x (codec/rotation.h)
//   normalise  x / |x|, by |x| in float64; a zero vector stays zero
//   linear     A x
//   bilinear   queries only: B q, so that <B q, x> = q^T B^T x
//   mask       some elements of x
//
// Products are the canonical inner products of kernels/table.h, one for each output, so
// a row's result is the same bits by itself and in a batch, for any number of threads
// and on every instruction set; its error is at most (dim / 32 + 9) * 2^-24 of the sum
// of the absolute terms. A BLAS would be up to twice as fast on large batches, but
// gives a vector and the equal query different bits, and so a distance that is not 0.
//
// Immutable. Steps are shared between chains. O(dim * input) a row for a matrix, O(dim
// log dim) for a rotation, O(dim) for the rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/codec/rotation.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

enum class StepKind : std::uint8_t {
  kCentre,
  kPca,
  kRotation,
  kNormalise,
  kLinear,
  kBilinear,
  kMask,
};
// Throws InvalidArgument.
StepKind parse_step(std::string_view name);
std::string_view name_of(StepKind kind);

struct TransformStep {
  StepKind kind = StepKind::kNormalise;
  std::size_t input = 1;        // elements of a vector before
  std::size_t dim = 1;          // and after
  std::size_t query_input = 1;  // elements of a query before
  std::uint64_t seed = 0;       // rotation
  // Those that the kind has; the others are empty.
  storage::Array<float> shift;            // centre, pca: `input` of them
  storage::Array<float> matrix;           // pca, linear: dim x input; bilinear:
                                          // dim x query_input
  storage::Array<float> scales;           // pca: dim
  storage::Array<double> variances;       // pca: dim, of what C (x - m) was in training
  storage::Array<std::uint32_t> columns;  // mask: dim, each below `input`
  std::optional<RandomRotation> rotation;
};

class Transform {
 public:
  static constexpr std::size_t kMaxSteps = 64;
  static constexpr std::size_t kMaxDim = std::size_t{1} << 20;

  // Checks the sizes of everything against each other, and makes the rotation. Throws
  // InvalidArgument.
  explicit Transform(TransformStep step);
  // One after the other. Throws InvalidArgument where a step takes another number of
  // elements than the one before it gives.
  explicit Transform(std::span<const Transform* const> parts);

  std::size_t steps() const { return steps_.size(); }
  const TransformStep& step(std::size_t i) const { return *steps_[i]; }
  Transform part(std::size_t i) const;
  std::size_t input_dim() const { return steps_.front()->input; }
  std::size_t query_dim() const { return steps_.front()->query_input; }
  std::size_t dim() const { return steps_.back()->dim; }
  std::size_t memory_bytes() const;

  // rows.rows x dim() from rows of query_dim() or input_dim() float32. Throws
  // InvalidArgument at NaN, infinity and lengths beyond float32, in or out.
  void apply(RowsView rows, bool queries, float* out, std::size_t threads,
             Monitor* monitor) const;

  // In entries and sections that begin with "transform.". The writer borrows.
  void save_to(storage::FileWriter& writer) const;
  // Throws FormatError.
  static Transform load_from(const storage::FileReader& reader);

 private:
  Transform() = default;
  void check_joints() const;

  std::vector<std::shared_ptr<const TransformStep>> steps_;  // at least one
};

}  // namespace annx::codec
