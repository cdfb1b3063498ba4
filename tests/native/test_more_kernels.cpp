// SPDX-License-Identifier: Apache-2.0
// The kernels that test_kernels.cpp, test_links.cpp and test_scan.cpp leave out, and
// counts of rows long enough for every way through the others: each instruction set
// that this processor has against the scalar table. Under emulation these are the only
// tests of some kernels (.ci/emulate.sh), since there is no Python there.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"
#include "check.h"
#include "noise.h"

namespace {

using namespace annx;
using namespace annx::kernels;

template <class T>
void check_same(const std::vector<T>& a, const std::vector<T>& b, const KernelTable& t,
                const char* kernel, std::size_t size) {
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0) return;
  test::fail(__FILE__, __LINE__,
             std::string(t.isa) + " " + kernel + " of " + std::to_string(size));
}

template <class Fn>
void for_each_table(Fn fn) {
  for (const IsaInfo& isa : compiled_isas()) {
    if (isa.supported) fn(table_for(isa.name));
  }
}

// Every third place and back again, so that rows are asked for ahead of their turn.
std::vector<std::uint32_t> places(std::size_t count) {
  std::vector<std::uint32_t> slots(count);
  for (std::size_t i = 0; i < count; ++i) {
    slots[i] = static_cast<std::uint32_t>(i * 3 % count);
  }
  return slots;
}

constexpr std::size_t kCounts[] = {0, 1, 2, 5, 37, 300};
constexpr std::size_t kFloatDims[] = {1, 7, 33, 64, 100, 700};

}  // namespace

ANNX_TEST(kernels_agree_on_many_float_rows) {
  const KernelTable& plain = table_for("scalar");
  for_each_table([&](const KernelTable& t) {
    for (const std::size_t count : kCounts) {
      for (const std::size_t dim : kFloatDims) {
        const std::vector<float> query = random_floats(dim, 1);
        const std::vector<float> scales = random_floats(count, 2);
        const std::vector<std::uint32_t> slots = places(count);
        for (std::size_t type = 0; type < kFloatTypes; ++type) {
          const std::size_t stride = dim * (type == 0 ? 4 : 2);
          std::vector<std::byte> rows(count * stride);
          plain.narrow[type](random_floats(count * dim, 3).data(), count * dim,
                             rows.data());
          const float* q = query.data();
          const std::byte* x = rows.data();
          std::vector<float> a(count), b(count), a2(count), b2(count);
          for (std::size_t op = 0; op < kOpCount; ++op) {
            plain.float_rows[op][type](q, x, stride, count, dim, a.data());
            t.float_rows[op][type](q, x, stride, count, dim, b.data());
            check_same(a, b, t, "float_rows", count);
            plain.float_gather[op][type](q, x, stride, slots.data(), count, dim,
                                         a.data());
            t.float_gather[op][type](q, x, stride, slots.data(), count, dim, b.data());
            check_same(a, b, t, "float_gather", count);
          }
          plain.float_cosine_rows[type](q, x, stride, count, dim, a.data(), a2.data());
          t.float_cosine_rows[type](q, x, stride, count, dim, b.data(), b2.data());
          check_same(a, b, t, "float_cosine_rows", count);
          check_same(a2, b2, t, "float_cosine_rows", count);
          plain.cosine_finish(1.5f, a.data(), a2.data(), count, a.data());
          t.cosine_finish(1.5f, b.data(), b2.data(), count, b.data());
          check_same(a, b, t, "cosine_finish", count);
          plain.float_squares[type](x, stride, count, dim, a.data());
          t.float_squares[type](x, stride, count, dim, b.data());
          check_same(a, b, t, "float_squares", count);
          plain.float_cosine_gather[type](q, x, stride, slots.data(), count, dim,
                                          a.data(), a2.data());
          t.float_cosine_gather[type](q, x, stride, slots.data(), count, dim, b.data(),
                                      b2.data());
          check_same(a, b, t, "float_cosine_gather", count);
          check_same(a2, b2, t, "float_cosine_gather", count);
          plain.float_scaled_rows[type](q, x, stride, scales.data(), count, dim,
                                        a.data());
          t.float_scaled_rows[type](q, x, stride, scales.data(), count, dim, b.data());
          check_same(a, b, t, "float_scaled_rows", count);
        }
      }
    }
  });
}

