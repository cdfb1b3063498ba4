// SPDX-License-Identifier: Apache-2.0
#include "annx/kernels/probe.h"

#include <algorithm>
#include <string>

#include "annx/base/aligned_buffer.h"
#include "annx/base/error.h"
#include "annx/base/types.h"
#include "annx/kernels/dispatch.h"

namespace annx::kernels {
namespace {

[[noreturn]] void refuse(const Probe& p, const std::string& why) {
  throw InvalidArgument("kernel '" + std::string(p.kernel) + "' of op '" +
                        std::string(p.op) + "' over " + std::string(p.dtype) + ": " +
                        why);
}

void require(const Probe& p, bool fits, const char* why) {
  if (!fits) refuse(p, why);
}

// Whether n rows of `bytes` bytes, `stride` apart from `offset`, lie within `size`.
bool fits(std::size_t offset, std::size_t stride, std::size_t n, std::size_t bytes,
          std::size_t size) {
  if (n == 0) return true;
  if (offset > size || bytes > size - offset) return false;
  return n == 1 || stride <= (size - offset - bytes) / (n - 1);
}

const float* floats(std::span<const std::byte> s) {
  return reinterpret_cast<const float*>(s.data());
}
float* floats(std::span<std::byte> s) { return reinterpret_cast<float*>(s.data()); }
std::int32_t* ints(std::span<std::byte> s) {
  return reinterpret_cast<std::int32_t*>(s.data());
}

std::size_t op_index(const Probe& p) {
  if (p.op == "l2") return kOpL2;
  if (p.op == "dot") return kOpDot;
  if (p.op == "l1") return kOpL1;
  refuse(p, "the op must be 'l2', 'dot' or 'l1'");
}

template <class Call>
void repeat(const Probe& p, Call call) {
  for (std::size_t i = 0; i < p.repeat; ++i) call();
}

// The shapes that every element type has; Query is float, or std::byte for 8 bits and
// bits.
template <class Out, class Query, class Rows, class Gather>
void rows_or_gather(const Probe& p, const Query* query, const std::byte* base,
                    Rows rows, Gather gather, Out* out) {
  if (p.kernel == "rows") {
    repeat(p, [&] { rows(query, base, p.stride, p.count, p.dim, out); });
  } else {
    repeat(p, [&] {
      gather(query, base, p.stride, p.slots.data(), p.slots.size(), p.dim, out);
    });
  }
}

template <class Out, class Query, class Rows, class Gather>
void cosine(const Probe& p, const Query* query, const std::byte* base, Rows rows,
            Gather gather, Out* dots, Out* squares) {
  if (p.kernel == "cosine_rows") {
    repeat(p, [&] { rows(query, base, p.stride, p.count, p.dim, dots, squares); });
  } else {
    repeat(p, [&] {
      gather(query, base, p.stride, p.slots.data(), p.slots.size(), p.dim, dots,
             squares);
    });
  }
}

template <class Out, class Block>
void block(const Probe& p, const std::byte* base, Block kernel, Out* out) {
  repeat(p, [&] {
    kernel(p.query.data(), p.query_stride, p.queries, base, p.stride, p.count, p.dim,
           out, p.count);
  });
}

void fixed(const Probe& p, const KernelTable& table, const std::byte* base,
           float* out) {
  const std::size_t op = op_index(p);
  require(p, op < kFixedOps, "fixed-point rows have l2 and dot alone");
  rows_or_gather(p, floats(p.query), base, table.fixed_rows[op], table.fixed_gather[op],
                 out);
}

// Inner products by the register tiles of exact search. Packing happens once, as it
// does there for a block of rows that many queries pass.
void tile_block(const Probe& p, const float* rows, const TileKernels& tile,
                float* out) {
  const auto panels = [](std::size_t n, std::size_t width) {
    return (n + width - 1) / width;
  };
  const std::size_t query_panels = panels(p.queries, tile.queries);
  const std::size_t row_panels = panels(p.count, tile.rows);
  const std::size_t stride = row_panels * tile.rows;
  const auto room = [](std::size_t n) { return AlignedBuffer(n * sizeof(float)); };
  AlignedBuffer left = room(query_panels * tile.queries * p.dim);
  AlignedBuffer right = room(stride * p.dim);
  AlignedBuffer sums = room(query_panels * tile.queries * stride);
  const auto as_floats = [](AlignedBuffer& b) {
    return reinterpret_cast<float*>(b.data());
  };
  tile.pack_queries(floats(p.query), p.query_stride / sizeof(float), p.queries, p.dim,
                    nullptr, nullptr, 1.0f, as_floats(left), nullptr);
  tile.pack_rows(rows, p.stride / sizeof(float), p.count, p.dim, nullptr, nullptr, 1.0f,
                 as_floats(right), nullptr);
  repeat(p, [&] {
    tile.block(as_floats(left), query_panels, as_floats(right), row_panels, p.dim,
               nullptr, as_floats(sums), stride);
  });
  for (std::size_t i = 0; i < p.queries; ++i) {
    std::copy_n(as_floats(sums) + i * stride, p.count, out + i * p.count);
  }
}

}  // namespace

void run_probe(const Probe& p, std::span<std::byte> first,
               std::span<std::byte> second) {
  const KernelTable& table = p.isa.empty() ? active() : table_for(p.isa);
  const std::byte* base = p.rows.data() + p.offset;

  if (p.kernel == "cosine_finish") {
    const std::size_t bytes = p.count * sizeof(float);
    require(p,
            p.query.size() >= bytes + sizeof(float) && p.rows.size() >= bytes &&
                first.size() >= bytes,
            "count exceeds the arrays");
    if (p.dtype == "int8" || p.dtype == "uint8") {
      const auto* dots = reinterpret_cast<const std::int32_t*>(p.query.data());
      const auto* squares = reinterpret_cast<const std::int32_t*>(p.rows.data());
      repeat(p, [&] {
        table.byte_cosine_finish(dots[p.count], dots, squares, p.count, floats(first));
      });
      return;
    }
    repeat(p, [&] {
      table.cosine_finish(floats(p.query)[p.count], floats(p.query), floats(p.rows),
                          p.count, floats(first));
    });
    return;
  }

  // The same checks as for rows of floats, in another width.
  const bool is_fixed = p.dtype == "fixed";
  require(p, !is_fixed || p.kernel == "rows" || p.kernel == "gather",
          "fixed-point rows have the kernels rows and gather alone");
  const DType dtype = is_fixed ? DType::kFloat16 : parse_dtype(p.dtype);
  const auto type = static_cast<std::size_t>(dtype);
  if (p.kernel == "narrow") {
    require(p, type < kFloatTypes, "the type must be a float type");
    require(p,
            p.offset == 0 && p.rows.size() >= p.dim * sizeof(float) &&
                first.size() >= row_bytes(dtype, p.dim),
            "dim exceeds the arrays");
    repeat(p, [&] { table.narrow[type](floats(p.rows), p.dim, first.data()); });
    return;
  }
  const std::size_t width = (is_fixed ? kFixedHead : 0) +
                            (dtype == DType::kBits ? p.dim  // bits: dim is in bytes
                                                   : row_bytes(dtype, p.dim));
  require(p, fits(p.offset, p.stride, p.count, width, p.rows.size()),
          "a row lies outside rows");
  if (p.kernel == "widen") {
    require(p, dtype != DType::kBits, "bits do not widen");
    require(p, p.count == 1 && first.size() >= p.dim * sizeof(float),
            "dim exceeds the arrays");
    repeat(p, [&] { table.widen[type](base, p.dim, floats(first)); });
    return;
  }

  const bool gathers = p.kernel == "gather" || p.kernel == "cosine_gather";
  const bool two = p.kernel == "cosine_rows" || p.kernel == "cosine_gather";
  const bool squares = p.kernel == "squares";
  const bool blocks = p.kernel == "block";
  require(p, gathers || two || squares || blocks || p.kernel == "rows",
          "no such kernel; known are rows, gather, block, cosine_rows, cosine_gather, "
          "squares, cosine_finish, narrow, widen");
  for (const std::uint32_t slot : p.slots) {
    require(p, slot < p.count, "a slot is not below count");
  }
  const std::size_t results = (gathers ? p.slots.size() : p.count) * p.queries;
  require(p, blocks || p.queries == 1, "only block takes more than one query");
  require(p, first.size() / 4 >= results && (!two || second.size() / 4 >= results),
          "the results do not fit the output");
  const bool is_float = type < kFloatTypes;
  if (!squares) {
    require(p,
            fits(0, p.query_stride, p.queries, is_float ? p.dim * sizeof(float) : width,
                 p.query.size()),
            "a query lies outside query");
  }

  if (dtype == DType::kBits) {
    const bool hamming = p.op == "hamming";
    require(p, hamming || p.op == "jaccard", "the op must be 'hamming' or 'jaccard'");
    require(p, !two && !squares, "bits have no such kernel");
    if (blocks) {
      if (hamming) {
        block(p, base, table.hamming_block, ints(first));
      } else {
        block(p, base, table.jaccard_block, floats(first));
      }
    } else if (hamming) {
      rows_or_gather(p, p.query.data(), base, table.hamming_rows, table.hamming_gather,
                     ints(first));
    } else {
      rows_or_gather(p, p.query.data(), base, table.jaccard_rows, table.jaccard_gather,
                     floats(first));
    }
  } else if (is_fixed) {
    fixed(p, table, base, floats(first));
  } else if (is_float) {
    if (blocks) {
      require(p, dtype == DType::kFloat32 && p.op == "dot", "tiles are dot of float32");
      require(p,
              p.stride % sizeof(float) == 0 && p.query_stride % sizeof(float) == 0 &&
                  p.offset % sizeof(float) == 0,
              "strides and offset must be whole floats");
      tile_block(p, reinterpret_cast<const float*>(base), table.tile, floats(first));
    } else if (squares) {
      repeat(p, [&] {
        table.float_squares[type](base, p.stride, p.count, p.dim, floats(first));
      });
    } else if (two) {
      cosine(p, floats(p.query), base, table.float_cosine_rows[type],
             table.float_cosine_gather[type], floats(first), floats(second));
    } else {
      const std::size_t op = op_index(p);
      rows_or_gather(p, floats(p.query), base, table.float_rows[op][type],
                     table.float_gather[op][type], floats(first));
    }
  } else {
    require(p, p.dim <= kMaxDim8, "dim exceeds 33025");
    const std::size_t byte = type - kFloatTypes;
    if (squares) {
      repeat(p, [&] {
        table.byte_squares[byte](base, p.stride, p.count, p.dim, ints(first));
      });
    } else if (two) {
      cosine(p, p.query.data(), base, table.byte_cosine_rows[byte],
             table.byte_cosine_gather[byte], ints(first), ints(second));
    } else if (blocks) {
      block(p, base, table.byte_block[op_index(p)][byte], ints(first));
    } else {
      const std::size_t op = op_index(p);
      rows_or_gather(p, p.query.data(), base, table.byte_rows[op][byte],
                     table.byte_gather[op][byte], ints(first));
    }
  }
}

}  // namespace annx::kernels
