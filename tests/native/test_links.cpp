// SPDX-License-Identifier: Apache-2.0
// The kernels of link codes: every instruction set that this processor has against the
// scalar table, bit for bit, and the scalar one against sums written out.
#include <bit>
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
  std::vector<float> halves;
  std::vector<float> coordinates;  // of a query
  std::vector<float> points;       // of a group, [axis][kLinkGroup]
};

Case make_case(std::size_t parts, std::uint64_t seed) {
  const Random random(seed, parts);
  std::uint64_t at = 0;
  const auto value = [&] { return static_cast<float>(2 * random.unit(at++) - 1); };
  Case c;
  std::size_t axes = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    c.widths.push_back(static_cast<std::uint8_t>(1 + random.below(at++, 16)));
    axes += c.widths.back();
  }
  for (std::size_t i = 0; i < axes * kLinkLevels; ++i) c.levels.push_back(value());
  for (std::size_t i = 0; i < parts * kLinkLevels; ++i) c.halves.push_back(value());
  for (std::size_t i = 0; i < axes; ++i) c.coordinates.push_back(value());
  for (std::size_t i = 0; i < axes * kLinkGroup; ++i) c.points.push_back(value());
  return c;
}

codec::LevelPanels::Tables tables_of(const KernelTable& table, const Case& c) {
  codec::LevelPanels::Tables tables;
  codec::LevelPanels(c.levels, c.widths).fill(c.coordinates.data(), tables, table);
  return tables;
}

// Nothing to read ahead.
constexpr LinkAhead kStay{nullptr, nullptr, 0, 0};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

ANNX_TEST(link_kernels_agree_on_every_instruction_set) {
  const KernelTable& scalar = table_for("scalar");
  for (const IsaInfo& isa : compiled_isas()) {
    if (!isa.supported) continue;
    const KernelTable& table = table_for(isa.name);
    for (const std::size_t parts : {4u, 8u, 12u, 64u, 252u, 256u}) {
      const Case c = make_case(parts, 7);
      const auto expected = tables_of(scalar, c);
      const auto tables = tables_of(table, c);
      CHECK(tables.entries == expected.entries);
      CHECK(tables.step == expected.step && tables.bias == expected.bias);

      std::vector<std::uint8_t> codes(link_code_bytes(parts));
      std::vector<std::uint8_t> expected_codes(codes.size());
      std::vector<float> dots(kLinkGroup), expected_dots(kLinkGroup);
      table.link_encode(c.points.data(), c.levels.data(), c.halves.data(),
                        c.widths.data(), parts, codes.data(), dots.data());
      scalar.link_encode(c.points.data(), c.levels.data(), c.halves.data(),
                         c.widths.data(), parts, expected_codes.data(),
                         expected_dots.data());
      CHECK(codes == expected_codes);
      CHECK(same(dots, expected_dots));

      // float16: 1, -2, 0.5, infinity, NaN, zero.
      constexpr std::uint16_t kHalves[] = {0x3C00, 0xC000, 0x3800, 0x7C00, 0x7E00, 0};
      std::vector<std::uint16_t> offsets, scales;
      for (std::size_t i = 0; i < kLinkGroup; ++i) {
        offsets.push_back(kHalves[i % 4]);
        scales.push_back(kHalves[(i / 4) % 6]);
      }
      for (const float limit : {0.0f, 3.0f, std::numeric_limits<float>::infinity()}) {
        const LinkQuery query{tables.entries.data(), parts, tables.step, tables.bias,
                              0.75f};
        std::vector<float> out(kLinkGroup), expected_out(kLinkGroup);
        const auto* offset = reinterpret_cast<const std::byte*>(offsets.data());
        const auto* scale = reinterpret_cast<const std::byte*>(scales.data());
        const std::uint32_t near = table.link_scan(query, codes.data(), offset, scale,
                                                   1.5f, limit, kStay, out.data());
        const std::uint32_t expected_near =
            scalar.link_scan(query, codes.data(), offset, scale, 1.5f, limit, kStay,
                             expected_out.data());
        CHECK(near == expected_near);
        CHECK(near >> kLinkGroup == 0);
        for (std::size_t i = 0; i < kLinkGroup; ++i) {
          CHECK(std::isnan(out[i]) == std::isnan(expected_out[i]));
          if (std::isnan(out[i])) out[i] = expected_out[i] = 0;
          CHECK(((near >> i & 1) != 0) == !(limit < expected_out[i]));
        }
        CHECK(same(out, expected_out));
      }
    }
  }
}

ANNX_TEST(link_scan_adds_up_the_entries_of_the_codes) {
  const std::size_t parts = 256;
  std::vector<std::uint8_t> tables(parts * kLinkLevels);
  const Random random(3, 0);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    // The largest sum there is, for the code 15.
    tables[i] =
        i % kLinkLevels == 15 ? 127 : static_cast<std::uint8_t>(random.below(i, 128));
  }
  std::vector<std::uint8_t> codes(link_code_bytes(parts));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] =
        i % kLinkGroup == 0 ? 255 : static_cast<std::uint8_t>(random.below(i, 256));
  }
  const std::vector<std::uint16_t> offsets(kLinkGroup, 0), scales(kLinkGroup, 0x3C00);
  for (const IsaInfo& isa : compiled_isas()) {
    if (!isa.supported) continue;
    std::vector<float> out(kLinkGroup);
    table_for(isa.name).link_scan({tables.data(), parts, 1.0f, 0.0f, 1.0f},
                                  codes.data(),
                                  reinterpret_cast<const std::byte*>(offsets.data()),
                                  reinterpret_cast<const std::byte*>(scales.data()),
                                  0.0f, 0.0f, kStay, out.data());
    for (std::size_t i = 0; i < kLinkGroup; ++i) {
      std::uint32_t sum = 0;
      for (std::size_t p = 0; p < parts; ++p) {
        const unsigned code = codes[link_code_at(p, i)] >> link_code_shift(p) & 15u;
        sum += tables[p * kLinkLevels + code];
      }
      CHECK(out[i] == static_cast<float>(sum));
    }
  }
}

ANNX_TEST(hadamard_is_the_sum_by_signs_on_every_instruction_set) {
  for (std::size_t n = 1; n <= 2048; n *= 2) {
    const Random random(9, n);
    std::vector<float> x(n), signs(n);
    for (std::size_t i = 0; i < n; ++i) {
      x[i] = static_cast<float>(random.below(i, 17)) - 8;
      signs[i] = random.below(n + i, 2) == 0 ? 0.5f : -0.5f;
    }
    // Sums of small multiples of a half are exact in any order.
    std::vector<float> expected(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        const float term = signs[j] * x[j];
        expected[i] += std::popcount(i & j) % 2 == 0 ? term : -term;
      }
    }
    for (const IsaInfo& isa : compiled_isas()) {
      if (!isa.supported) continue;
      std::vector<float> got = x;
      table_for(isa.name).hadamard(got.data(), signs.data(), n);
      CHECK(same(got, expected));
    }
  }
}
