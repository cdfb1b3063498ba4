// SPDX-License-Identifier: Apache-2.0
// The 16 levels of the parts of a code (link_codec.h, piece_codec.h), laid out for the
// kernel that makes a query's tables: parts side by side in panels, as kernels/table.h
// says. Parts of a panel that have fewer dimensions than its widest get zeros.
//
// Costs: O(16 a) for a dimensions, and as much memory again as the levels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/kernels/dispatch.h"
#include "annx/kernels/table.h"

namespace annx::codec {

class LevelPanels {
 public:
  LevelPanels() = default;
  // levels: [dimension][16], in order of parts, of which part p takes widths[p].
  LevelPanels(const std::vector<float>& levels,
              const std::vector<std::uint8_t>& widths);

  // A query's tables, [part][16]; reused from query to query.
  struct Tables {
    std::vector<std::uint8_t> entries;
    float step = 0;
    float bias = 0;

   private:
    friend class LevelPanels;
    std::vector<float> coordinates_;
    std::vector<float> room_;
  };
  // coordinates: as many as there are dimensions.
  void fill(const float* coordinates, Tables& out,
            const kernels::KernelTable& table = kernels::active()) const;

  std::size_t memory_bytes() const {
    return widths_.size() + books_.size() * sizeof(float) +
           places_.size() * sizeof(std::uint32_t);
  }

 private:
  std::size_t dims_ = 0;
  std::vector<std::uint8_t> widths_;  // of panels
  std::vector<float> books_;
  // Where in a panel's coordinates, all panels in a row, each dimension goes.
  std::vector<std::uint32_t> places_;
};

}  // namespace annx::codec
