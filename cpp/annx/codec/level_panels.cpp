// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/level_panels.h"

#include <algorithm>

namespace annx::codec {

using kernels::kLinkLevels;
using kernels::kLinkPanel;

LevelPanels::LevelPanels(const std::vector<float>& levels,
                         const std::vector<std::uint8_t>& widths)
    : dims_(levels.size() / kLinkLevels) {
  for (std::size_t begin = 0; begin < widths.size(); begin += kLinkPanel) {
    const auto first = widths.begin() + static_cast<std::ptrdiff_t>(begin);
    const std::size_t parts = std::min(kLinkPanel, widths.size() - begin);
    widths_.push_back(
        *std::max_element(first, first + static_cast<std::ptrdiff_t>(parts)));
    // In units of one dimension of a whole panel.
    const std::size_t base = books_.size() / (kLinkLevels * kLinkPanel);
    books_.resize((base + widths_.back()) * kLinkLevels * kLinkPanel);
    for (std::size_t i = 0; i < parts; ++i) {
      for (std::size_t k = base; k < base + widths[begin + i]; ++k) {
        const float* const from = levels.data() + places_.size() * kLinkLevels;
        for (std::size_t c = 0; c < kLinkLevels; ++c) {
          books_[(k * kLinkLevels + c) * kLinkPanel + i] = from[c];
        }
        places_.push_back(static_cast<std::uint32_t>(k * kLinkPanel + i));
      }
    }
  }
}

void LevelPanels::fill(const float* coordinates, Tables& out,
                       const kernels::KernelTable& table) const {
  const std::size_t panels = widths_.size();
  // Zero where no dimension goes; the others are written each time.
  out.coordinates_.resize(books_.size() / kLinkLevels);
  out.room_.resize(kernels::level_table_room(panels));
  out.entries.resize(panels * kLinkPanel * kLinkLevels);
  float* const to = out.coordinates_.data();
  for (std::size_t k = 0; k < dims_; ++k) to[places_[k]] = coordinates[k];
  table.level_tables(to, books_.data(), widths_.data(), panels, out.room_.data(),
                     out.entries.data(), &out.step, &out.bias);
}

}  // namespace annx::codec
