// SPDX-License-Identifier: Apache-2.0
// Conversions between element types and the last step of cosine, written once over
// Load*::full / ::part / ::store and v_numbers, v_sqrt, v_div, ... of simd_*.h.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

template <class Load>
void widen(const std::byte* in, std::size_t n, float* out) {
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    v_store(out + i, Load::full(in + i * Load::kBytes));
  if (i < n) v_store_part(out + i, Load::part(in, i, n - i, n), n - i);
}

template <class Load>
void narrow(const float* in, std::size_t n, std::byte* out) {
  const auto* bytes = reinterpret_cast<const std::byte*>(in);
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    Load::store(out + i * Load::kBytes, LoadF32::full(bytes + i * 4));
  }
  if (i < n) {
    // Through a full register beside the output: stores are not masked.
    std::byte last[kWidth * 4];
    Load::store(last, LoadF32::part(bytes, i, n - i, n));
    ANNX_MEMCPY(out + i * Load::kBytes, last, (n - i) * Load::kBytes);
  }
}

// One register of cosine distances; `root` is the root of the query's square.
ANNX_INLINE V cosine_of(V root, V dots, V squares) {
  const V norms = v_mul(root, v_sqrt(squares));
  const V one = v_set(1.0f);
  return v_where_positive(norms, v_sub(one, v_div(dots, norms)), one);
}

template <class T>
void cosine_finish(T query_square, const T* dots, const T* squares, std::size_t count,
                   float* out) {
  const V root = v_sqrt(v_set(static_cast<float>(query_square)));
  std::size_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    v_store(out + i, cosine_of(root, v_numbers(dots + i), v_numbers(squares + i)));
  }
  if (i < count) {
    T last[2][kWidth] = {};
    for (std::size_t j = 0; i + j < count; ++j) {
      last[0][j] = dots[i + j];
      last[1][j] = squares[i + j];
    }
    v_store_part(out + i, cosine_of(root, v_numbers(last[0]), v_numbers(last[1])),
                 count - i);
  }
}

inline void join_halves(const std::byte* high, const std::byte* low, std::size_t n,
                        float* out) {
  // Runs of a fixed length, which compilers turn into vector code.
  constexpr std::size_t kRun = 16;
  std::uint16_t top[kRun];
  std::int16_t rest[kRun];
  std::uint32_t bits[kRun];
  for (std::size_t i = 0; i < n; i += kRun) {
    const std::size_t count = n - i < kRun ? n - i : kRun;
    if (count == kRun) {
      ANNX_MEMCPY(top, high + 2 * i, sizeof(top));
      ANNX_MEMCPY(rest, low + 2 * i, sizeof(rest));
    } else {
      ANNX_MEMCPY(top, high + 2 * i, 2 * count);
      ANNX_MEMCPY(rest, low + 2 * i, 2 * count);
      for (std::size_t j = count; j < kRun; ++j) top[j] = 0;
      for (std::size_t j = count; j < kRun; ++j) rest[j] = 0;
    }
    for (std::size_t j = 0; j < kRun; ++j) {
      bits[j] = (static_cast<std::uint32_t>(top[j]) << 16) +
                static_cast<std::uint32_t>(static_cast<std::int32_t>(rest[j]));
    }
    if (count == kRun) {
      ANNX_MEMCPY(out + i, bits, sizeof(bits));
    } else {
      ANNX_MEMCPY(out + i, bits, 4 * count);
    }
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
