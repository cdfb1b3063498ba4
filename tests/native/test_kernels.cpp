// SPDX-License-Identifier: Apache-2.0
// Every kernel of every instruction set that this processor has against the scalar
// table, bit for bit, with the rows between pages that may not be touched: once ending
// at the second, once beginning after the first. Needs no Python, so that it also runs
// under emulation (.ci/emulate.sh), where ANNX_EXPECT_ISA says what must be chosen.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"
#include "check.h"
#include "noise.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define ANNX_GUARDS 1
#endif

namespace {

using namespace annx;
using namespace annx::kernels;

constexpr std::size_t kDims[] = {0,  1,  2,  3,  4,   5,   7,   8,   9,  12,
                                 13, 15, 16, 17, 23,  24,  31,  32,  33, 47,
                                 50, 63, 64, 65, 100, 127, 128, 129, 384};
constexpr std::size_t kCount = 9;

// Memory with a page before and after it that faults when it is touched.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) {
#if defined(ANNX_GUARDS)
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    size_ = (bytes + page - 1) / page * page + page;
    whole_ = size_ + 2 * page;
    void* p = mmap(nullptr, whole_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    CHECK(p != MAP_FAILED);
    base_ = static_cast<std::byte*>(p);
    data_ = base_ + page;
    CHECK(mprotect(base_, page, PROT_NONE) == 0);
    CHECK(mprotect(data_ + size_, page, PROT_NONE) == 0);
#else
    size_ = bytes + 4096;
    data_ = base_ = static_cast<std::byte*>(std::malloc(size_));
#endif
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
#if defined(ANNX_GUARDS)
    munmap(base_, whole_);
#else
    std::free(base_);
#endif
  }
  std::byte* first() { return data_; }
  std::byte* last(std::size_t bytes) { return data_ + size_ - bytes; }

 private:
  std::byte* base_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t whole_ = 0;
};

// Rows of a float type (0, 1, 2), made by the scalar table's own conversion.
std::vector<std::byte> random_rows(std::size_t type, std::size_t n,
                                   std::uint64_t stream) {
  const std::vector<float> x = random_floats(n, stream);
  std::vector<std::byte> rows(n * (type == 0 ? 4 : 2));
  table_for("scalar").narrow[type](x.data(), n, rows.data());
  return rows;
}

std::vector<const KernelTable*> others() {
  std::vector<const KernelTable*> tables;
  for (const IsaInfo& info : compiled_isas()) {
    if (info.supported) tables.push_back(&table_for(info.name));
  }
  return tables;
}

template <class T>
void check_same(const std::vector<T>& a, const std::vector<T>& b,
                const std::string& what) {
  CHECK_EQ(a.size(), b.size());
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0) return;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) {
      test::fail(__FILE__, __LINE__,
                 what + " at " + std::to_string(i) + ": " + std::to_string(a[i]) +
                     " against " + std::to_string(b[i]));
    }
  }
}

// Runs fn(rows) with the rows at both ends of guarded memory, and the query likewise.
template <class Fn>
void at_both_ends(Guarded& memory, const std::vector<std::byte>& rows, Fn fn) {
  if (!rows.empty()) {
    std::memcpy(memory.last(rows.size()), rows.data(), rows.size());
  }
  fn(memory.last(rows.size()));
  if (!rows.empty()) std::memcpy(memory.first(), rows.data(), rows.size());
  fn(memory.first());
}

const float* random_query(Guarded& memory, std::size_t dim) {
  std::byte* at = memory.last(dim * sizeof(float));
  if (dim != 0) std::memcpy(at, random_floats(dim, 1).data(), dim * sizeof(float));
  return reinterpret_cast<const float*>(at);
}

std::string label(const KernelTable& t, const char* kernel, std::size_t op,
                  std::size_t type, std::size_t dim) {
  return std::string(t.isa) + " " + kernel + " op " + std::to_string(op) + " type " +
         std::to_string(type) + " dim " + std::to_string(dim);
}

const std::vector<std::uint32_t> kSlots = {8, 0, 3, 3, 7, 1, 2, 8, 5, 6, 4, 0, 8};

}  // namespace

