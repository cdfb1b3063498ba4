// SPDX-License-Identifier: Apache-2.0
// The loops over float rows, written once over the primitives of simd_*.h: l2, dot, l1,
// cosine's two sums and squared norms, and l2 and dot over rows of whole numbers with a
// step (see table.h for the order of the sums).
//
// A group of kFloatGroup rows is summed at a time: the query is loaded once for all,
// and there are enough independent sums to hide the latency of a fused multiply-add.
// Each row's lanes are its own, so a row's result is the same in a group and by itself.
//
// Primitives used: V (kWidth float lanes, kRegs of them make the 32), v_zero, v_add,
// v_sub, v_abs, v_fma, Load*::full and ::part, v_fold, prefetch.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

// A term has an instance for each row of a group. Most need nothing of a row but its
// elements, which then begin where it does.
struct PlainTerm {
  static constexpr bool kUsesQuery = true;
  static constexpr std::size_t kHead = 0;
  ANNX_INLINE void begin(const std::byte*) {}
  ANNX_INLINE float end(float sum) const { return sum; }
};
struct TermL2 : PlainTerm {
  ANNX_INLINE V add(V q, V x, V s) const {
    const V d = v_sub(q, x);
    return v_fma(d, d, s);
  }
};
struct TermDot : PlainTerm {
  ANNX_INLINE V add(V q, V x, V s) const { return v_fma(q, x, s); }
};
struct TermL1 : PlainTerm {
  ANNX_INLINE V add(V q, V x, V s) const { return v_add(s, v_abs(v_sub(q, x))); }
};
struct TermSquare : PlainTerm {
  static constexpr bool kUsesQuery = false;
  ANNX_INLINE V add(V, V x, V s) const { return v_fma(x, x, s); }
};
ANNX_INLINE float fixed_step(const std::byte* row) {
  float step;
  ANNX_MEMCPY(&step, row, sizeof(step));
  return step;
}
// Of whole numbers x with a step in front of them. Their product needs no rounding, so
// that one operation for q - step x gives what two would.
struct FixedL2 : PlainTerm {
  static constexpr std::size_t kHead = kFixedHead;
  V minus;

  ANNX_INLINE void begin(const std::byte* row) { minus = v_set(-fixed_step(row)); }
  ANNX_INLINE V add(V q, V x, V s) const {
    const V d = v_fma(minus, x, q);
    return v_fma(d, d, s);
  }
};
struct FixedDot : TermDot {
  static constexpr std::size_t kHead = kFixedHead;
  float step;

  ANNX_INLINE void begin(const std::byte* row) { step = fixed_step(row); }
  ANNX_INLINE float end(float sum) const { return step * sum; }
};

// Rows that are asked for while others are summed, line by line as those are read.
struct NoneLater {
  ANNX_INLINE void lines(std::size_t, std::size_t) const {}
  ANNX_INLINE void rest(std::size_t, std::size_t) const {}
};
template <int R>
struct Later {
  const std::byte* rows[R];

  // Bytes [begin, end).
  ANNX_INLINE void lines(std::size_t begin, std::size_t end) const {
    ANNX_UNROLL
    for (int r = 0; r < R; ++r) {
      for (std::size_t at = begin; at < end; at += 64) prefetch(rows[r] + at);
    }
  }
  // The same up to the end of a row, which may reach into one line more.
  ANNX_INLINE void rest(std::size_t begin, std::size_t end) const {
    lines(begin, end);
    ANNX_UNROLL
    for (int r = 0; r < R && end != 0; ++r) prefetch(rows[r] + end - 1);
  }
};

// out[r] = sum over the elements of Term(query, rows[r]) for R rows.
template <class Term, class Load, int R, class Fetch = NoneLater>
ANNX_INLINE void float_group(const float* query, const std::byte* const* rows,
                             std::size_t dim, float* out, const Fetch& fetch = {}) {
  const auto* q = reinterpret_cast<const std::byte*>(query);
  const auto place = [](std::size_t k) { return Term::kHead + k * Load::kBytes; };
  Term term[R];
  V s[R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    term[r].begin(rows[r]);
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    fetch.lines(place(i), place(i + 32));
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) {
      const std::size_t at = i + static_cast<std::size_t>(j * kWidth);
      V qv = v_zero();
      if constexpr (Term::kUsesQuery) qv = LoadF32::full(q + at * 4);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        s[r][j] = term[r].add(qv, Load::full(rows[r] + place(at)), s[r][j]);
      }
    }
  }
  fetch.rest(place(i), place(dim));
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
        s[r][j] = term[r].add(qv, Load::full(rows[r] + place(i)), s[r][j]);
      }
    } else {
      V qv = v_zero();
      if constexpr (Term::kUsesQuery) qv = LoadF32::part(q, i, left, dim);
      ANNX_UNROLL
      for (int r = 0; r < R; ++r) {
        s[r][j] =
            term[r].add(qv, Load::part(rows[r] + Term::kHead, i, left, dim), s[r][j]);
      }
    }
    i += static_cast<std::size_t>(kWidth);
  }
  v_fold<R>(s, out);
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) out[r] = term[r].end(out[r]);
}

