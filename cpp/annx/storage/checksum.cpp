// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/checksum.h"

#include <array>
#include <bit>
#include <cstring>

#include "annx/base/random.h"

namespace annx::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are mapped as they are, so the host has to be little-endian");

constexpr std::size_t kLanes = 8;
constexpr std::size_t kBlock = kLanes * sizeof(std::uint64_t);
constexpr std::uint64_t kA =
    0x9E3779B97F4A7C15ull;  // odd, so multiplying is invertible
constexpr std::uint64_t kB = 0xD1342543DE82EF95ull;

using Lanes = std::array<std::uint64_t, kLanes>;

inline void absorb(Lanes& lanes, const std::byte* block) {
  Lanes words;
  std::memcpy(words.data(), block, kBlock);
  for (std::size_t j = 0; j < kLanes; ++j) {
    lanes[j] = std::rotl(lanes[j] ^ (words[j] * kA), 29) * kB;
  }
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) {
  Lanes lanes;
  for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = mix64(j + 1);
  const std::size_t whole = bytes.size() / kBlock * kBlock;
  for (std::size_t i = 0; i < whole; i += kBlock) absorb(lanes, bytes.data() + i);
  if (whole != bytes.size()) {
    std::array<std::byte, kBlock> last{};
    std::memcpy(last.data(), bytes.data() + whole, bytes.size() - whole);
    absorb(lanes, last.data());
  }
  std::uint64_t h = static_cast<std::uint64_t>(bytes.size()) * kA;
  for (const std::uint64_t lane : lanes) h = mix64(h ^ lane);
  return h;
}

}  // namespace annx::storage