ANNX_TEST(kernels_float_tables_agree_and_stay_within_rows) {
  Guarded memory(1 << 16), query_memory(1 << 12);
  const KernelTable& plain = table_for("scalar");
  for (const KernelTable* t : others()) {
    for (const std::size_t dim : kDims) {
      const float* q = random_query(query_memory, dim);
      for (std::size_t type = 0; type < kFloatTypes; ++type) {
        const std::size_t stride = dim * (type == 0 ? 4 : 2);
        const auto rows = random_rows(type, kCount * dim, 2);
        at_both_ends(memory, rows, [&](const std::byte* at) {
          for (std::size_t op = 0; op < kOpCount; ++op) {
            std::vector<float> a(kCount), b(kCount);
            plain.float_rows[op][type](q, at, stride, kCount, dim, a.data());
            t->float_rows[op][type](q, at, stride, kCount, dim, b.data());
            check_same(a, b, label(*t, "rows", op, type, dim));
            a.resize(kSlots.size());
            b.resize(kSlots.size());
            plain.float_gather[op][type](q, at, stride, kSlots.data(), kSlots.size(),
                                         dim, a.data());
            t->float_gather[op][type](q, at, stride, kSlots.data(), kSlots.size(), dim,
                                      b.data());
            check_same(a, b, label(*t, "gather", op, type, dim));
          }
          std::vector<float> a(kCount), b(kCount), a2(kCount), b2(kCount);
          plain.float_cosine_rows[type](q, at, stride, kCount, dim, a.data(),
                                        a2.data());
          t->float_cosine_rows[type](q, at, stride, kCount, dim, b.data(), b2.data());
          check_same(a, b, label(*t, "cosine dots", 0, type, dim));
          check_same(a2, b2, label(*t, "cosine squares", 0, type, dim));
          t->float_squares[type](at, stride, kCount, dim, b.data());
          check_same(a2, b, label(*t, "squares", 0, type, dim));
          plain.cosine_finish(2.5f, a.data(), a2.data(), kCount, b2.data());
          t->cosine_finish(2.5f, a.data(), a2.data(), kCount, b.data());
          check_same(b2, b, label(*t, "cosine_finish", 0, type, dim));
        });
      }
    }
  }
}

ANNX_TEST(kernels_fixed_rows_agree_with_float_rows_and_stay_within_rows) {
  Guarded memory(1 << 16), query_memory(1 << 12);
  const KernelTable& plain = table_for("scalar");
  for (const KernelTable* t : others()) {
    for (const std::size_t dim : kDims) {
      const float* q = random_query(query_memory, dim);
      const FixedRows fixed = random_fixed(kCount, dim, 2);
      std::vector<float> want[kFixedOps] = {std::vector<float>(kCount),
                                            std::vector<float>(kCount)};
      const auto floats = [&](Op op, const std::vector<float>& rows) {
        plain.float_rows[op][0](q, reinterpret_cast<const std::byte*>(rows.data()),
                                dim * 4, kCount, dim, want[op].data());
      };
      floats(kOpL2, fixed.wide);
      floats(kOpDot, fixed.numbers);
      for (std::size_t i = 0; i < kCount; ++i) want[kOpDot][i] *= fixed.steps[i];
      at_both_ends(memory, fixed.rows, [&](const std::byte* at) {
        for (std::size_t op = 0; op < kFixedOps; ++op) {
          std::vector<float> a(kCount), b(kSlots.size()), c(kSlots.size());
          t->fixed_rows[op](q, at, fixed.stride, kCount, dim, a.data());
          check_same(want[op], a, label(*t, "fixed rows", op, 0, dim));
          t->fixed_gather[op](q, at, fixed.stride, kSlots.data(), kSlots.size(), dim,
                              b.data());
          for (std::size_t i = 0; i < kSlots.size(); ++i) c[i] = want[op][kSlots[i]];
          check_same(c, b, label(*t, "fixed gather", op, 0, dim));
        }
      });
    }
  }
}