// One row; not in line, because that costs compile time wherever it is wanted.
template <class Term, class Load>
void float_row(const float* query, const std::byte* row, std::size_t dim, float* out) {
  float_group<Term, Load, 1>(query, &row, dim, out);
}

// Both of cosine's sums for R rows.
template <class Load, int R, class Fetch = NoneLater>
ANNX_INLINE void float_cosine(const float* query, const std::byte* const* rows,
                              std::size_t dim, float* dots, float* squares,
                              const Fetch& fetch = {}) {
  V s[2 * R][kRegs];
  ANNX_UNROLL
  for (int r = 0; r < 2 * R; ++r) {
    ANNX_UNROLL
    for (int j = 0; j < kRegs; ++j) s[r][j] = v_zero();
  }
  std::size_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    fetch.lines(i * Load::kBytes, (i + 32) * Load::kBytes);
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
  fetch.rest(i * Load::kBytes, dim * Load::kBytes);
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
    float_row<Term, Load>(query, rows + i * stride, dim, out + i);
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

// Asks for the rows of a list a fixed number of bytes before they are summed: the first
// ones at once, the others while rows are summed (Later), because a burst of requests
// fills every place for outstanding ones and holds up the sums behind it.
class Ahead {
 public:
  ANNX_INLINE Ahead(const std::byte* rows, std::size_t stride,
                    const std::uint32_t* slots, std::size_t count, std::size_t bytes)
      : rows_(rows), stride_(stride), slots_(slots), count_(count), bytes_(bytes) {
    const std::size_t depth = kAheadBytes / (bytes + 64);
    depth_ = depth < kLeastAhead  ? kLeastAhead
             : depth > kAheadRows ? kAheadRows
                                  : depth;
    for (std::size_t i = 0; i < depth_; ++i) fetch(i);
  }
  // Called before row i is summed: asks for one row at once.
  ANNX_INLINE void before(std::size_t i) const { fetch(i + depth_); }
  // The row to ask for while row i is summed.
  ANNX_INLINE const std::byte* later(std::size_t i) const {
    const std::size_t at = i + depth_;
    return rows_ + slots_[at < count_ ? at : count_ - 1] * stride_;
  }

 private:
  // Enough bytes in flight to hide the latency of memory, few enough to stay in L1.
  static constexpr std::size_t kAheadBytes = 4096;
  static constexpr std::size_t kAheadRows = 32;
  static constexpr std::size_t kLeastAhead = 4;  // a whole group

  ANNX_INLINE void fetch(std::size_t i) const {
    if (i >= count_ || bytes_ == 0) return;
    const std::byte* row = rows_ + slots_[i] * stride_;
    for (std::size_t offset = 0; offset < bytes_; offset += 64) prefetch(row + offset);
    // A row that does not begin on a cache line ends on one more.
    prefetch(row + bytes_ - 1);
  }

  const std::byte* rows_;
  std::size_t stride_;
  const std::uint32_t* slots_;
  std::size_t count_;
  std::size_t bytes_;
  std::size_t depth_;
};

// Gathered rows in groups of G, `bytes` bytes each: many(i, rows, later) for rows
// i .. i + G, one(i, row) for those left over.
template <int G, class Many, class One>
ANNX_INLINE void gather_groups(const std::byte* rows, std::size_t stride,
                               const std::uint32_t* slots, std::size_t count,
                               std::size_t bytes, Many many, One one) {
  const Ahead ahead(rows, stride, slots, count, bytes);
  for_groups<G>(
      count,
      [&](std::size_t i) {
        const std::byte* group[G];
        Later<G> later;
        ANNX_UNROLL
        for (int r = 0; r < G; ++r) {
          const std::size_t at = i + static_cast<std::size_t>(r);
          group[r] = rows + slots[at] * stride;
          later.rows[r] = ahead.later(at);
        }
        many(i, group, later);
      },
      [&](std::size_t i) { one(i, rows + slots[i] * stride); });
}

template <class Term, class Load>
void float_gather(const float* query, const std::byte* rows, std::size_t stride,
                  const std::uint32_t* slots, std::size_t count, std::size_t dim,
                  float* out) {
  if (count == 1) {  // of which a walk over codes asks many, having fetched them
    float_row<Term, Load>(query, rows + slots[0] * stride, dim, out);
    return;
  }
  gather_groups<kFloatGroup>(
      rows, stride, slots, count, Term::kHead + dim * Load::kBytes,
      [&](std::size_t i, const auto& group, const Later<kFloatGroup>& later) {
        float_group<Term, Load, kFloatGroup>(query, group, dim, out + i, later);
      },
      [&](std::size_t i, const std::byte* row) {
        float_row<Term, Load>(query, row, dim, out + i);
      });
}

template <class Load>
void float_cosine_gather(const float* query, const std::byte* rows, std::size_t stride,
                         const std::uint32_t* slots, std::size_t count, std::size_t dim,
                         float* dots, float* squares) {
  const Ahead ahead(rows, stride, slots, count, dim * Load::kBytes);
  for (std::size_t i = 0; i < count; ++i) {
    const Later<1> later{{ahead.later(i)}};
    const std::byte* row = rows + slots[i] * stride;
    float_cosine<Load, 1>(query, &row, dim, dots + i, squares + i, later);
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