ANNX_TEST(kernels_agree_on_many_fixed_rows) {
  const KernelTable& plain = table_for("scalar");
  for_each_table([&](const KernelTable& t) {
    for (const std::size_t count : kCounts) {
      for (const std::size_t dim : kFloatDims) {
        const std::vector<float> query = random_floats(dim, 1);
        const std::vector<std::uint32_t> slots = places(count);
        const FixedRows fixed = random_fixed(count, dim, 3);
        std::vector<float> a(count), b(count);
        for (std::size_t op = 0; op < kFixedOps; ++op) {
          plain.fixed_rows[op](query.data(), fixed.rows.data(), fixed.stride, count,
                               dim, a.data());
          t.fixed_rows[op](query.data(), fixed.rows.data(), fixed.stride, count, dim,
                           b.data());
          check_same(a, b, t, "fixed_rows", count);
          plain.fixed_gather[op](query.data(), fixed.rows.data(), fixed.stride,
                                 slots.data(), count, dim, a.data());
          t.fixed_gather[op](query.data(), fixed.rows.data(), fixed.stride,
                             slots.data(), count, dim, b.data());
          check_same(a, b, t, "fixed_gather", count);
        }
      }
    }
  });
}

ANNX_TEST(kernels_agree_on_many_byte_and_bit_rows) {
  const KernelTable& plain = table_for("scalar");
  for_each_table([&](const KernelTable& t) {
    for (const std::size_t count : kCounts) {
      for (const std::size_t dim :
           {1u, 3u, 4u, 5u, 7u, 8u, 16u, 33u, 64u, 200u, 1400u}) {
        const std::vector<std::byte> query = random_bytes(dim, 1);
        const std::vector<std::byte> rows = random_bytes(count * dim, 2);
        const std::vector<std::uint32_t> slots = places(count);
        const std::byte* q = query.data();
        const std::byte* x = rows.data();
        std::vector<std::int32_t> a(count), b(count), a2(count), b2(count);
        std::vector<float> c(count), d(count);
        for (std::size_t type = 0; type < kByteTypes; ++type) {
          for (std::size_t op = 0; op < kOpCount; ++op) {
            plain.byte_rows[op][type](q, x, dim, count, dim, a.data());
            t.byte_rows[op][type](q, x, dim, count, dim, b.data());
            check_same(a, b, t, "byte_rows", count);
            plain.byte_gather[op][type](q, x, dim, slots.data(), count, dim, a.data());
            t.byte_gather[op][type](q, x, dim, slots.data(), count, dim, b.data());
            check_same(a, b, t, "byte_gather", count);
          }
          plain.byte_cosine_rows[type](q, x, dim, count, dim, a.data(), a2.data());
          t.byte_cosine_rows[type](q, x, dim, count, dim, b.data(), b2.data());
          check_same(a, b, t, "byte_cosine_rows", count);
          check_same(a2, b2, t, "byte_cosine_rows", count);
          plain.byte_cosine_finish(70, a.data(), a2.data(), count, c.data());
          t.byte_cosine_finish(70, b.data(), b2.data(), count, d.data());
          check_same(c, d, t, "byte_cosine_finish", count);
          plain.byte_cosine_gather[type](q, x, dim, slots.data(), count, dim, a.data(),
                                         a2.data());
          t.byte_cosine_gather[type](q, x, dim, slots.data(), count, dim, b.data(),
                                     b2.data());
          check_same(a, b, t, "byte_cosine_gather", count);
          check_same(a2, b2, t, "byte_cosine_gather", count);
        }
        plain.hamming_rows(q, x, dim, count, dim, a.data());
        t.hamming_rows(q, x, dim, count, dim, b.data());
        check_same(a, b, t, "hamming_rows", count);
        plain.hamming_gather(q, x, dim, slots.data(), count, dim, a.data());
        t.hamming_gather(q, x, dim, slots.data(), count, dim, b.data());
        check_same(a, b, t, "hamming_gather", count);
        plain.jaccard_rows(q, x, dim, count, dim, c.data());
        t.jaccard_rows(q, x, dim, count, dim, d.data());
        check_same(c, d, t, "jaccard_rows", count);
        plain.jaccard_gather(q, x, dim, slots.data(), count, dim, c.data());
        t.jaccard_gather(q, x, dim, slots.data(), count, dim, d.data());
        check_same(c, d, t, "jaccard_gather", count);
      }
    }
  });
}

