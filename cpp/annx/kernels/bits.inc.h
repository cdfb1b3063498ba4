// SPDX-License-Identifier: Apache-2.0
// Hamming and Jaccard on packed bits, written once over primitives of simd_*.h:
//   bits_xor(a, b, bytes)            the number of bits that differ
//   bits_and_or(a, b, bytes, &both, &any)   bits set in both, bits set in either
//   word_at, word_bits               eight bytes, and the bits set in them
// Counting the bits is the whole cost, so a block of queries gains nothing from sharing
// loads: it only takes the rows in strips that stay in L1.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

struct Hamming {
  using Out = std::int32_t;
  std::uint32_t apart = 0;
  ANNX_INLINE void add(std::uint64_t q, std::uint64_t x) { apart += word_bits(q ^ x); }
  ANNX_INLINE Out result() const { return static_cast<Out>(apart); }
  static ANNX_INLINE Out of(const std::byte* q, const std::byte* x, std::size_t bytes) {
    return static_cast<Out>(bits_xor(q, x, bytes));
  }
};
struct Jaccard {
  using Out = float;
  std::uint32_t both = 0;
  std::uint32_t any = 0;
  ANNX_INLINE void add(std::uint64_t q, std::uint64_t x) {
    both += word_bits(q & x);
    any += word_bits(q | x);
  }
  ANNX_INLINE Out result() const {
    return any == 0 ? 0.0f : static_cast<float>(any - both) / static_cast<float>(any);
  }
  static ANNX_INLINE Out of(const std::byte* q, const std::byte* x, std::size_t bytes) {
    Jaccard pair;
    bits_and_or(q, x, bytes, &pair.both, &pair.any);
    return pair.result();
  }
};

// Calls write(i, result) for rows of 8 to 8 * kWords bytes, `row(i)` giving the i-th.
// The query stays in registers and nothing loops over the words: of so short a row the
// loop would be most of the cost (a factor of four at 16 bytes), hence this exception
// to the rule that nothing is specialised by size. The last word is read from the row's
// end, and what the word before it has of it shifted out.
template <class Pair, int kWords, class Row>
ANNX_INLINE void bit_words(const std::byte* query, std::size_t count, std::size_t bytes,
                           typename Pair::Out* out, Row row) {
  const int shift = static_cast<int>(8 * (8 * kWords - bytes));
  std::uint64_t q[kWords];
  ANNX_UNROLL
  for (int w = 0; w + 1 < kWords; ++w) q[w] = word_at(query + w * 8);
  q[kWords - 1] = word_at(query + bytes - 8) >> shift;
  if (shift == 0) {
    std::size_t i = 0;
    // Of one or two words what a loop costs by itself is most of it.
    constexpr std::size_t kAtOnce = kWords <= 2 ? 4 : 1;
    for (; kAtOnce > 1 && i + kAtOnce <= count; i += kAtOnce) {
      Pair pairs[kAtOnce];
      ANNX_UNROLL
      for (std::size_t r = 0; r < kAtOnce; ++r) {
        const std::byte* x = row(i + r);
        ANNX_UNROLL
        for (int w = 0; w < kWords; ++w) pairs[r].add(q[w], word_at(x + w * 8));
      }
      ANNX_UNROLL
      for (std::size_t r = 0; r < kAtOnce; ++r) out[i + r] = pairs[r].result();
    }
    for (; i < count; ++i) {
      const std::byte* x = row(i);
      Pair pair;
      ANNX_UNROLL
      for (int w = 0; w < kWords; ++w) pair.add(q[w], word_at(x + w * 8));
      out[i] = pair.result();
    }
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* x = row(i);
      Pair pair;
      ANNX_UNROLL
      for (int w = 0; w + 1 < kWords; ++w) pair.add(q[w], word_at(x + w * 8));
      pair.add(q[kWords - 1], word_at(x + bytes - 8) >> shift);
      out[i] = pair.result();
    }
  }
}

template <class Pair, class Row>
ANNX_INLINE void bit_any(const std::byte* query, std::size_t count, std::size_t bytes,
                         typename Pair::Out* out, Row row) {
  switch (bytes < 8 ? 0 : (bytes + 7) / 8) {
    case 1: return bit_words<Pair, 1>(query, count, bytes, out, row);
    case 2: return bit_words<Pair, 2>(query, count, bytes, out, row);
    case 3: return bit_words<Pair, 3>(query, count, bytes, out, row);
    case 4: return bit_words<Pair, 4>(query, count, bytes, out, row);
    case 5: return bit_words<Pair, 5>(query, count, bytes, out, row);
    case 6: return bit_words<Pair, 6>(query, count, bytes, out, row);
    case 7: return bit_words<Pair, 7>(query, count, bytes, out, row);
    case 8: return bit_words<Pair, 8>(query, count, bytes, out, row);
    default: break;
  }
  for (std::size_t i = 0; i < count; ++i) out[i] = Pair::of(query, row(i), bytes);
}