ANNX_TEST(kernels_byte_tables_agree_and_stay_within_rows) {
  Guarded memory(1 << 16), query_memory(1 << 12);
  const KernelTable& plain = table_for("scalar");
  constexpr std::size_t kQueries = 3;
  for (const KernelTable* t : others()) {
    for (const std::size_t dim : kDims) {
      const auto queries = random_bytes(kQueries * dim, 1);
      std::byte* q = query_memory.last(queries.size());
      if (dim != 0) std::memcpy(q, queries.data(), queries.size());
      const auto rows = random_bytes(kCount * dim, 2);
      at_both_ends(memory, rows, [&](const std::byte* at) {
        for (std::size_t type = 0; type < kByteTypes; ++type) {
          for (std::size_t op = 0; op < kOpCount; ++op) {
            std::vector<std::int32_t> a(kCount), b(kCount);
            plain.byte_rows[op][type](q, at, dim, kCount, dim, a.data());
            t->byte_rows[op][type](q, at, dim, kCount, dim, b.data());
            check_same(a, b, label(*t, "rows", op, type, dim));
            a.resize(kSlots.size());
            b.resize(kSlots.size());
            plain.byte_gather[op][type](q, at, dim, kSlots.data(), kSlots.size(), dim,
                                        a.data());
            t->byte_gather[op][type](q, at, dim, kSlots.data(), kSlots.size(), dim,
                                     b.data());
            check_same(a, b, label(*t, "gather", op, type, dim));
            a.assign(kQueries * kCount, 0);
            b = a;
            plain.byte_block[op][type](q, dim, kQueries, at, dim, kCount, dim, a.data(),
                                       kCount);
            t->byte_block[op][type](q, dim, kQueries, at, dim, kCount, dim, b.data(),
                                    kCount);
            check_same(a, b, label(*t, "block", op, type, dim));
          }
          std::vector<std::int32_t> a(kCount), b(kCount), a2(kCount), b2(kCount);
          plain.byte_cosine_rows[type](q, at, dim, kCount, dim, a.data(), a2.data());
          t->byte_cosine_rows[type](q, at, dim, kCount, dim, b.data(), b2.data());
          check_same(a, b, label(*t, "cosine dots", 0, type, dim));
          check_same(a2, b2, label(*t, "cosine squares", 0, type, dim));
          t->byte_squares[type](at, dim, kCount, dim, b.data());
          check_same(a2, b, label(*t, "squares", 0, type, dim));
        }
        std::vector<std::int32_t> a(kQueries * kCount), b(a);
        plain.hamming_block(q, dim, kQueries, at, dim, kCount, dim, a.data(), kCount);
        t->hamming_block(q, dim, kQueries, at, dim, kCount, dim, b.data(), kCount);
        check_same(a, b, label(*t, "hamming", 0, 0, dim));
        std::vector<float> c(kQueries * kCount), d(c);
        plain.jaccard_block(q, dim, kQueries, at, dim, kCount, dim, c.data(), kCount);
        t->jaccard_block(q, dim, kQueries, at, dim, kCount, dim, d.data(), kCount);
        check_same(c, d, label(*t, "jaccard", 0, 0, dim));
      });
    }
  }
}

ANNX_TEST(kernels_conversions_agree_for_every_word) {
  const KernelTable& plain = table_for("scalar");
  std::vector<std::byte> words(65536 * 2);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto w = static_cast<std::uint16_t>(i);
    std::memcpy(words.data() + i * 2, &w, 2);
  }
  const auto noise = random_bytes(65536 * 4, 5);
  std::vector<float> x(65536);
  std::memcpy(x.data(), noise.data(), noise.size());
  // A NaN's payload is the processor's business.
  for (float& v : x) {
    if (std::isnan(v)) v = std::numeric_limits<float>::infinity();
  }
  for (const KernelTable* t : others()) {
    for (std::size_t type = 1; type < kFloatTypes; ++type) {
      std::vector<float> a(65536), b(65536);
      plain.widen[type](words.data(), 65536, a.data());
      t->widen[type](words.data(), 65536, b.data());
      for (std::size_t i = 0; i < a.size(); ++i) {
        CHECK_EQ(std::isnan(a[i]), std::isnan(b[i]));
        if (std::isnan(a[i])) a[i] = b[i] = 0;
      }
      check_same(a, b, label(*t, "widen", 0, type, 65536));
      std::vector<std::byte> c(65536 * 2), d(c);
      for (const std::vector<float>& in : {a, x}) {
        plain.narrow[type](in.data(), in.size(), c.data());
        t->narrow[type](in.data(), in.size(), d.data());
        CHECK(c == d);
      }
    }
    for (std::size_t type = kFloatTypes; type < kFloatTypes + kByteTypes; ++type) {
      for (const std::size_t n : kDims) {
        std::vector<float> a(n), b(n);
        plain.widen[type](noise.data(), n, a.data());
        t->widen[type](noise.data(), n, b.data());
        check_same(a, b, label(*t, "widen", 0, type, n));
      }
    }
  }
}

