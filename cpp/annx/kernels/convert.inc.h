// SPDX-License-Identifier: Apache-2.0
// Conversions between element types and the last step of cosine, written once over
// Load*::full / ::part, store_narrow<T> and v_sqrt / v_div / v_select_zero of simd_*.h.

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

inline void cosine_finish(float query_square, const float* dots, const float* squares,
                          std::size_t count, float* out) {
  const float root = ANNX_SQRTF(query_square);
  for (std::size_t i = 0; i < count; ++i) {
    const float norms = root * ANNX_SQRTF(squares[i]);
    out[i] = norms > 0.0f ? 1.0f - dots[i] / norms : 1.0f;
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
