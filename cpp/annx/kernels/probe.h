// SPDX-License-Identifier: Apache-2.0
// Any kernel of any table by name, with every argument checked: how the tests and the
// micro-benchmarks reach the kernels. Engine code calls the tables directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace annx::kernels {

// One kernel and its arguments. `query` holds `queries` rows `query_stride` bytes apart
// from its first byte, `rows` holds `count` rows `stride` bytes apart from byte
// `offset`. Where `slots` is not empty its numbers, each below `count`, say which rows
// to take.
struct Probe {
  std::string_view isa;     // "" for the table in use
  std::string_view kernel;  // rows, gather, block, cosine_rows, cosine_gather, squares,
                            // cosine_finish, narrow, widen
  std::string_view op;      // l2, dot, l1, hamming, jaccard; "" for the others
  std::string_view dtype;   // of the rows, as annx::DType; bits: dim counts bytes; or
                            // "fixed" (FixedRows in table.h)
  std::span<const std::byte> query;
  std::size_t queries = 1;
  std::size_t query_stride = 0;
  std::span<const std::byte> rows;
  std::size_t offset = 0;
  std::size_t stride = 0;
  std::size_t count = 0;
  std::size_t dim = 0;
  std::span<const std::uint32_t> slots;
  std::size_t repeat = 1;  // the same call so often, for timing
};

// Runs the kernel. `first` takes 4 bytes a result (narrow: 2 bytes an element; int32
// for 8-bit rows and hamming, else float32), `second` the squares of cosine_rows and
// cosine_gather. cosine_finish takes dots as `query` and squares as `rows`, both
// float32, the query's square being their last element. Throws InvalidArgument if a
// name is unknown, the table has no such kernel, or any extent does not fit.
void run_probe(const Probe& probe, std::span<std::byte> first,
               std::span<std::byte> second);

}  // namespace annx::kernels
