// SPDX-License-Identifier: Apache-2.0
// Hamming and Jaccard on packed bits, written once over two primitives of simd_*.h:
//   bits_xor(a, b, bytes)            the number of bits that differ
//   bits_and_or(a, b, bytes, &both, &any)   bits set in both, bits set in either
// Counting the bits is the whole cost, so a block of queries gains nothing from sharing
// loads: it only takes the rows in strips that stay in L1.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

struct Hamming {
  using Out = std::int32_t;
  static ANNX_INLINE Out of(const std::byte* q, const std::byte* x, std::size_t bytes) {
    return static_cast<std::int32_t>(bits_xor(q, x, bytes));
  }
};
struct Jaccard {
  using Out = float;
  static ANNX_INLINE Out of(const std::byte* q, const std::byte* x, std::size_t bytes) {
    std::uint32_t both = 0;
    std::uint32_t any = 0;
    bits_and_or(q, x, bytes, &both, &any);
    return any == 0 ? 0.0f : static_cast<float>(any - both) / static_cast<float>(any);
  }
};

template <class Pair>
void bit_rows(const std::byte* query, const std::byte* rows, std::size_t stride,
              std::size_t count, std::size_t bytes, typename Pair::Out* out) {
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = Pair::of(query, rows + i * stride, bytes);
  }
}

template <class Pair>
void bit_gather(const std::byte* query, const std::byte* rows, std::size_t stride,
                const std::uint32_t* slots, std::size_t count, std::size_t bytes,
                typename Pair::Out* out) {
  Ahead ahead(rows, stride, slots, count, bytes);
  for (std::size_t i = 0; i < count; ++i) {
    ahead.before(i + 1);
    out[i] = Pair::of(query, rows + slots[i] * stride, bytes);
  }
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
