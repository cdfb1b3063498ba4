// SPDX-License-Identifier: Apache-2.0
// Candidates for the links of many rows at once: the near neighbours of every row, and
// those of every sampled row among the sampled ones, level by level. All-pairs search
// (knn.h) finds them several times quicker than a search for each row would.
//
// Lists of near neighbours know no way out of a cluster whose rows fill one another's
// lists. Samples do: each level holds about a sixteenth of the rows of the one below
// (the layers of Malkov and Yashunin, 2018), and in any case some rows of each
// connected component of the lists below. The last level hangs together, so all levels
// laid on one another do, whatever the data: clusters however tight, rows repeated
// however often.
//
// Cost: that of all-pairs search; the levels above the first add about a tenth.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/parallel.h"
#include "annx/codec/row_codec.h"
#include "annx/graph/knn.h"

namespace annx::graph {

struct Level {
  std::vector<std::uint32_t> slots;  // rising; empty: all rows
  KnnGraph near;                     // of those, by place in `slots`

  std::uint32_t slot(std::size_t place) const {
    return slots.empty() ? static_cast<std::uint32_t>(place) : slots[place];
  }
  // kNoSlot if it is not of this level.
  std::uint32_t place(std::uint32_t slot) const {
    if (slots.empty()) return slot;
    const auto at = std::lower_bound(slots.begin(), slots.end(), slot);
    return at == slots.end() || *at != slot
               ? kNoSlot
               : static_cast<std::uint32_t>(at - slots.begin());
  }
  // Whether the list of a slot of this level names another.
  bool lists(std::uint32_t of, std::uint32_t other) const {
    const auto list = near.list(place(of));
    return std::any_of(list.begin(), list.end(), [&](std::uint32_t number) {
      return number != kNoSlot && slot(number) == other;
    });
  }
};

struct LevelOptions {
  std::size_t k = 128;     // neighbours on the first level
  double recall = 0.9;     // of these
  std::size_t far_k = 96;  // neighbours on the levels above: beyond a cluster, too
  std::uint64_t seed = 0;
  std::size_t threads = 1;
};

// The first of all rows, from `near` if that is not empty. No levels where all-pairs
// search does not serve: see build_knn. The same for any number of threads.
std::vector<Level> find_levels(const codec::RowCodec& rows, const LevelOptions& options,
                               KnnGraph near, Monitor* monitor);

}  // namespace annx::graph
