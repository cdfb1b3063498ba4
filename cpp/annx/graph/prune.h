// SPDX-License-Identifier: Apache-2.0
// Choosing a node's links: the relative-neighbourhood rule with relaxation.
//
// A candidate c of node x is occluded by an already chosen, nearer s when
// relax * d(s, c) <= d(x, c): one can go there by way of s. With relax = 1 this is the
// rule of Malkov and Yashunin (2018, algorithm 4); relax > 1 keeps more and longer
// links (Subramanya and others, 2019). `relax` applies to keys as they are, so for
// squared distances it is the square of the paper's alpha. Equality occludes, which
// keeps duplicates of x from filling its links.
//
// Hyperbolic space is a tree from afar: of its points the rule as it stands leaves two
// or three links a node, and searches miss what hangs elsewhere. There s must be nearer
// to c than x is by up to log(1 + kHyperbolicSlack), the more so the further c is from
// x; nearby, where that space is flat, nothing changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/codec/row_codec.h"
#include "annx/search/candidates.h"

namespace annx::graph {

struct Neighbour {
  float key;
  std::uint32_t slot;

  // Nearer first, ties by slot; a total order even over NaN, which damaged rows give.
  friend bool operator<(const Neighbour& a, const Neighbour& b) {
    const auto order = [](const Neighbour& n) {
      return (static_cast<std::uint64_t>(search::ordered_bits(n.key)) << 32) | n.slot;
    };
    return order(a) < order(b);
  }
};

inline constexpr float kHyperbolicSlack = 3.0f;

// Whether s occludes c from x, from the keys of (s, c) and (x, c).
inline bool occludes(Metric metric, float relax, float between, float key) {
  if (metric == Metric::kPoincare) relax *= 1 + kHyperbolicSlack * key / (1 + key);
  return relax * between <= key;
}

struct PruneScratch {
  codec::RowCodec::Query query;
  std::vector<std::uint32_t> slots;
  std::vector<std::uint32_t> places;
  std::vector<float> keys;
  std::vector<char> occluded;
};

// Of `candidates` (sorted, no repeats, without x itself) chooses at most `most` into
// `chosen`, nearest first. If fewer than `least` survive, the nearest occluded ones
// fill up to that. Pairs scored: at most chosen x candidates, in practice far fewer.
void select_neighbours(const codec::RowCodec& rows,
                       const std::vector<Neighbour>& candidates, std::size_t least,
                       std::size_t most, float relax, PruneScratch& scratch,
                       std::vector<Neighbour>& chosen);

}  // namespace annx::graph