ANNX_TEST(kernels_of_k_means_agree) {
  const KernelTable& plain = table_for("scalar");
  constexpr std::size_t kGroups = 5;
  const std::vector<std::uint32_t> groups = {4, 0, 3};
  for_each_table([&](const KernelTable& t) {
    for (const std::size_t dim : {1u, 2u, 9u, 40u}) {
      const std::vector<float> packed = random_floats(kGroups * dim * kGroup, 1);
      const std::vector<float> offsets = random_floats(kGroups * kGroup, 2);
      const std::vector<float> points = random_floats(kScorePoints * dim, 3);
      for (std::size_t count = 1; count <= kScorePoints; ++count) {
        std::vector<float> a(count * kGroups * kGroup), b(a), least(count * kGroups),
            least_too(least);
        const auto score = [&](const KernelTable& table, std::vector<float>& scores,
                               std::vector<float>& minima) {
          table.score_tile(points.data(), dim, count, packed.data(), offsets.data(),
                           dim, groups.data(), groups.size(), scores.data(),
                           kGroups * kGroup, minima.data(), kGroups);
        };
        score(plain, a, least);
        score(t, b, least_too);
        check_same(a, b, t, "score_tile", dim);
        check_same(least, least_too, t, "score_tile", dim);
      }
    }
    for (const std::size_t count : {16u, 32u, 160u}) {
      const std::vector<float> scores = random_floats(count, 4);
      const float least = plain.score_least(scores.data(), count);
      CHECK(least == *std::min_element(scores.begin(), scores.end()));
      CHECK(t.score_least(scores.data(), count) == least);
      for (const float limit : {-3.0f, least, -1.0f, 0.0f, 3.0f}) {
        std::vector<std::uint32_t> a(count), b(count);
        const std::size_t n = plain.score_below(scores.data(), count, limit, a.data());
        CHECK_EQ(t.score_below(scores.data(), count, limit, b.data()), n);
        a.resize(n);
        check_same(a, b, t, "score_below", count);
      }
      const std::vector<float> reach = random_floats(count, 5);
      std::vector<float> a(count), b(count);
      CHECK(plain.score_floors(scores.data(), reach.data(), count, 1.5f, 1e-3f, 1e-5f,
                               a.data()) == t.score_floors(scores.data(), reach.data(),
                                                           count, 1.5f, 1e-3f, 1e-5f,
                                                           b.data()));
      check_same(a, b, t, "score_floors", count);
    }
    for (const std::size_t spans : {1u, 15u, 16u, 17u, 50u}) {
      std::vector<float> a = random_floats(spans, 6), b = a;
      std::vector<float> gap = random_floats(spans, 7), gap_too = gap;
      const std::vector<float> drift = random_floats(spans, 8);
      plain.drift_bounds(a.data(), drift.data(), spans, 0.5f, gap.data());
      t.drift_bounds(b.data(), drift.data(), spans, 0.5f, gap_too.data());
      check_same(a, b, t, "drift_bounds", spans);
      check_same(gap, gap_too, t, "drift_bounds", spans);
      const std::vector<float> floors = random_floats(spans, 9);
      const std::vector<float> chosen = random_floats(spans, 10);
      plain.merge_bounds(a.data(), floors.data(), chosen.data(), spans, 0.25f);
      t.merge_bounds(b.data(), floors.data(), chosen.data(), spans, 0.25f);
      check_same(a, b, t, "merge_bounds", spans);
    }
  });
}

