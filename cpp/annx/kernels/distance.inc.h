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

// Both of cosine's sums for R rows.
template <class Load, int R>
ANNX_INLINE void float_cosine(const float* query, const std::byte* const* rows,
                              std::size_t dim, float* dots, float* squares) {
  V s[2 * R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < 2 * R; ++r) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) {
      const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        const V x = Load::full(rows[r] + at * Load::kBytes);
        s[2 * r][j] =
            v_fma(LoadF32::full(reinterpret_cast<const std::byte*>(query) + at * 4), x,
                  s[2 * r][j]);
        s[2 * r + 1][j] = v_fma(x, x, s[2 * r + 1][j]);
      }
    }
  }
  const auto* q = reinterpret_cast<const std::byte*>(query);
  ANNX_UNROLL
  for (int j = 0; j < kRegs; ++j) {
    if (i >= dim) break;
    const std::size_t left = dim - i;
    const bool whole = left >= static_cast<std::size_t>(kWidth);
    const V y = whole ? LoadF32::full(q + i * 4) : LoadF32::part(q, i, left, dim);
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      const V x = whole ? Load::full(rows[r] + i * Load::kBytes)
                        : Load::part(rows[r], i, left, dim);
      s[2 * r][j] = v_fma(y, x, s[2 * r][j]);
      s[2 * r + 1][j] = v_fma(x, x, s[2 * r + 1][j]);
    }
    i += static_cast<std::size_t>(kWidth);
  }
  float sums[2 * R];
  v_fold<2 * R>(s, sums);
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    dots[r] = sums[2 * r];
    squares[r] = sums[2 * r + 1];
  }
}

// --- contiguous rows ----------------------------------------------------------------

// More contiguous bytes than this in one call are taken to come from memory. The rows
// of a group then lie far apart, one in each of as many equal parts of the rows: the
// hardware prefetches within pages of 4 KB and waits at the start of each, and so reads
// three or four streams a third faster than one (or than neighbouring rows abreast,
// which are several streams within one page).
inline constexpr std::size_t kMemoryBytes = 384 * 1024;
// How the rows of `count` go into groups of R: group g holds the rows
// g * advance + r * step for r < R.
template <int R>
struct Parts {
  std::size_t groups;
  std::size_t advance;
  std::size_t step;
  bool apart;

  ANNX_INLINE Parts(std::size_t count, std::size_t stride) {
    constexpr auto kRows = static_cast<std::size_t>(R);
    groups = count / kRows;
    apart = stride != 0 && R > 1 && count > kMemoryBytes / stride;
    advance = apart ? 1 : kRows;
    step = apart ? groups : 1;
  }
  ANNX_INLINE std::size_t rows() const { return groups * static_cast<std::size_t>(R); }
};

template <class Term, class Load>
void float_rows(const float* query, const std::byte* rows, std::size_t stride,
                std::size_t count, std::size_t dim, float* out) {
  const Parts<kFloatGroup> parts(count, stride);
  for (std::size_t g = 0; g < parts.groups; ++g) {
    const std::size_t i = g * parts.advance;
    const std::byte* group[kFloatGroup];
    ANNX_UNROLL
    for (int r = 0; r < kFloatGroup; ++r) {
      group[r] = rows + (i + static_cast<std::size_t>(r) * parts.step) * stride;
    }
    float sums[kFloatGroup];
    float_group<Term, Load, kFloatGroup>(query, group, dim, sums);
    ANNX_UNROLL
    for (int r = 0; r < kFloatGroup; ++r) {
      out[i + static_cast<std::size_t>(r) * parts.step] = sums[r];
    }
  }
  for (std::size_t i = parts.rows(); i < count; ++i) {
    const std::byte* row = rows + i * stride;
    float_group<Term, Load, 1>(query, &row, dim, out + i);
  }
}

template <class Load>
void float_squares(const std::byte* rows, std::size_t stride, std::size_t count,
                   std::size_t dim, float* out) {
  float_rows<TermSquare, Load>(nullptr, rows, stride, count, dim, out);
}

// Two rows at a time where they come from memory, which then costs more than the sums
// that do not fit the registers; otherwise one, whose sums do.
template <class Load>
void float_cosine_rows(const float* query, const std::byte* rows, std::size_t stride,
                       std::size_t count, std::size_t dim, float* dots,
                       float* squares) {
  std::size_t i = 0;
  const Parts<2> parts(count, stride);
  if (parts.apart) {
    for (; i < parts.groups; ++i) {
      const std::byte* pair[2] = {rows + i * stride, rows + (i + parts.step) * stride};
      float sums[2][2];
      float_cosine<Load, 2>(query, pair, dim, sums[0], sums[1]);
      dots[i] = sums[0][0];
      dots[i + parts.step] = sums[0][1];
      squares[i] = sums[1][0];
      squares[i + parts.step] = sums[1][1];
    }
    i = parts.rows();
  }
  for (; i < count; ++i) {
    const std::byte* row = rows + i * stride;
    float_cosine<Load, 1>(query, &row, dim, dots + i, squares + i);
  }
}

// --- gathered rows ------------------------------------------------------------------

// Calls group(first) for every R rows, then single(row) for each one left.
template <int R, class Group, class Single>
ANNX_INLINE void for_groups(std::size_t count, Group group, Single single) {
  std::size_t i = 0;
  if constexpr (R > 1) {
    for (; i + R <= count; i += R) group(i);
  }
  for (; i < count; ++i) single(i);
}

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
  static constexpr std::size_t kAheadBytes = 8192;
  static constexpr std::size_t kAheadRows = 32;

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
void float_cosine_gather(const float* query, const std::byte* rows, std::size_t stride,
                         const std::uint32_t* slots, std::size_t count, std::size_t dim,
                         float* dots, float* squares) {
  Ahead ahead(rows, stride, slots, count, dim * Load::kBytes);
  for (std::size_t i = 0; i < count; ++i) {
    ahead.before(i + 1);
    const std::byte* row = rows + slots[i] * stride;
    float_cosine<Load, 1>(query, &row, dim, dots + i, squares + i);
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