// Each sum of a tile is one chain of fused multiply-adds from the bias.
ANNX_TEST(kernels_tiles_equal_a_chain_of_multiply_adds) {
  constexpr std::size_t kQueries = 14, kRows = 37, kDim = 19;
  const auto queries = random_floats(kQueries * kDim, 3);
  const auto rows = random_floats(kRows * kDim, 4);
  for (const KernelTable* t : others()) {
    const TileKernels& tile = t->tile;
    const std::size_t query_panels = (kQueries + tile.queries - 1) / tile.queries;
    const std::size_t row_panels = (kRows + tile.rows - 1) / tile.rows;
    const std::size_t wide = row_panels * tile.rows;
    std::vector<float> q(query_panels * tile.queries * kDim), x(wide * kDim);
    tile.pack_queries(queries.data(), kDim, kQueries, kDim, nullptr, nullptr, 1.0f,
                      q.data(), nullptr);
    tile.pack_rows(rows.data(), kDim, kRows, kDim, nullptr, nullptr, 1.0f, x.data(),
                   nullptr);
    std::vector<float> bias = random_floats(wide, 5);
    for (std::size_t j = kRows; j < wide; ++j) {
      bias[j] = std::numeric_limits<float>::infinity();
    }
    std::vector<float> out(query_panels * tile.queries * wide);
    tile.block(q.data(), query_panels, x.data(), row_panels, kDim, bias.data(),
               out.data(), wide);
    for (std::size_t i = 0; i < kQueries; ++i) {
      for (std::size_t j = 0; j < kRows; ++j) {
        float sum = bias[j];
        for (std::size_t k = 0; k < kDim; ++k) {
          sum = std::fma(queries[i * kDim + k], rows[j * kDim + k], sum);
        }
        CHECK_EQ(out[i * wide + j], sum);
      }
    }
    // scan finds exactly the panels with a sum below the limit.
    std::vector<float> limits(query_panels * tile.queries, -1.0f);
    std::vector<float> sums(tile.queries * tile.rows);
    std::vector<std::uint32_t> hits(tile.queries);
    for (std::size_t p = 0; p < row_panels; ++p) {
      std::size_t g = 0;
      for (std::size_t panel = 0; panel < query_panels; ++panel) {
        bool any = false;
        for (std::size_t i = 0; i < tile.queries; ++i) {
          for (std::size_t j = 0; j < tile.rows; ++j) {
            any |= out[(panel * tile.queries + i) * wide + p * tile.rows + j] < -1.0f;
          }
        }
        if (!any) continue;
        g = tile.scan(q.data(), g, query_panels, x.data() + p * kDim * tile.rows, kDim,
                      bias.data() + p * tile.rows, limits.data(), sums.data(),
                      hits.data());
        CHECK_EQ(g, panel);
        for (std::size_t i = 0; i < tile.queries; ++i) {
          for (std::size_t j = 0; j < tile.rows; ++j) {
            const float sum =
                out[(panel * tile.queries + i) * wide + p * tile.rows + j];
            CHECK_EQ(sums[i * tile.rows + j], sum);
            CHECK_EQ((hits[i] >> j) & 1u, sum < -1.0f ? 1u : 0u);
          }
        }
        ++g;
      }
      CHECK_EQ(tile.scan(q.data(), g, query_panels, x.data() + p * kDim * tile.rows,
                         kDim, bias.data() + p * tile.rows, limits.data(), sums.data(),
                         hits.data()),
               query_panels);
    }
  }
}

