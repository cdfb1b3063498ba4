// SPDX-License-Identifier: Apache-2.0
// The loops over float rows, written once over the primitives of simd_*.h: l2, dot, l1,
// cosine's two sums and squared norms (see table.h for the order of the sums).
//
// A group of kFloatGroup rows is summed at a time: the query is loaded once for all,
// and there are enough independent sums to hide the latency of a fused multiply-add.
// Each row's lanes are its own, so a row's result is the same in a group and by itself.
//
// Primitives used: V (kWidth float lanes, kRegs of them make the 32), v_zero, v_add,
// v_sub, v_abs, v_fma, Load*::full and ::part, v_fold, prefetch.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

struct TermL2 {
  static constexpr bool kUsesQuery = true;
  static ANNX_INLINE V add(V q, V x, V s) {
    const V d = v_sub(q, x);
    return v_fma(d, d, s);
  }
};
struct TermDot {
  static constexpr bool kUsesQuery = true;
  static ANNX_INLINE V add(V q, V x, V s) { return v_fma(q, x, s); }
};
struct TermL1 {
  static constexpr bool kUsesQuery = true;
  static ANNX_INLINE V add(V q, V x, V s) { return v_add(s, v_abs(v_sub(q, x))); }
};
struct TermSquare {
  static constexpr bool kUsesQuery = false;
  static ANNX_INLINE V add(V, V x, V s) { return v_fma(x, x, s); }
};

// out[r] = sum over the elements of Term(query, rows[r]) for R rows.
template <class Term, class Load, int R>
ANNX_INLINE void float_group(const float* query, const std::byte* const* rows,
                             std::size_t dim, float* out) {
  const auto* q = reinterpret_cast<const std::byte*>(query);
  V s[R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) {
      const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
      V qv = v_zero();
      if constexpr (Term::kUsesQuery) qv = LoadF32::full(q + at * 4);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        s[r][j] = Term::add(qv, Load::full(rows[r] + at * Load::kBytes), s[r][j]);
      }
    }
  }
  // The tail goes to the same lanes: whole registers first, then a part of one.
  ANNX_UNROLL
  for (int j = 0; j < kRegs; ++j) {
    if (i >= dim) break;
    const std::size_t left = dim - i;
    if (left >= static_cast<std::size_t>(kWidth)) {
      V qv = v_zero();
      if constexpr (Term::kUsesQuery) qv = LoadF32::full(q + i * 4);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        s[r][j] = Term::add(qv, Load::full(rows[r] + i * Load::kBytes), s[r][j]);
      }
    } else {
      V qv = v_zero();
      if constexpr (Term::kUsesQuery) qv = LoadF32::part(q, i, left, dim);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        s[r][j] = Term::add(qv, Load::part(rows[r], i, left, dim), s[r][j]);
      }
    }
    i += static_cast<std::size_t>(kWidth);
  }
  v_fold<R>(s, out);
}

// Both of cosine's sums for one row, which has as many independent sums as two rows.
template <class Load>
ANNX_INLINE void float_cosine(const float* query, const std::byte* row, std::size_t dim,
                              float* dot, float* square) {
  const auto* q = reinterpret_cast<const std::byte*>(query);
  V s[2][kRegs];
  ANNX_UNROLL
  for (int j = 0; j < kRegs; ++j) s[0][j] = s[1][j] = v_zero();
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) {
      const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
      const V x = Load::full(row + at * Load::kBytes);
      s[0][j] = v_fma(LoadF32::full(q + at * 4), x, s[0][j]);
      s[1][j] = v_fma(x, x, s[1][j]);
    }
  }
  ANNX_UNROLL
  for (int j = 0; j < kRegs; ++j) {
    if (i >= dim) break;
    const std::size_t left = dim - i;
    const bool whole = left >= static_cast<std::size_t>(kWidth);
    const V x =
        whole ? Load::full(row + i * Load::kBytes) : Load::part(row, i, left, dim);
    const V y = whole ? LoadF32::full(q + i * 4) : LoadF32::part(q, i, left, dim);
    s[0][j] = v_fma(y, x, s[0][j]);
    s[1][j] = v_fma(x, x, s[1][j]);
    i += static_cast<std::size_t>(kWidth);
  }
  float sums[2];
  v_fold<2>(s, sums);
  *dot = sums[0];
  *square = sums[1];
}

// More contiguous bytes than this in one call are taken to come from memory. Then rows
// of kLongRow bytes and more are summed one by one: several rows abreast read as
// several streams within a page, which the hardware prefetcher follows up to 30 % more
// slowly.
inline constexpr std::size_t kStreamBytes = 384 * 1024;
inline constexpr std::size_t kLongRow = 384;
inline constexpr std::size_t kStreamAhead = 4096;

ANNX_INLINE bool one_stream(std::size_t count, std::size_t stride) {
  return stride >= kLongRow && count > kStreamBytes / stride;
}

