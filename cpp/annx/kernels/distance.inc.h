// SPDX-License-Identifier: Apache-2.0
// The distance loops, written once over the primitives of simd_*.h. Included by every
// isa_*.cpp after its primitives, with ANNX_ISA_NS set to the instruction set's namespace.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

struct TermL2 {
  static F32 add(F32 q, F32 x, F32 s) {
    const F32 d = f32_sub(q, x);
    return f32_fma(d, d, s);
  }
};
struct TermDot {
  static F32 add(F32 q, F32 x, F32 s) { return f32_fma(q, x, s); }
};
struct TermL1 {
  static F32 add(F32 q, F32 x, F32 s) { return f32_add(s, f32_abs(f32_sub(q, x))); }
};

// One row: element i to lane i % 32, in order of i (see table.h).
template <class Term, class Load>
inline float float_pair(const float* query, const std::byte* row, std::size_t dim) {
  const auto* q = reinterpret_cast<const std::byte*>(query);
  F32 s = f32_zero();
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    s = Term::add(f32_load<LoadF32>(q + i * 4), f32_load<Load>(row + i * Load::kBytes), s);
  }
  if (i < dim) {
    s = Term::add(f32_load_n<LoadF32>(q + i * 4, dim - i),
                  f32_load_n<Load>(row + i * Load::kBytes, dim - i), s);
  }
  return f32_fold(s);
}

template <class Term, class Load>
void float_rows(const float* query, const std::byte* rows, std::size_t stride,
                std::size_t count, std::size_t dim, float* out) {
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = float_pair<Term, Load>(query, rows + i * stride, dim);
  }
}

// Rows this far ahead in the list are asked for while the current one is summed.
inline constexpr std::size_t kAhead = 4;

inline void prefetch_row(const std::byte* row, std::size_t bytes) {
  for (std::size_t offset = 0; offset < bytes; offset += 64) prefetch(row + offset);
}

template <class Pair, class Out, class Query>
void gather(const Query* query, const std::byte* rows, std::size_t stride,
            const std::uint32_t* slots, std::size_t count, std::size_t dim,
            std::size_t bytes, Out* out) {
  const std::size_t head = count < kAhead ? count : kAhead;
  for (std::size_t i = 0; i < head; ++i) prefetch_row(rows + slots[i] * stride, bytes);
  for (std::size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) prefetch_row(rows + slots[i + kAhead] * stride, bytes);
    out[i] = Pair::of(query, rows + slots[i] * stride, dim);
  }
}

template <class Term, class Load>
struct FloatPair {
  static float of(const float* q, const std::byte* row, std::size_t dim) {
    return float_pair<Term, Load>(q, row, dim);
  }
};
template <class Term, class Load>
void float_gather(const float* query, const std::byte* rows, std::size_t stride,
                  const std::uint32_t* slots, std::size_t count, std::size_t dim,
                  float* out) {
  gather<FloatPair<Term, Load>>(query, rows, stride, slots, count, dim,
                                dim * Load::kBytes, out);
}

template <class Load>
struct ByteL2 {
  static std::int32_t of(const std::byte* q, const std::byte* row, std::size_t dim) {
    return i32_fold(i32_l2<Load>(q, row, dim, i32_zero()));
  }
};
template <class Load>
struct ByteDot {
  static std::int32_t of(const std::byte* q, const std::byte* row, std::size_t dim) {
    return i32_fold(i32_dot<Load>(q, row, dim, i32_zero()));
  }
};
template <class Load>
struct ByteL1 {
  static std::int32_t of(const std::byte* q, const std::byte* row, std::size_t dim) {
    return i32_fold(i32_l1<Load>(q, row, dim, i32_zero()));
  }
};

template <class Pair>
void byte_rows(const std::byte* query, const std::byte* rows, std::size_t stride,
               std::size_t count, std::size_t dim, std::int32_t* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = Pair::of(query, rows + i * stride, dim);
}
template <class Pair>
void byte_gather(const std::byte* query, const std::byte* rows, std::size_t stride,
                 const std::uint32_t* slots, std::size_t count, std::size_t dim,
                 std::int32_t* out) {
  gather<Pair>(query, rows, stride, slots, count, dim, dim, out);
}

#define ANNX_FLOAT_ROW(kernel, Term) \
  { &kernel<Term, LoadF32>, &kernel<Term, LoadF16>, &kernel<Term, LoadBF16> }
#define ANNX_BYTE_ROW(kernel, Pair) \
  { &kernel<Pair<LoadI8>>, &kernel<Pair<LoadU8>> }

constexpr KernelTable make_table(const char* isa) {
  return KernelTable{
      isa,
      {ANNX_FLOAT_ROW(float_rows, TermL2), ANNX_FLOAT_ROW(float_rows, TermDot),
       ANNX_FLOAT_ROW(float_rows, TermL1)},
      {ANNX_FLOAT_ROW(float_gather, TermL2), ANNX_FLOAT_ROW(float_gather, TermDot),
       ANNX_FLOAT_ROW(float_gather, TermL1)},
      {ANNX_BYTE_ROW(byte_rows, ByteL2), ANNX_BYTE_ROW(byte_rows, ByteDot),
       ANNX_BYTE_ROW(byte_rows, ByteL1)},
      {ANNX_BYTE_ROW(byte_gather, ByteL2), ANNX_BYTE_ROW(byte_gather, ByteDot),
       ANNX_BYTE_ROW(byte_gather, ByteL1)},
  };
}

}  // namespace

const KernelTable& table() {
  static constexpr KernelTable kTable = make_table(ANNX_ISA_NAME);
  return kTable;
}

}  // namespace annx::kernels::ANNX_ISA_NS