ANNX_TEST(kernels_of_codes_agree) {
  const KernelTable& plain = table_for("scalar");
  for_each_table([&](const KernelTable& t) {
    for (std::size_t n = 1; n <= 4096; n *= 2) {
      std::vector<float> a = random_floats(n, 1), b = a, signs = random_floats(n, 7);
      for (float& sign : signs) sign = sign < 0 ? -1.0f : 1.0f;
      plain.hadamard(a.data(), signs.data(), n);
      t.hadamard(b.data(), signs.data(), n);
      check_same(a, b, t, "hadamard", n);
    }
    for (const std::size_t n : {1u, 15u, 16u, 17u, 100u}) {
      const std::vector<std::byte> high = random_bytes(2 * n, 2),
                                   low = random_bytes(2 * n, 3);
      std::vector<float> a(n), b(n);
      plain.join_halves(high.data(), low.data(), n, a.data());
      t.join_halves(high.data(), low.data(), n, b.data());
      check_same(a, b, t, "join_halves", n);
    }
    for (const std::size_t parts : {4u, 12u, 64u}) {
      std::vector<std::uint8_t> widths(parts);
      std::size_t dim = 0;
      for (std::size_t p = 0; p < parts; ++p) {
        widths[p] = static_cast<std::uint8_t>(1 + p % 5);
        dim += widths[p];
      }
      const std::vector<float> points = random_floats(dim * kPieceGroup, 4);
      const std::vector<float> books = random_floats(dim * kLinkLevels, 5);
      const std::vector<float> halves = random_floats(parts * kLinkLevels, 6);
      std::vector<std::uint8_t> a(parts / 2 * kPieceGroup), b(a);
      std::vector<float> dots(kPieceGroup), dots_too(kPieceGroup);
      plain.piece_encode(points.data(), books.data(), halves.data(), widths.data(),
                         parts, a.data(), dots.data());
      t.piece_encode(points.data(), books.data(), halves.data(), widths.data(), parts,
                     b.data(), dots_too.data());
      check_same(a, b, t, "piece_encode", parts);
      check_same(dots, dots_too, t, "piece_encode", parts);
    }
  });
}

ANNX_TEST(kernels_of_boxes_and_leaves_agree) {
  const KernelTable& plain = table_for("scalar");
  for_each_table([&](const KernelTable& t) {
    for (std::size_t dim = 1; dim <= kMaxLeafDim; ++dim) {
      const std::vector<float> query = random_floats(dim, 1);
      std::vector<float> boxes = random_floats(dim * 2 * kBoxFan, 2);
      for (std::size_t k = 0; k < dim; ++k) {
        for (std::size_t i = 0; i < kBoxFan; ++i) {
          float& low = boxes[k * 2 * kBoxFan + i];
          float& high = boxes[(2 * k + 1) * kBoxFan + i];
          if (high < low) std::swap(low, high);
        }
      }
      for (std::size_t op = 0; op < 2; ++op) {
        std::vector<float> a(kBoxFan), b(kBoxFan);
        plain.box_bounds[op](query.data(), boxes.data(), dim, a.data());
        t.box_bounds[op](query.data(), boxes.data(), dim, b.data());
        for (std::size_t i = 0; i < kBoxFan; ++i) {
          const float bound = 2 * static_cast<float>(dim + 3) * 0x1.0p-24f * a[i];
          CHECK(std::abs(a[i] - b[i]) <= bound);
        }
      }
      const std::vector<float> points = random_floats(dim * kLeafPoints, 3);
      const std::vector<float> scales = random_floats(kLeafPoints, 4);
      for (std::size_t op = 0; op < 3; ++op) {
        const float* scaled = op == 2 ? scales.data() : nullptr;
        for (const float limit : {0.0f, 1.3f * static_cast<float>(dim)}) {
          std::vector<float> a(kLeafPoints), b(kLeafPoints);
          const std::uint32_t near = plain.leaf_keys[op](query.data(), points.data(),
                                                         scaled, dim, limit, a.data());
          CHECK_EQ(t.leaf_keys[op](query.data(), points.data(), scaled, dim, limit,
                                   b.data()),
                   near);
          check_same(a, b, t, "leaf_keys", dim);
        }
      }
    }
  });
}

