// SPDX-License-Identifier: Apache-2.0
// The loops over 8-bit rows, exact in int32, written once over the primitives of
// simd_*.h. Included after distance.inc.h, whose Parts, for_groups and Ahead it uses.
//
// Primitives used: B (kByteStep bytes), b_load, b_part (the last n < kByteStep bytes of
// a row, other lanes zero in query and row alike, so that they add nothing), I (int32
// sums), i_zero, i_fold; and per operation and type a term Byte*<T> with
//   Query       what is kept of kByteStep bytes of the query,
//   kSums       sums a row needs: 1, or 2 where a row's own correction is needed,
//   query(B), add(Query, B, I), and Shared: sums over the query alone, added once a
//   group and combined by `finish` (VNNI needs it for the sign).

namespace annx::kernels::ANNX_ISA_NS {
namespace {

// out[a * out_stride + r] = Term(queries[a], rows[r]) for Q queries and R rows.
template <class Term, int Q, int R, class Fetch = NoneLater>
ANNX_INLINE void byte_tile(const std::byte* const* queries,
                           const std::byte* const* rows, std::size_t dim,
                           std::int32_t* out, std::size_t out_stride,
                           const Fetch& fetch = {}) {
  I s[Q][R];
  typename Term::Shared shared[Q];
  ANNX_UNROLL
  for (int a = 0; a < Q; ++a) {
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) s[a][r] = i_zero();
  }
  std::size_t i = 0;
  for (; i + kByteStep <= dim; i += kByteStep) {
    if (i % 64 == 0) fetch.lines(i, i + 64);
    typename Term::Query q[Q];
    ANNX_UNROLL
    for (int a = 0; a < Q; ++a) {
      const B bytes = b_load(queries[a] + i);
      q[a] = Term::query(bytes);
      shared[a].add(bytes);
    }
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const typename Term::Row x = Term::row(b_load(rows[r] + i));
      ANNX_UNROLL
      for (int a = 0; a < Q; ++a) s[a][r] = Term::add(q[a], x, s[a][r]);
    }
  }
  fetch.rest(i, dim);
  if (i < dim) {
    typename Term::Query q[Q];
    ANNX_UNROLL
    for (int a = 0; a < Q; ++a) {
      const B bytes = b_part(queries[a], i, dim - i, dim);
      q[a] = Term::query(bytes);
      shared[a].add(bytes);
    }
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const typename Term::Row x = Term::row(b_part(rows[r], i, dim - i, dim));
      ANNX_UNROLL
      for (int a = 0; a < Q; ++a) s[a][r] = Term::add(q[a], x, s[a][r]);
    }
  }
  ANNX_UNROLL
  for (int a = 0; a < Q; ++a) {
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) s[a][r] = shared[a].finish(s[a][r]);
    i_fold<R>(s[a], out + static_cast<std::size_t>(a) * out_stride);
  }
}

template <class Term>
void byte_rows(const std::byte* query, const std::byte* rows, std::size_t stride,
               std::size_t count, std::size_t dim, std::int32_t* out) {
  const Parts<kByteGroup> parts(count, stride);
  for (std::size_t g = 0; g < parts.groups; ++g) {
    const std::size_t i = g * parts.advance;
    const std::byte* group[kByteGroup];
    ANNX_UNROLL
    for (int r = 0; r < kByteGroup; ++r) {
      group[r] = rows + (i + static_cast<std::size_t>(r) * parts.step) * stride;
    }
    std::int32_t sums[kByteGroup];
    byte_tile<Term, 1, kByteGroup>(&query, group, dim, sums, 0);
    ANNX_UNROLL
    for (int r = 0; r < kByteGroup; ++r) {
      out[i + static_cast<std::size_t>(r) * parts.step] = sums[r];
    }
  }
  for (std::size_t i = parts.rows(); i < count; ++i) {
    const std::byte* row = rows + i * stride;
    byte_tile<Term, 1, 1>(&query, &row, dim, out + i, 0);
  }
}

template <class Term>
void byte_gather(const std::byte* query, const std::byte* rows, std::size_t stride,
                 const std::uint32_t* slots, std::size_t count, std::size_t dim,
                 std::int32_t* out) {
  gather_groups<kByteGroup>(
      rows, stride, slots, count, dim,
      [&](std::size_t i, const auto& group, const Later<kByteGroup>& later) {
        byte_tile<Term, 1, kByteGroup>(&query, group, dim, out + i, 0, later);
      },
      [&](std::size_t i, const std::byte* row) {
        byte_tile<Term, 1, 1>(&query, &row, dim, out + i, 0);
      });
}