// The first `bytes` < 8 bytes, zero-filled.
ANNX_INLINE std::uint64_t short_word(const std::byte* row, std::size_t bytes) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    word |= static_cast<std::uint64_t>(row[i]) << (8 * i);
  }
  return word;
}

// The same for 4 <= bytes < 8, by two halves that overlap.
ANNX_INLINE std::uint64_t halves(const std::byte* row, std::size_t bytes) {
  std::uint32_t first;
  std::uint32_t last;
  ANNX_MEMCPY(&first, row, 4);
  ANNX_MEMCPY(&last, row + bytes - 4, 4);
  return first | static_cast<std::uint64_t>(last) << (8 * (bytes - 4));
}

// Rows of less than a word, one behind the other: each is read together with the start
// of what follows it, which is masked off, up to the last row for which a whole word
// still lies within the rows.
template <class Pair>
ANNX_INLINE void bit_short_rows(const std::byte* query, const std::byte* rows,
                                std::size_t stride, std::size_t count,
                                std::size_t bytes, typename Pair::Out* out) {
  const std::size_t extent = (count - 1) * stride + bytes;
  const std::size_t whole = stride == 0 || extent < 8 ? 0 : (extent - 8) / stride + 1;
  const std::uint64_t mask = (std::uint64_t{1} << (8 * bytes)) - 1;
  const std::uint64_t q = short_word(query, bytes);
  std::size_t i = 0;
  for (; i < whole; ++i) {
    Pair pair;
    pair.add(q, word_at(rows + i * stride) & mask);
    out[i] = pair.result();
  }
  for (; i < count; ++i) {
    Pair pair;
    pair.add(q, short_word(rows + i * stride, bytes));
    out[i] = pair.result();
  }
}

template <class Pair>
void bit_rows(const std::byte* query, const std::byte* rows, std::size_t stride,
              std::size_t count, std::size_t bytes, typename Pair::Out* out) {
  if (bytes < 8 && count != 0) {
    bit_short_rows<Pair>(query, rows, stride, count, bytes, out);
    return;
  }
  const auto run = [&](std::size_t first, std::size_t n) {
    const std::byte* from = rows + first * stride;
    bit_any<Pair>(query, n, bytes, out + first,
                  [=](std::size_t i) { return from + i * stride; });
  };
  // A row at a time keeps one stream busy: from memory, short runs of four in turn.
  constexpr std::size_t kRunBytes = 512;
  const Parts<4> parts(count, stride);
  std::size_t i = 0;
  if (parts.apart) {
    const std::size_t most = kRunBytes / stride + 1;
    for (std::size_t g = 0; g < parts.groups; g += most) {
      const std::size_t n = parts.groups - g < most ? parts.groups - g : most;
      for (i = g; i < parts.rows(); i += parts.step) run(i, n);
    }
    i = parts.rows();
  }
  run(i, count - i);
}

template <class Pair>
void bit_gather(const std::byte* query, const std::byte* rows, std::size_t stride,
                const std::uint32_t* slots, std::size_t count, std::size_t bytes,
                typename Pair::Out* out) {
  const Ahead ahead(rows, stride, slots, count, bytes);
  if (bytes >= 4 && bytes < 8) {
    const std::uint64_t q = halves(query, bytes);
    for (std::size_t i = 0; i < count; ++i) {
      ahead.before(i);
      Pair pair;
      pair.add(q, halves(rows + slots[i] * stride, bytes));
      out[i] = pair.result();
    }
    return;
  }
  bit_any<Pair>(query, count, bytes, out, [&](std::size_t i) {
    ahead.before(i);
    return rows + slots[i] * stride;
  });
}

template <class Pair>
void bit_block(const std::byte* queries, std::size_t query_stride,
               std::size_t query_count, const std::byte* rows, std::size_t row_stride,
               std::size_t row_count, std::size_t bytes, typename Pair::Out* out,
               std::size_t out_stride) {
  const std::size_t strip = 16384 / (bytes + 1) + 1;
  for (std::size_t j = 0; j < row_count; j += strip) {
    const std::size_t n = row_count - j < strip ? row_count - j : strip;
    for (std::size_t i = 0; i < query_count; ++i) {
      bit_rows<Pair>(queries + i * query_stride, rows + j * row_stride, row_stride, n,
                     bytes, out + i * out_stride + j);
    }
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
