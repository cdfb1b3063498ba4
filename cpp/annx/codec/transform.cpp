// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/transform.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/square.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"

namespace annx::codec {
namespace {

constexpr std::array<std::string_view, 7> kNames = {
    "centre", "pca", "rotation", "normalise", "linear", "bilinear", "mask"};

bool has_matrix(StepKind kind) {
  return kind == StepKind::kPca || kind == StepKind::kLinear ||
         kind == StepKind::kBilinear;
}
bool has_shift(StepKind kind) {
  return kind == StepKind::kPca || kind == StepKind::kCentre;
}

void require(bool condition, const std::string& what) {
  if (!condition) throw InvalidArgument(what);
}

void check(const TransformStep& s) {
  const std::string name(name_of(s.kind));
  for (const std::size_t dim : {s.input, s.dim, s.query_input}) {
    require(dim >= 1 && dim <= Transform::kMaxDim,
            name + " has a dimension of " + std::to_string(dim) +
                "; it must be from 1 to " + std::to_string(Transform::kMaxDim));
  }
  const bool pca = s.kind == StepKind::kPca;
  const bool mask = s.kind == StepKind::kMask;
  const bool other = pca || mask || s.kind == StepKind::kLinear;
  require(other || s.dim == s.input, name + " does not change the dimension");
  require(s.kind == StepKind::kBilinear || s.query_input == s.input,
          name + " takes queries as it takes vectors");
  // No product overflows: dimensions are below 2^21.
  require(s.shift.size() == (has_shift(s.kind) ? s.input : 0) &&
              s.matrix.size() == (has_matrix(s.kind) ? s.dim * s.query_input : 0) &&
              s.scales.size() == (pca ? s.dim : 0) &&
              s.variances.size() == (pca ? s.dim : 0) &&
              s.columns.size() == (mask ? s.dim : 0),
          name + " has arrays that do not fit its dimensions");
  for (const std::uint32_t column : s.columns.span()) {
    require(column < s.input, name + " has a column of " + std::to_string(column) +
                                  "; it must be below " + std::to_string(s.input));
  }
}

// out[i][j] = <matrix row j, row i> for n rows. A single row meets the rows of the
// matrix as they lie; of more, the matrix is read once for all. Either way each product
// is the same sums.
void multiply(const float* matrix, std::size_t dim, const float* rows,
              std::size_t width, std::size_t n, float* sums, float* out) {
  const auto dots = kernels::active().float_rows[kernels::kOpDot][0];
  const std::size_t stride = width * sizeof(float);
  if (n == 1) {
    dots(rows, reinterpret_cast<const std::byte*>(matrix), stride, dim, width, out);
    return;
  }
  for (std::size_t j = 0; j < dim; ++j) {
    dots(matrix + j * width, reinterpret_cast<const std::byte*>(rows), stride, n, width,
         sums);
    for (std::size_t i = 0; i < n; ++i) out[i * dim + j] = sums[i];
  }
}

void normalise(float* row, std::size_t dim) {
  const double norm = std::sqrt(square_of(row, dim));
  for (std::size_t k = 0; k < dim; ++k) {
    row[k] = norm > 0 ? static_cast<float>(row[k] / norm) : 0.0f;
  }
}

// One thread's work on a few rows at a time, which stay in the cache from step to step.
class Pass {
 public:
  Pass(std::size_t rows, std::size_t width)
      : now_(rows * width), next_(rows * width), sums_(rows) {}

  float* start() { return now_.data(); }
  const float* result() const { return now_.data(); }

  void run(const TransformStep& step, bool queries, std::size_t n) {
    const std::size_t input = queries ? step.query_input : step.input;
    const std::size_t dim = step.dim;
    if (step.kind == StepKind::kBilinear && !queries) return;
    if (has_shift(step.kind)) {
      for (std::size_t i = 0; i < n; ++i) {
        float* row = now_.data() + i * input;
        for (std::size_t k = 0; k < input; ++k) row[k] -= step.shift[k];
      }
    }
    if (has_matrix(step.kind)) {
      multiply(step.matrix.data(), dim, now_.data(), input, n, sums_.data(),
               next_.data());
      now_.swap(next_);
    }
    for (std::size_t i = 0; i < n && !step.scales.empty(); ++i) {
      float* row = now_.data() + i * dim;
      for (std::size_t k = 0; k < dim; ++k) row[k] *= step.scales[k];
    }
    if (step.kind == StepKind::kMask) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < dim; ++k) {
          next_[i * dim + k] = now_[i * input + step.columns[k]];
        }
      }
      now_.swap(next_);
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (step.rotation) step.rotation->apply(now_.data() + i * dim);
      if (step.kind == StepKind::kNormalise) normalise(now_.data() + i * dim, dim);
    }
  }

 private:
  std::vector<float> now_;
  std::vector<float> next_;
  std::vector<float> sums_;
};

// A copy: what is borrowed would keep all of a file that was read, for ever, although
// the index behind the transform has long outgrown it.
template <class T>
storage::Array<T> owned(const storage::FileReader& reader, const std::string& name,
                        std::size_t count) {
  storage::Array<T> values = reader.array<T>(name, count);
  values.mutable_data();
  return values;
}

std::string section(std::size_t step, std::string_view name) {
  return "transform." + std::to_string(step) + "." + std::string(name);
}

}  // namespace

StepKind parse_step(std::string_view name) {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) {
    throw InvalidArgument("'" + std::string(name) + "' is no step of a transform");
  }
  return static_cast<StepKind>(at - kNames.begin());
}

std::string_view name_of(StepKind kind) {
  return kNames[static_cast<std::size_t>(kind)];
}

