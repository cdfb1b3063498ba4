// SPDX-License-Identifier: Apache-2.0
// The kernels of inverted lists: every instruction set that this processor has against
// the scalar table, bit for bit, and the scalar one against sums written out.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "annx/base/random.h"
#include "annx/codec/level_panels.h"
#include "annx/kernels/dispatch.h"
#include "check.h"

namespace {

using namespace annx;
using namespace annx::kernels;

struct Case {
  std::vector<std::uint8_t> widths;
  std::vector<float> levels;
  std::vector<float> coordinates;
  std::vector<std::byte> blocks;  // codes, offsets, scales; and 8 bytes between blocks
  std::size_t stride = 0;
  std::size_t count = 0;
};

Case make_case(std::size_t parts, std::size_t count, std::uint64_t seed) {
  const Random random(seed, parts);
  std::uint64_t at = 0;
  const auto value = [&] { return static_cast<float>(2 * random.unit(at++) - 1); };
  Case c;
  std::size_t dim = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    c.widths.push_back(static_cast<std::uint8_t>(random.below(at++, 5)));
    dim += c.widths.back();
  }
  for (std::size_t i = 0; i < dim * kLinkLevels; ++i) c.levels.push_back(value());
  for (std::size_t i = 0; i < dim; ++i) c.coordinates.push_back(value());
  c.count = count;
  const std::size_t codes = parts / 2 * kPieceGroup;
  c.stride = codes + 4 * kPieceGroup + 8;
  const std::size_t blocks = (count + kPieceGroup - 1) / kPieceGroup;
  c.blocks.resize(blocks * c.stride);
  for (std::size_t b = 0; b < blocks; ++b) {
    std::byte* block = c.blocks.data() + b * c.stride;
    for (std::size_t i = 0; i < codes; ++i) {
      block[i] = static_cast<std::byte>(random.below(at++, 256));
    }
    std::vector<float> numbers(2 * kPieceGroup);
    for (float& x : numbers) x = value();
    active().narrow[1](numbers.data(), numbers.size(), block + codes);
  }
  return c;
}

codec::LevelPanels::Tables tables_of(const KernelTable& table, const Case& c) {
  codec::LevelPanels::Tables tables;
  codec::LevelPanels(c.levels, c.widths).fill(c.coordinates.data(), tables, table);
  return tables;
}

struct Found {
  std::vector<float> keys;
  std::vector<std::uint32_t> places;
};

Found scan(const KernelTable& table, const Case& c, const codec::LevelPanels::Tables& t,
           float limit) {
  Found found;
  found.keys.resize(c.count + kPieceGroup + 1);
  found.places.resize(found.keys.size());
  const ScanQuery query{t.entries.data(), c.widths.size(), t.step, t.bias, 0.5f};
  const std::size_t n =
      table.scan_blocks(query, c.blocks.data(), c.stride, c.count, 0.25f, limit, 64,
                        found.keys.data(), found.places.data());
  found.keys.resize(n);
  found.places.resize(n);
  return found;
}

}  // namespace

ANNX_TEST(scan_kernels_agree_on_every_instruction_set) {
  const KernelTable& scalar = table_for("scalar");
  for (const std::size_t parts : {4u, 8u, 36u, 256u, 260u, 516u}) {
    for (const std::size_t count : {1u, 31u, 32u, 33u, 100u}) {
      const Case c = make_case(parts, count, count);
      const auto expected = tables_of(scalar, c);
      for (const IsaInfo& isa : compiled_isas()) {
        if (!isa.supported) continue;
        const KernelTable& table = table_for(isa.name);
        const auto got = tables_of(table, c);
        CHECK(got.entries == expected.entries);
        CHECK(got.step == expected.step && got.bias == expected.bias);
        for (const float limit :
             {std::numeric_limits<float>::infinity(), 0.3f, 0.0f, -1e9f}) {
          const Found a = scan(scalar, c, expected, limit);
          const Found b = scan(table, c, expected, limit);
          CHECK(a.places == b.places);
          CHECK(a.keys == b.keys);
        }
      }
    }
  }
}

ANNX_TEST(scan_kernels_sum_what_tables_say) {
  const Case c = make_case(260, 70, 5);
  const KernelTable& table = active();
  const auto t = tables_of(table, c);
  const Found all = scan(table, c, t, std::numeric_limits<float>::infinity());
  CHECK(all.keys.size() == c.count);
  const std::size_t codes = c.widths.size() / 2 * kPieceGroup;
  for (std::size_t i = 0; i < c.count; ++i) {
    const std::byte* block = c.blocks.data() + i / kPieceGroup * c.stride;
    const std::size_t lane = i % kPieceGroup;
    double rounded = 0;
    double exact = 0;
    std::size_t axis = 0;
    for (std::size_t p = 0; p < c.widths.size(); ++p) {
      const auto two = static_cast<unsigned>(block[p / 2 * kPieceGroup + lane]);
      const unsigned code = two >> (4 * (p % 2)) & 15u;
      rounded += t.entries[p * kLinkLevels + code];
      for (std::size_t k = 0; k < c.widths[p]; ++k, ++axis) {
        exact += static_cast<double>(c.coordinates[axis]) *
                 static_cast<double>(c.levels[axis * kLinkLevels + code]);
      }
    }
    const double dot =
        static_cast<double>(t.bias) + static_cast<double>(t.step) * rounded;
    // Half a step a part.
    CHECK(std::abs(dot - exact) <=
          0.5001 * static_cast<double>(t.step) * static_cast<double>(c.widths.size()));
    float offset;
    float scale;
    table.widen[1](block + codes + 2 * lane, 1, &offset);
    table.widen[1](block + codes + 2 * (kPieceGroup + lane), 1, &scale);
    const double key =
        0.25 + 0.5 * (static_cast<double>(offset) + static_cast<double>(scale) * dot);
    CHECK(std::abs(static_cast<double>(all.keys[i]) - key) <
          1e-4 * (1 + std::abs(dot)));
    CHECK(all.places[i] == 64 + i);
  }
}

ANNX_TEST(score_point_equals_score_tile) {
  for (const IsaInfo& isa : compiled_isas()) {
    if (!isa.supported) continue;
    const KernelTable& table = table_for(isa.name);
    for (const std::size_t groups : {1u, 4u, 7u}) {
      for (const std::size_t dim : {1u, 5u, 50u}) {
        const Random random(groups, dim);
        std::vector<float> packed(groups * dim * kGroup), offsets(groups * kGroup);
        std::vector<float> point(dim), one(groups * kGroup), tile(groups * kGroup);
        std::vector<std::uint32_t> numbers(groups);
        std::uint64_t at = 0;
        for (float& x : packed) x = static_cast<float>(random.unit(at++) - 0.5);
        for (float& x : offsets) x = static_cast<float>(random.unit(at++));
        for (float& x : point) x = static_cast<float>(random.unit(at++) - 0.5);
        for (std::size_t g = 0; g < groups; ++g) {
          numbers[g] = static_cast<std::uint32_t>(g);
        }
        table.score_point(point.data(), packed.data(), offsets.data(), dim, groups,
                          one.data());
        table.score_tile(point.data(), dim, 1, packed.data(), offsets.data(), dim,
                         numbers.data(), groups, tile.data(), tile.size(), nullptr, 0);
        CHECK(one == tile);
      }
    }
  }
}
