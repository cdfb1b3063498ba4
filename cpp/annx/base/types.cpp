// SPDX-License-Identifier: Apache-2.0
#include "annx/base/types.h"

#include <array>
#include <span>
#include <string>

#include "annx/base/error.h"

namespace annx {
namespace {

constexpr std::array<std::string_view, kMetrics> kMetricNames = {
    "l2", "ip", "cosine", "l1", "hamming", "jaccard", "poincare"};
constexpr std::array<std::string_view, 6> kDTypeNames = {
    "float32", "float16", "bfloat16", "int8", "uint8", "bits"};

std::size_t index_of(std::span<const std::string_view> names, std::string_view name,
                     const char* argument) {
  std::string known;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
    known += (i == 0 ? "'" : ", '") + std::string(names[i]) + "'";
  }
  throw InvalidArgument(std::string(argument) + " is '" + std::string(name) +
                        "'; it must be one of " + known);
}

}  // namespace

Metric parse_metric(std::string_view name) {
  const std::span<const std::string_view> names(kMetricNames);
  return static_cast<Metric>(index_of(
      names.first(static_cast<std::size_t>(Metric::kPoincare)), name, "metric"));
}

Metric parse_any_metric(std::string_view name) {
  return static_cast<Metric>(index_of(kMetricNames, name, "metric"));
}

DType parse_dtype(std::string_view name) {
  return static_cast<DType>(index_of(kDTypeNames, name, "dtype"));
}

std::string_view name_of(Metric metric) {
  return kMetricNames.at(static_cast<std::size_t>(metric));
}

std::string_view name_of(DType dtype) {
  return kDTypeNames.at(static_cast<std::size_t>(dtype));
}

std::size_t row_bytes(DType dtype, std::size_t dim) {
  switch (dtype) {
    case DType::kFloat32: return dim * 4;
    case DType::kFloat16:
    case DType::kBFloat16: return dim * 2;
    case DType::kInt8:
    case DType::kUInt8: return dim;
    case DType::kBits: return (dim + 7) / 8;
  }
  return 0;
}

}  // namespace annx
