// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/rotation.h"

#include <bit>
#include <cmath>

#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {
constexpr std::size_t kRounds = 2;
}  // namespace

RandomRotation::RandomRotation(std::size_t dim, std::uint64_t seed)
    : dim_(dim), power_(std::bit_floor(dim)), signs_(2 * kRounds * power_) {
  const auto factor = static_cast<float>(1 / std::sqrt(static_cast<double>(power_)));
  const Random random(seed, dim);
  for (std::size_t i = 0; i < signs_.size(); ++i) {
    signs_[i] = random.below(i, 2) == 0 ? factor : -factor;
  }
}

void RandomRotation::apply(float* x) const {
  const auto hadamard = kernels::active().hadamard;
  const float* signs = signs_.data();
  for (std::size_t round = 0; round < kRounds; ++round) {
    for (float* window : {x, x + (dim_ - power_)}) {
      hadamard(window, signs, power_);
      signs += power_;
    }
  }
}

// A Hadamard transform is its own inverse but for a factor, which the signs hold.
void RandomRotation::apply_inverse(float* x) const {
  const auto hadamard = kernels::active().hadamard;
  const float* signs = signs_.data() + signs_.size();
  const std::vector<float> ones(power_, 1.0f);
  for (std::size_t round = 0; round < kRounds; ++round) {
    for (float* window : {x + (dim_ - power_), x}) {
      signs -= power_;
      hadamard(window, ones.data(), power_);
      for (std::size_t i = 0; i < power_; ++i) window[i] *= signs[i];
    }
  }
}

}  // namespace annx::codec
