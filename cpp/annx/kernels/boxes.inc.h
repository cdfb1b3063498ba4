// SPDX-License-Identifier: Apache-2.0
// Trees over boxes: how far a query is from eight boxes, and from the sixteen points of
// a leaf, which lie in lanes. Written once over Lanes of simd_*.h.

namespace annx::kernels::ANNX_ISA_NS {
namespace {

struct BoxL2 {
  static ANNX_INLINE Lanes add(Lanes out, Lanes sum) {
    return lanes_fma(out, out, sum);
  }
};
struct BoxL1 {
  static ANNX_INLINE Lanes add(Lanes out, Lanes sum) { return lanes_add(sum, out); }
};

// Registers wider than the eight boxes are filled by half.
inline constexpr std::size_t kBoxLanes = kTileLanes < kBoxFan ? kTileLanes : kBoxFan;
ANNX_INLINE Lanes box_load(const float* p) {
  if constexpr (kTileLanes <= kBoxFan) {
    return lanes_load(p);
  } else {
    return lanes_part(p, kBoxFan);
  }
}

template <class Box>
void box_bounds(const float* query, const float* boxes, std::size_t dim, float* out) {
  const Lanes zero = lanes_set(0.0f);
  for (std::size_t at = 0; at < kBoxFan; at += kBoxLanes) {
    const float* low = boxes + at;
    const auto outside = [&](std::size_t k) {
      const Lanes q = lanes_set(query[k]);
      const float* box = low + k * 2 * kBoxFan;
      return lanes_max(
          lanes_max(lanes_sub(box_load(box), q), lanes_sub(q, box_load(box + kBoxFan))),
          zero);
    };
    // Two sums, because one would wait for itself.
    Lanes even = zero;
    Lanes odd = zero;
    std::size_t k = 0;
    for (; k + 2 <= dim; k += 2) {
      even = Box::add(outside(k), even);
      odd = Box::add(outside(k + 1), odd);
    }
    if (k < dim) even = Box::add(outside(k), even);
    even = lanes_add(even, odd);
    if constexpr (kTileLanes <= kBoxFan) {
      lanes_store(out + at, even);
    } else {
      float all[kTileLanes];
      lanes_store(all, even);
      for (std::size_t i = 0; i < kBoxFan; ++i) out[i] = all[i];
    }
  }
}

struct LeafL2 {
  static ANNX_INLINE Lanes term(Lanes q, Lanes x, Lanes) {
    const Lanes d = lanes_sub(q, x);
    return lanes_fma(d, d, lanes_set(0.0f));
  }
};
struct LeafL1 {
  static ANNX_INLINE Lanes term(Lanes q, Lanes x, Lanes) {
    return lanes_max(lanes_sub(q, x), lanes_sub(x, q));
  }
};
struct LeafScaled {
  // `less` is minus the scale.
  static ANNX_INLINE Lanes term(Lanes q, Lanes x, Lanes less) {
    const Lanes d = lanes_fma(less, x, q);
    return lanes_fma(d, d, lanes_set(0.0f));
  }
};

template <class Leaf>
std::uint32_t leaf_keys(const float* query, const float* points, const float* scales,
                        std::size_t dim, float limit, float* out) {
  std::uint32_t above = 0;
  for (std::size_t at = 0; at < kLeafPoints; at += kTileLanes) {
    const float* x = points + at;
    const Lanes less = scales == nullptr
                           ? lanes_set(0.0f)
                           : lanes_sub(lanes_set(0.0f), lanes_load(scales + at));
    const auto term = [&](std::size_t k) {
      return Leaf::term(lanes_set(query[k]), lanes_load(x + k * kLeafPoints), less);
    };
    // The canonical fold of 32 lanes, of which those from `dim` on are zero.
    const Lanes zero = lanes_set(0.0f);
    Lanes s[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
    ANNX_UNROLL
    for (std::size_t j = 0; j < 8; ++j) {
      if (j >= dim) break;
      s[j] = term(j);
      if (j + 8 < dim) s[j] = lanes_add(s[j], term(j + 8));
      if (j + 16 < dim) {
        Lanes high = term(j + 16);
        if (j + 24 < dim) high = lanes_add(high, term(j + 24));
        s[j] = lanes_add(s[j], high);
      }
    }
    ANNX_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      if (j + 4 < dim) s[j] = lanes_add(s[j], s[j + 4]);
    }
    ANNX_UNROLL
    for (std::size_t j = 0; j < 2; ++j) {
      if (j + 2 < dim) s[j] = lanes_add(s[j], s[j + 2]);
    }
    if (dim > 1) s[0] = lanes_add(s[0], s[1]);
    lanes_store(out + at, s[0]);
    above |= less_bits(lanes_less(lanes_set(limit), s[0])) << at;
  }
  return ~above & ((1u << kLeafPoints) - 1u);
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