// Calls group(first) for every R rows, then single(row) for each one left.
template <int R, class Group, class Single>
ANNX_INLINE void for_groups(std::size_t count, Group group, Single single) {
  std::size_t i = 0;
  if constexpr (R > 1) {
    for (; i + R <= count; i += R) group(i);
  }
  for (; i < count; ++i) single(i);
}

template <class Term, class Load>
void float_rows(const float* query, const std::byte* rows, std::size_t stride,
                std::size_t count, std::size_t dim, float* out) {
  const auto single = [&](std::size_t i) {
    const std::byte* row = rows + i * stride;
    float_group<Term, Load, 1>(query, &row, dim, out + i);
  };
  if (one_stream(count, stride)) {
    // 16-bit elements take more instructions a byte, so fewer lines are in flight by
    // themselves than memory needs (measured: up to 30 % at 384 elements, while the
    // same prefetch slows float32 down).
    const std::size_t ahead = Load::kBytes == 2 ? dim * Load::kBytes : 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* later = rows + i * stride + kStreamAhead;
      for (std::size_t at = 0; at < ahead; at += 64) prefetch(later + at);
      single(i);
    }
    return;
  }
  for_groups<kFloatGroup>(
      count,
      [&](std::size_t i) {
        const std::byte* group[kFloatGroup];
        ANNX_UNROLL
        for (int r = 0; r < kFloatGroup; ++r) {
          group[r] = rows + (i + static_cast<std::size_t>(r)) * stride;
        }
        float_group<Term, Load, kFloatGroup>(query, group, dim, out + i);
      },
      single);
}

// --- gathered rows ------------------------------------------------------------------

// Asks for the rows of a list a fixed number of bytes before they are summed.
class Ahead {
 public:
  ANNX_INLINE Ahead(const std::byte* rows, std::size_t stride,
                    const std::uint32_t* slots, std::size_t count, std::size_t bytes)
      : rows_(rows), stride_(stride), slots_(slots), count_(count), bytes_(bytes) {
    std::size_t depth = kAheadBytes / (bytes + 64);
    depth = depth < 2 ? 2 : depth > kAheadRows ? kAheadRows : depth;
    to(depth);
    depth_ = depth;
  }
  // Called before rows up to `end` are summed.
  ANNX_INLINE void before(std::size_t end) { to(end + depth_); }

 private:
  // Enough bytes in flight to hide the latency of memory, few enough to stay in L1.
  static constexpr std::size_t kAheadBytes = 2048;
  static constexpr std::size_t kAheadRows = 16;

  ANNX_INLINE void to(std::size_t end) {
    if (end > count_) end = count_;
    for (; next_ < end; ++next_) {
      const std::byte* row = rows_ + slots_[next_] * stride_;
      for (std::size_t offset = 0; offset < bytes_; offset += 64)
        prefetch(row + offset);
      // A row that does not begin on a cache line ends on one more.
      if (bytes_ != 0) prefetch(row + bytes_ - 1);
    }
  }

  const std::byte* rows_;
  std::size_t stride_;
  const std::uint32_t* slots_;
  std::size_t count_;
  std::size_t bytes_;
  std::size_t depth_ = 0;
  std::size_t next_ = 0;
};

template <class Term, class Load>
void float_gather(const float* query, const std::byte* rows, std::size_t stride,
                  const std::uint32_t* slots, std::size_t count, std::size_t dim,
                  float* out) {
  Ahead ahead(rows, stride, slots, count, dim * Load::kBytes);
  for_groups<kFloatGroup>(
      count,
      [&](std::size_t i) {
        const std::byte* group[kFloatGroup];
        ahead.before(i + kFloatGroup);
        ANNX_UNROLL
        for (int r = 0; r < kFloatGroup; ++r) {
          group[r] = rows + slots[i + static_cast<std::size_t>(r)] * stride;
        }
        float_group<Term, Load, kFloatGroup>(query, group, dim, out + i);
      },
      [&](std::size_t i) {
        ahead.before(i + 1);
        const std::byte* row = rows + slots[i] * stride;
        float_group<Term, Load, 1>(query, &row, dim, out + i);
      });
}

template <class Load>
void float_cosine_rows(const float* query, const std::byte* rows, std::size_t stride,
                       std::size_t count, std::size_t dim, float* dots,
                       float* squares) {
  for (std::size_t i = 0; i < count; ++i) {
    float_cosine<Load>(query, rows + i * stride, dim, dots + i, squares + i);
  }
}
template <class Load>
void float_cosine_gather(const float* query, const std::byte* rows, std::size_t stride,
                         const std::uint32_t* slots, std::size_t count, std::size_t dim,
                         float* dots, float* squares) {
  Ahead ahead(rows, stride, slots, count, dim * Load::kBytes);
  for (std::size_t i = 0; i < count; ++i) {
    ahead.before(i + 1);
    float_cosine<Load>(query, rows + slots[i] * stride, dim, dots + i, squares + i);
  }
}

template <class Load>
void float_squares(const std::byte* rows, std::size_t stride, std::size_t count,
                   std::size_t dim, float* out) {
  float_rows<TermSquare, Load>(nullptr, rows, stride, count, dim, out);
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