// Sums of tiles depend on the instruction set, so each is held to its own `block`.
ANNX_TEST(kernels_that_judge_a_tile_twice_do_as_one_that_judges_it_once) {
  constexpr std::size_t kQueries = 29, kRows = 21, kDim = 17;
  const std::vector<float> queries = random_floats(kQueries * kDim, 1);
  const std::vector<float> rows = random_floats(kRows * kDim, 2);
  const std::vector<float> centre = random_floats(kDim, 3);
  const std::vector<float> scales = random_floats(kRows, 4);
  for_each_table([&](const KernelTable& t) {
    const TileKernels& tile = t.tile;
    const std::size_t query_panels = (kQueries + tile.queries - 1) / tile.queries;
    const std::size_t row_panels = (kRows + tile.rows - 1) / tile.rows;
    const std::size_t tall = query_panels * tile.queries;
    const std::size_t wide = row_panels * tile.rows;
    std::vector<float> q(tall * kDim), x(wide * kDim), squares(wide), out(tall * wide);
    tile.pack_queries(queries.data(), kDim, kQueries, kDim, nullptr, nullptr, 1.0f,
                      q.data(), nullptr);
    tile.pack_rows(rows.data(), kDim, kRows, kDim, centre.data(), scales.data(), -2.0f,
                   x.data(), squares.data());
    for (std::size_t j = 0; j < kRows; ++j) {
      double square = 0;
      for (std::size_t k = 0; k < kDim; ++k) {
        const float y = std::fma(rows[j * kDim + k], scales[j], -centre[k]);
        const std::size_t panel = j / tile.rows;
        CHECK_EQ(x[(panel * kDim + k) * tile.rows + j % tile.rows], -2 * y);
        square += static_cast<double>(y) * y;
      }
      CHECK(std::abs(squares[j] - square) <= square * (kDim + 1) * 0x1.1p-24);
    }
    tile.block(q.data(), query_panels, x.data(), row_panels, kDim, nullptr, out.data(),
               wide);
    const std::vector<float> left = random_floats(tall, 5),
                             right = random_floats(wide, 6);
    for (const float limit : {-40.0f, -8.0f, 0.0f}) {
      std::vector<float> left_limits(tall, limit), right_limits(wide, -60.0f);
      right_limits[3] = 2.0f;
      for (std::size_t p = 0; p < row_panels; ++p) {
        std::vector<float> sums(tile.queries * tile.rows);
        std::vector<std::uint32_t> hits(tile.queries);
        std::size_t g = 0;
        for (std::size_t panel = 0; panel <= query_panels; ++panel) {
          const auto value = [&](std::size_t i, std::size_t j) {
            const std::size_t a = panel * tile.queries + i, b = p * tile.rows + j;
            return out[a * wide + b] + (left[a] + right[b]);
          };
          const auto hit = [&](std::size_t i, std::size_t j) {
            return value(i, j) < std::max(limit, right_limits[p * tile.rows + j]);
          };
          bool any = panel == query_panels;
          for (std::size_t i = 0; i < tile.queries && !any; ++i) {
            for (std::size_t j = 0; j < tile.rows; ++j) any = any || hit(i, j);
          }
          if (!any) continue;
          const std::size_t first = p * tile.rows;
          g = t.tile_meet(q.data(), g, query_panels, x.data() + first * kDim, kDim,
                          {left.data(), left_limits.data()},
                          {right.data() + first, right_limits.data() + first},
                          sums.data(), hits.data());
          CHECK_EQ(g, panel);
          if (panel == query_panels) break;
          for (std::size_t i = 0; i < tile.queries; ++i) {
            for (std::size_t j = 0; j < tile.rows; ++j) {
              CHECK_EQ(sums[i * tile.rows + j], value(i, j));
              CHECK_EQ((hits[i] >> j) & 1u, hit(i, j) ? 1u : 0u);
            }
          }
          ++g;
        }
      }
    }
  });
}