Transform::Transform(TransformStep step) {
  check(step);
  if (step.kind == StepKind::kRotation) step.rotation.emplace(step.dim, step.seed);
  steps_.push_back(std::make_shared<const TransformStep>(std::move(step)));
}

Transform::Transform(std::span<const Transform* const> parts) {
  for (const Transform* part : parts) {
    steps_.insert(steps_.end(), part->steps_.begin(), part->steps_.end());
  }
  check_joints();
}

void Transform::check_joints() const {
  require(!steps_.empty() && steps_.size() <= kMaxSteps,
          "a chain has " + std::to_string(steps_.size()) +
              " steps; it must have from 1 to " + std::to_string(kMaxSteps));
  for (std::size_t i = 1; i < steps_.size(); ++i) {
    const TransformStep& before = *steps_[i - 1];
    const TransformStep& step = *steps_[i];
    require(step.input == before.dim && step.query_input == before.dim,
            std::string(name_of(step.kind)) + " takes vectors of " +
                std::to_string(step.input) + " and queries of " +
                std::to_string(step.query_input) + " dimensions, but " +
                std::string(name_of(before.kind)) + " before it gives " +
                std::to_string(before.dim));
  }
}

Transform Transform::part(std::size_t i) const {
  Transform one;
  one.steps_.push_back(steps_[i]);
  return one;
}

std::size_t Transform::memory_bytes() const {
  std::size_t total = 0;
  for (const auto& step : steps_) {
    total += step->shift.held_bytes() + step->matrix.held_bytes() +
             step->scales.held_bytes() + step->variances.held_bytes() +
             step->columns.held_bytes();
    if (step->rotation) total += step->rotation->memory_bytes();
  }
  return total;
}

void Transform::apply(RowsView rows, bool queries, float* out, std::size_t threads,
                      Monitor* monitor) const {
  const std::size_t input = queries ? query_dim() : input_dim();
  storage::check_rows(DType::kFloat32, rows, input, queries ? "queries" : "vectors");
  std::size_t width = input;
  for (const auto& step : steps_) width = std::max({width, step->input, step->dim});
  // Rows that together fit the first cache, in threes, as most kernels take them.
  constexpr std::size_t kFloats = std::size_t{7} << 10;
  std::size_t together = std::clamp<std::size_t>(kFloats / width, 1, 24);
  if (together > 3) together -= together % 3;
  together = std::min(together, rows.rows);
  parallel_for(
      rows.rows, resolve_threads(threads), 4 * std::max<std::size_t>(together, 1),
      [&](std::size_t begin, std::size_t end, std::size_t) {
        Pass pass(together, width);
        for (std::size_t at = begin; at < end; at += together) {
          const std::size_t n = std::min(together, end - at);
          const auto* from = reinterpret_cast<const float*>(rows.row(at));
          std::copy_n(from, n * input, pass.start());
          for (const auto& step : steps_) pass.run(*step, queries, n);
          std::copy_n(pass.result(), n * dim(), out + at * dim());
        }
      },
      monitor);
  storage::check_rows(
      DType::kFloat32,
      {reinterpret_cast<const std::byte*>(out), rows.rows, dim() * sizeof(float)},
      dim(), queries ? "transformed queries" : "transformed vectors");
}

void Transform::save_to(storage::FileWriter& writer) const {
  writer.number("transform.steps", steps_.size());
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const TransformStep& step = *steps_[i];
    writer.text(section(i, "kind"), name_of(step.kind));
    writer.number(section(i, "input"), step.input);
    writer.number(section(i, "dim"), step.dim);
    writer.number(section(i, "query_input"), step.query_input);
    writer.number(section(i, "seed"), step.seed);
    if (has_shift(step.kind)) writer.add(section(i, "shift"), step.shift.bytes());
    if (has_matrix(step.kind)) writer.add(section(i, "matrix"), step.matrix.bytes());
    if (step.kind == StepKind::kMask) {
      writer.add(section(i, "columns"), step.columns.bytes());
    }
    if (step.kind != StepKind::kPca) continue;
    writer.add(section(i, "scales"), step.scales.bytes());
    writer.add(section(i, "variances"), step.variances.bytes());
  }
}

Transform Transform::load_from(const storage::FileReader& reader) {
  try {
    Transform transform;
    const std::size_t steps = reader.number("transform.steps", 1, kMaxSteps);
    for (std::size_t i = 0; i < steps; ++i) {
      TransformStep step;
      step.kind = parse_step(reader.text(section(i, "kind")));
      step.input = reader.number(section(i, "input"), 1, kMaxDim);
      step.dim = reader.number(section(i, "dim"), 1, kMaxDim);
      step.query_input = reader.number(section(i, "query_input"), 1, kMaxDim);
      step.seed = reader.number(section(i, "seed"));
      if (has_shift(step.kind)) {
        step.shift = owned<float>(reader, section(i, "shift"), step.input);
      }
      if (has_matrix(step.kind)) {
        step.matrix =
            owned<float>(reader, section(i, "matrix"), step.dim * step.query_input);
      }
      if (step.kind == StepKind::kMask) {
        step.columns = owned<std::uint32_t>(reader, section(i, "columns"), step.dim);
      }
      if (step.kind == StepKind::kPca) {
        step.scales = owned<float>(reader, section(i, "scales"), step.dim);
        step.variances = owned<double>(reader, section(i, "variances"), step.dim);
      }
      transform.steps_.push_back(Transform(std::move(step)).steps_.front());
    }
    transform.check_joints();
    return transform;
  } catch (const InvalidArgument& error) {
    reader.fail("meta", error.what());
  }
}

}  // namespace annx::codec
