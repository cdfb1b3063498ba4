// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/prune.h"

#include <algorithm>

namespace annx::graph {

void select_neighbours(const codec::RowCodec& rows,
                       const std::vector<Neighbour>& candidates, std::size_t least,
                       std::size_t most, float relax, PruneScratch& scratch,
                       std::vector<Neighbour>& chosen) {
  const std::size_t n = candidates.size();
  chosen.clear();
  scratch.occluded.assign(n, 0);
  scratch.slots.resize(n);
  scratch.places.resize(n);
  scratch.keys.resize(n);
  for (std::size_t i = 0; i < n && chosen.size() < most; ++i) {
    if (scratch.occluded[i] != 0) continue;
    chosen.push_back(candidates[i]);
    if (chosen.size() == most) break;
    // Everything further that the new link occludes, in one batch.
    std::size_t left = 0;
    for (std::size_t j = i + 1; j < n; ++j) {
      if (scratch.occluded[j] != 0) continue;
      scratch.places[left] = static_cast<std::uint32_t>(j);
      scratch.slots[left++] = candidates[j].slot;
    }
    if (left == 0) break;
    scratch.query.set_item(rows, candidates[i].slot);
    scratch.query.score(scratch.slots.data(), left, scratch.keys.data());
    for (std::size_t j = 0; j < left; ++j) {
      if (occludes(rows.metric(), relax, scratch.keys[j],
                   candidates[scratch.places[j]].key)) {
        scratch.occluded[scratch.places[j]] = 1;
      }
    }
  }
  if (chosen.size() >= least) return;
  for (std::size_t i = 0; i < n && chosen.size() < least; ++i) {
    if (scratch.occluded[i] != 0) chosen.push_back(candidates[i]);
  }
  std::sort(chosen.begin(), chosen.end());
}

}  // namespace annx::graph
