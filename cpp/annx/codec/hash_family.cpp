// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/hash_family.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Streams of the seed.
constexpr std::uint64_t kFunctions = 0;
constexpr std::uint64_t kOffsets = 1;
constexpr std::uint64_t kKeys = 2;
constexpr float kLargest = 1 << 30;
constexpr std::size_t kSample = 1024;

// NaN (of a damaged file) becomes 0.
std::int32_t cell_of(float floor) {
  if (!(floor == floor)) return 0;
  return static_cast<std::int32_t>(std::clamp(floor, -kLargest, kLargest));
}

bool bit_of(const std::byte* row, std::size_t i) {
  return ((static_cast<unsigned>(row[i / 8]) >> (i % 8)) & 1u) != 0;
}

}  // namespace

HashFamily::HashFamily(const Options& options, RowsView sample) : options_(options) {
  if (projects()) {
    const std::size_t count = functions() * options.dim;
    projections_.reserve(count);
    projections_.resize(count);
    float* out = projections_.mutable_data();
    const Random random(options.seed, kFunctions);
    for (std::size_t i = 0; i < count; ++i) {
      if (options.metric == Metric::kL1) {
        out[i] =
            static_cast<float>(std::tan(std::numbers::pi * (random.unit(i) - 0.5)));
      } else {
        const double radius = std::sqrt(-2 * std::log(1 - random.unit(2 * i)));
        out[i] = static_cast<float>(
            radius * std::cos(2 * std::numbers::pi * random.unit(2 * i + 1)));
      }
    }
  }
  draw();
  if (!cells() || options_.width > 0) return;
  const std::size_t n = std::min(sample.rows, kSample);
  std::vector<float> all(functions() * n);
  Space space;
  for (std::size_t i = 0; i < n; ++i) {
    project(sample.row(i), false, space);
    for (std::size_t f = 0; f < functions(); ++f) all[f * n + i] = space.sums[f];
  }
  double spread = 0;
  for (std::size_t f = 0; f < functions() && n > 0; ++f) {
    float* mine = all.data() + f * n;
    std::sort(mine, mine + n);
    spread += static_cast<double>(mine[3 * (n - 1) / 4]) - mine[(n - 1) / 4];
  }
  const double width = spread / static_cast<double>(functions()) / 1.349;
  options_.width = std::max(width, 1e-30);
}

// What follows from the seed alone, in whole numbers.
void HashFamily::draw() {
  const std::size_t count = functions();
  const Random random(options_.seed, kFunctions);
  factors_.resize(count);
  for (std::size_t f = 0; f < count; ++f) {
    factors_[f] = Random(options_.seed, kKeys).bits(f);
  }
  if (cells()) {
    offsets_.resize(count);
    for (std::size_t f = 0; f < count; ++f) {
      offsets_[f] = static_cast<float>(Random(options_.seed, kOffsets).unit(f));
    }
  } else if (options_.metric == Metric::kHamming) {
    sampled_.resize(count);
    for (std::size_t f = 0; f < count; ++f) {
      sampled_[f] = static_cast<std::uint32_t>(random.below(f, options_.dim));
    }
  }
}

std::size_t HashFamily::memory_bytes() const {
  return projections_.held_bytes() + offsets_.capacity() * sizeof(float) +
         sampled_.capacity() * sizeof(std::uint32_t) +
         factors_.capacity() * sizeof(std::uint64_t);
}

void HashFamily::project(const std::byte* row, bool query, Space& space) const {
  const auto* x = reinterpret_cast<const float*>(row);
  const bool widened = options_.dtype != DType::kFloat32 &&
                       !(query && options_.dtype <= DType::kBFloat16);
  if (widened) {
    space.wide.resize(options_.dim);
    kernels::active().widen[static_cast<std::size_t>(options_.dtype)](
        row, options_.dim, space.wide.data());
    x = space.wide.data();
  }
  space.sums.resize(functions());
  kernels::active().float_rows[kernels::kOpDot][0](
      x, projections_.bytes().data(), options_.dim * sizeof(float), functions(),
      options_.dim, space.sums.data());
}