// What is not in doubt is the canonical nearest, no floor is too high, and packing
// reads nothing outside the rows.
ANNX_TEST(kernels_lanes_name_the_nearest_or_say_that_they_cannot) {
  constexpr std::size_t kPoints = 45;
  Guarded memory(1 << 16);
  const KernelTable& plain = table_for("scalar");
  for (const KernelTable* t : others()) {
    const std::size_t wide = t->tile.rows;
    const std::size_t queries = t->tile.queries;
    for (const std::size_t dim : {1, 3, 4, 7, 8, 9, 16, 21, 40}) {
      for (const std::size_t k : {1, 2, 5, 16, 61}) {
        const std::string what = label(*t, "nearest_lanes", k, 0, dim);
        std::vector<float> x = random_floats(kPoints * dim, 3);
        std::vector<float> c = random_floats(k * dim, 4);
        // A duplicate, and points on centroids.
        if (k > 2) std::copy_n(c.data(), dim, c.data() + dim);
        for (std::size_t p = 0; p < k && p < 3; ++p) {
          std::copy_n(c.data() + p * dim, dim, x.data() + p * dim);
        }
        std::vector<float> centre(dim, 0.25f);
        const std::size_t padded = (k + queries - 1) / queries * queries;
        std::vector<float> panels(padded * dim), offsets(padded, kNoCentroid),
            tags(padded);
        float farthest = 0;
        for (std::size_t i = 0; i < k; ++i) {
          double square = 0;
          for (std::size_t j = 0; j < dim; ++j) {
            const float y = c[i * dim + j] - centre[j];
            panels[(i / queries * dim + j) * queries + i % queries] = -2 * y;
            square += static_cast<double>(y) * y;
          }
          offsets[i] = static_cast<float>(square);
          farthest = std::max(farthest, offsets[i]);
          tags[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i));
        }
        const LaneScreen screen{panels.data(),
                                offsets.data(),
                                tags.data(),
                                padded / queries,
                                dim,
                                static_cast<std::uint32_t>(std::bit_width(k - 1)),
                                farthest * 1.000001f};
        std::vector<std::uint32_t> index(kPoints);
        for (std::size_t i = 0; i < kPoints; ++i) {
          index[i] = static_cast<std::uint32_t>(i * 7 % kPoints);
        }
        const std::size_t bytes = x.size() * sizeof(float);
        std::memcpy(memory.last(bytes), x.data(), bytes);
        const auto* rows = reinterpret_cast<const float*>(memory.last(bytes));
        std::vector<float> lanes((kPoints + wide - 1) / wide * wide * dim);
        t->pack_lanes(rows, dim, index.data(), kPoints, dim, centre.data(),
                      lanes.data());
        std::vector<std::uint32_t> cells(kPoints);
        std::vector<float> canonical(kPoints);
        std::size_t doubtful = 0;
        for (std::size_t at = 0; at < kPoints; at += wide) {
          std::uint32_t ids[kMaxTileRows];
          float floors[kMaxTileRows];
          const std::uint32_t doubt =
              t->nearest_lanes(lanes.data() + at * dim, screen, ids, floors);
          for (std::size_t i = at; i < std::min(kPoints, at + wide); ++i) {
            const float* row = x.data() + index[i] * dim;
            for (std::size_t j = 0; j < dim; ++j) {
              CHECK_EQ(lanes[(at * dim) + j * wide + i - at], row[j] - centre[j]);
            }
            std::vector<float> squares(k);
            plain.float_rows[kOpL2][0](row, reinterpret_cast<std::byte*>(c.data()),
                                       dim * sizeof(float), k, dim, squares.data());
            const auto best = static_cast<std::size_t>(
                std::min_element(squares.begin(), squares.end()) - squares.begin());
            cells[i] = static_cast<std::uint32_t>(best);
            canonical[i] = squares[best];
            const bool sure = (doubt >> (i - at) & 1u) == 0;
            doubtful += sure ? 0 : 1;
            if (sure && ids[i - at] != best) test::fail(__FILE__, __LINE__, what);
            for (std::size_t m = 0; m < k; ++m) {
              if (sure && m == best) continue;
              double square = 0;
              for (std::size_t j = 0; j < dim; ++j) {
                const double d = static_cast<double>(row[j]) - c[m * dim + j];
                square += d * d;
              }
              if (floors[i - at] > square) test::fail(__FILE__, __LINE__, what);
            }
          }
        }
        // The points on the pair of equal centroids are, and hardly any other is.
        CHECK(k > 2 ? doubtful >= 2 : doubtful == 0);
        CHECK(dim < 3 || k < 61 || doubtful < 10);
        std::vector<float> measured(kPoints);
        t->pair_distances(rows, dim, index.data(), c.data(), dim, cells.data(), kPoints,
                          dim, measured.data());
        check_same(measured, canonical, label(*t, "pair_distances", k, 0, dim));
        for (std::size_t i = 0; i < kPoints; ++i)
          index[i] = static_cast<std::uint32_t>(i);
        std::vector<float> again(kPoints);
        t->pair_distances(rows, dim, index.data(), c.data(), dim, cells.data(), kPoints,
                          dim, measured.data());
        t->pair_distances(rows, dim, nullptr, c.data(), dim, cells.data(), kPoints, dim,
                          again.data());
        check_same(measured, again, label(*t, "pair_distances in order", k, 0, dim));
      }
    }
  }
}

ANNX_TEST(kernels_dispatch_chooses_what_the_processor_has) {
  if (const char* expected = std::getenv("ANNX_EXPECT_ISA")) {
    CHECK_EQ(std::string(active().isa), std::string(expected));
  }
  bool known = false;
  for (const IsaInfo& info : compiled_isas()) {
    known = known || info.name == active().isa;
    if (!info.supported) CHECK_THROWS(table_for(info.name), InvalidArgument);
  }
  CHECK(known);
  CHECK_THROWS(table_for("sse9"), InvalidArgument);
}