// Tiles of two queries by kByteTileRows rows; the rows of a tile stay in cache for the
// next pair of queries when rows are taken in strips.
template <class Term>
void byte_block(const std::byte* queries, std::size_t query_stride,
                std::size_t query_count, const std::byte* rows, std::size_t row_stride,
                std::size_t row_count, std::size_t dim, std::int32_t* out,
                std::size_t out_stride) {
  std::size_t j = 0;
  for (; j + kByteTileRows <= row_count; j += kByteTileRows) {
    const std::byte* group[kByteTileRows];
    ANNX_UNROLL
    for (int r = 0; r < kByteTileRows; ++r) {
      group[r] = rows + (j + static_cast<std::size_t>(r)) * row_stride;
    }
    std::size_t i = 0;
    for (; i + 2 <= query_count; i += 2) {
      const std::byte* pair[2] = {queries + i * query_stride,
                                  queries + (i + 1) * query_stride};
      byte_tile<Term, 2, kByteTileRows>(pair, group, dim, out + i * out_stride + j,
                                        out_stride);
    }
    if (i < query_count) {
      const std::byte* query = queries + i * query_stride;
      byte_tile<Term, 1, kByteTileRows>(&query, group, dim, out + i * out_stride + j,
                                        0);
    }
  }
  for (std::size_t i = 0; i < query_count && j < row_count; ++i) {
    byte_rows<Term>(queries + i * query_stride, rows + j * row_stride, row_stride,
                    row_count - j, dim, out + i * out_stride + j);
  }
}

template <class Dot>
void byte_squares(const std::byte* rows, std::size_t stride, std::size_t count,
                  std::size_t dim, std::int32_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* row = rows + i * stride;
    byte_tile<Dot, 1, 1>(&row, &row, dim, out + i, 0);
  }
}

// Both of cosine's sums for R rows.
template <class Dot, int R, class Fetch = NoneLater>
ANNX_INLINE void byte_cosine(const std::byte* query, const std::byte* const* rows,
                             std::size_t dim, std::int32_t* dots, std::int32_t* squares,
                             const Fetch& fetch = {}) {
  I dot[R];
  I square[R];
  typename Dot::Shared of_query;
  typename Dot::Shared of_row[R];
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) dot[r] = square[r] = i_zero();
  const auto step = [&](B bytes, auto row) {
    const typename Dot::Query q = Dot::query(bytes);
    of_query.add(bytes);
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const B y = row(rows[r]);
      const typename Dot::Row x = Dot::row(y);
      of_row[r].add(y);
      dot[r] = Dot::add(q, x, dot[r]);
      square[r] = Dot::add(Dot::query(y), x, square[r]);
    }
  };
  std::size_t i = 0;
  for (; i + kByteStep <= dim; i += kByteStep) {
    if (i % 64 == 0) fetch.lines(i, i + 64);
    step(b_load(query + i), [&](const std::byte* row) { return b_load(row + i); });
  }
  fetch.rest(i, dim);
  if (i < dim) {
    step(b_part(query, i, dim - i, dim),
         [&](const std::byte* row) { return b_part(row, i, dim - i, dim); });
  }
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    dot[r] = of_query.finish(dot[r]);
    square[r] = of_row[r].finish(square[r]);
  }
  i_fold<R>(dot, dots);
  i_fold<R>(square, squares);
}

template <class Dot>
void byte_cosine_rows(const std::byte* query, const std::byte* rows, std::size_t stride,
                      std::size_t count, std::size_t dim, std::int32_t* dots,
                      std::int32_t* squares) {
  const Parts<kByteGroup> parts(count, stride);
  for (std::size_t g = 0; g < parts.groups; ++g) {
    const std::size_t i = g * parts.advance;
    const std::byte* group[kByteGroup];
    ANNX_UNROLL
    for (int r = 0; r < kByteGroup; ++r) {
      group[r] = rows + (i + static_cast<std::size_t>(r) * parts.step) * stride;
    }
    std::int32_t sums[2][kByteGroup];
    byte_cosine<Dot, kByteGroup>(query, group, dim, sums[0], sums[1]);
    ANNX_UNROLL
    for (int r = 0; r < kByteGroup; ++r) {
      dots[i + static_cast<std::size_t>(r) * parts.step] = sums[0][r];
      squares[i + static_cast<std::size_t>(r) * parts.step] = sums[1][r];
    }
  }
  for (std::size_t i = parts.rows(); i < count; ++i) {
    const std::byte* row = rows + i * stride;
    byte_cosine<Dot, 1>(query, &row, dim, dots + i, squares + i);
  }
}

template <class Dot>
void byte_cosine_gather(const std::byte* query, const std::byte* rows,
                        std::size_t stride, const std::uint32_t* slots,
                        std::size_t count, std::size_t dim, std::int32_t* dots,
                        std::int32_t* squares) {
  gather_groups<kByteGroup>(
      rows, stride, slots, count, dim,
      [&](std::size_t i, const auto& group, const Later<kByteGroup>& later) {
        byte_cosine<Dot, kByteGroup>(query, group, dim, dots + i, squares + i, later);
      },
      [&](std::size_t i, const std::byte* row) {
        byte_cosine<Dot, 1>(query, &row, dim, dots + i, squares + i);
      });
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