void HashFamily::hash(const std::byte* row, bool query, Space& space) const {
  const std::size_t count = functions();
  space.values.resize(count);
  space.places.resize(count);
  if (options_.metric == Metric::kHamming) {
    for (std::size_t f = 0; f < count; ++f) {
      space.values[f] = bit_of(row, sampled_[f]) ? 1 : 0;
    }
    return;
  }
  if (options_.metric == Metric::kJaccard) {
    const std::size_t dim = options_.dim;
    space.others.assign(count, static_cast<std::int32_t>(dim));
    std::fill(space.values.begin(), space.values.end(), static_cast<std::int32_t>(dim));
    thread_local std::vector<std::uint32_t> held;
    held.clear();
    for (std::size_t byte = 0; byte * 8 < dim; ++byte) {
      for (unsigned left = static_cast<unsigned>(row[byte]); left != 0;
           left &= left - 1) {
        const std::size_t bit =
            byte * 8 + static_cast<std::size_t>(std::countr_zero(left));
        if (bit < dim) held.push_back(static_cast<std::uint32_t>(bit));
      }
    }
    const Random random(options_.seed, kFunctions);
    for (std::size_t f = 0; f < count; ++f) {
      std::uint64_t first = ~std::uint64_t{0};
      std::uint64_t second = first;
      for (const std::uint32_t bit : held) {
        // Its random place in one number with the bit, which settles ties.
        const std::uint64_t place = random.bits(f * dim + bit) >> 32 << 32;
        const std::uint64_t at = place | bit;
        second = std::min(second, std::max(first, at));
        first = std::min(first, at);
      }
      constexpr std::uint64_t kNone = ~std::uint64_t{0};
      if (first != kNone)
        space.values[f] = static_cast<std::int32_t>(first & 0xFFFFFFFFu);
      if (second != kNone)
        space.others[f] = static_cast<std::int32_t>(second & 0xFFFFFFFFu);
    }
    return;
  }
  project(row, query, space);
  if (options_.metric == Metric::kCosine) {
    for (std::size_t f = 0; f < count; ++f) {
      space.values[f] = space.sums[f] > 0 ? 1 : 0;
      space.places[f] = space.sums[f];
    }
    return;
  }
  const auto scale = static_cast<float>(1.0 / options_.width);
  for (std::size_t f = 0; f < count; ++f) {
    const float at = space.sums[f] * scale + offsets_[f];
    const float floor = std::floor(at);
    space.values[f] = cell_of(floor);
    space.places[f] = at - floor;
  }
}

std::uint64_t HashFamily::sum(std::size_t group, const Space& space) const {
  std::uint64_t total = 0;
  for (std::size_t f = group * options_.hashes; f < (group + 1) * options_.hashes;
       ++f) {
    total += static_cast<std::uint64_t>(static_cast<std::int64_t>(space.values[f])) *
             factors_[f];
  }
  return total;
}

std::uint32_t HashFamily::key(std::uint64_t sum) {
  return static_cast<std::uint32_t>(mix64(sum) >> 32);
}

std::size_t HashFamily::moves(std::size_t group, const Space& space, Move* out) const {
  std::size_t n = 0;
  const auto move = [&](std::size_t f, float cost, std::int64_t by) {
    out[n++] = {cost, static_cast<std::uint32_t>(f - group * options_.hashes),
                static_cast<std::uint64_t>(by) * factors_[f]};
  };
  for (std::size_t f = group * options_.hashes; f < (group + 1) * options_.hashes;
       ++f) {
    const std::int32_t here = space.values[f];
    switch (options_.metric) {
      case Metric::kCosine:
        move(f, space.places[f] * space.places[f], 1 - 2 * here);
        break;
      case Metric::kHamming: move(f, 1.0f, 1 - 2 * here); break;
      case Metric::kJaccard:
        if (static_cast<std::size_t>(space.others[f]) != options_.dim) {
          move(f, 1.0f, static_cast<std::int64_t>(space.others[f]) - here);
        }
        break;
      default: {
        const float below = space.places[f];
        move(f, below * below, -1);
        move(f, (1 - below) * (1 - below), 1);
      }
    }
  }
  // In the order of functions where costs are equal; NaN cannot be sorted.
  for (std::size_t i = 0; i < n; ++i) {
    if (!(out[i].cost == out[i].cost)) out[i].cost = 0;
  }
  for (std::size_t i = 1; i < n; ++i) {
    const Move mine = out[i];
    std::size_t at = i;
    for (; at > 0 && mine.cost < out[at - 1].cost; --at) out[at] = out[at - 1];
    out[at] = mine;
  }
  return n;
}

void HashFamily::save_to(storage::FileWriter& writer) const {
  writer.real("width", options_.width);
  if (projects()) writer.add("projections", projections_.bytes());
}

HashFamily HashFamily::load_from(const storage::FileReader& reader, Options options) {
  HashFamily family;
  options.width = reader.real("width", 0, 1e300);
  family.options_ = options;
  if (family.cells()) {
    reader.require(options.width > 0, "meta", "width is 0");
  }
  if (family.projects()) {
    family.projections_ =
        reader.array<float>("projections", family.functions() * options.dim);
  }
  family.draw();
  return family;
}

}  // namespace annx::codec
