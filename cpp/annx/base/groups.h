// SPDX-License-Identifier: Apache-2.0
// Items sorted by the group that each belongs to, by counting: O(items + groups), and
// in order within a group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace annx {

struct Groups {
  std::vector<std::size_t> begins;   // [group] where its items begin; and the end
  std::vector<std::uint32_t> items;  // numbers of the items

  // group_of[i] < count.
  Groups(std::span<const std::uint32_t> group_of, std::size_t count)
      : begins(count + 1), items(group_of.size()) {
    for (const std::uint32_t group : group_of) ++begins[group + 1];
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    std::vector<std::size_t> next(begins.begin(), begins.end() - 1);
    for (std::size_t i = 0; i < items.size(); ++i) {
      items[next[group_of[i]]++] = static_cast<std::uint32_t>(i);
    }
  }
};

}  // namespace annx
