// SPDX-License-Identifier: Apache-2.0
// Index families searched by two threads, on one core and on two, while a third
// adds and a fourth changes, removes and saves. What stays in the index must always be
// found; and the thread sanitizer (.ci/tsan.sh) sees races even where it is.
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "annx/base/random.h"
#include "annx/index/flat.h"
#include "annx/index/graph.h"
#include "annx/index/ivf.h"
#include "annx/index/kd_forest.h"
#include "annx/index/lsh.h"
#include "annx/storage/file.h"
#include "check.h"

namespace annx::test {
namespace {

constexpr std::size_t kDim = 16;
constexpr std::size_t kKept = 60;
constexpr std::size_t kRounds = 12;
constexpr std::size_t kTogether = 16;

using Ids = std::vector<std::int64_t>;

std::vector<float> random_rows(std::uint64_t seed, std::size_t count) {
  const Random random(seed, 7);
  std::vector<float> rows(count * kDim);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<float>(random.below(i, 2001)) / 1000 - 1;
  }
  return rows;
}

RowsView view_of(const std::vector<float>& rows) {
  return {reinterpret_cast<const std::byte*>(rows.data()), rows.size() / kDim,
          kDim * sizeof(float)};
}

Ids ids_from(std::int64_t first, std::size_t count) {
  Ids ids(count);
  for (std::size_t i = 0; i < count; ++i) ids[i] = first + static_cast<std::int64_t>(i);
  return ids;
}

// What a family does; `upsert` and `remove` are empty where it does not.
struct Family {
  std::function<void(RowsView, const Ids&, std::size_t threads)> add;
  std::function<void(RowsView, std::size_t threads, std::int64_t*, float*)> nearest;
  std::function<void()> read;
  std::function<void(RowsView, const Ids&)> upsert;
  std::function<void(const Ids&)> remove;
};

void run_at_once(const std::vector<std::function<void()>>& tasks) {
  std::mutex mutex;
  std::exception_ptr error;
  std::vector<std::thread> threads;
  for (const auto& task : tasks) {
    threads.emplace_back([&] {
      try {
        task();
      } catch (...) {
        const std::lock_guard lock(mutex);
        error = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

void share(const Family& family) {
  const std::vector<float> kept = random_rows(1, kKept);
  family.add(view_of(kept), ids_from(0, kKept), 1);
  const auto search = [&] {
    std::vector<std::int64_t> ids(kKept);
    std::vector<float> distances(kKept);
    for (std::size_t round = 0; round < kRounds; ++round) {
      family.nearest(view_of(kept), 1 + round % 2, ids.data(), distances.data());
      for (std::size_t i = 0; i < kKept; ++i) {
        CHECK_EQ(ids[i], static_cast<std::int64_t>(i));
      }
    }
  };
  const auto add = [&] {
    for (std::size_t round = 0; round < kRounds; ++round) {
      const std::vector<float> rows = random_rows(10 + round, kTogether);
      family.add(
          view_of(rows),
          ids_from(1000 + static_cast<std::int64_t>(round * kTogether), kTogether),
          1 + round % 2);
    }
  };
  const auto change = [&] {
    for (std::size_t round = 0; round < kRounds; ++round) {
      family.read();
      if (!family.upsert) continue;
      const std::vector<float> rows = random_rows(100 + round, 6);
      const Ids ids = ids_from(100000 + static_cast<std::int64_t>(round * 3), 6);
      family.upsert(view_of(rows), ids);
      family.remove({ids[0], ids[1], ids[2]});
    }
  };
  run_at_once({search, search, add, change});
}

template <class Index>
std::function<void()> reader_of(const Index& index) {
  return [&index] {
    CHECK(index.contains(7));
    CHECK(index.size() >= kKept);
    std::vector<float> row(kDim);
    const std::int64_t id = 7;
    if constexpr (requires { index.get(&id, 1, nullptr); }) {
      index.get(&id, 1, reinterpret_cast<std::byte*>(row.data()));
    } else {
      index.get(std::span(&id, 1), reinterpret_cast<std::byte*>(row.data()));
    }
    CHECK_EQ(index.slot_set(std::span(&id, 1)).count(), 1u);
    storage::FileWriter writer("shared");
    index.save_to(writer);
    CHECK(writer.to_bytes().size() > kKept);
  };
}

// Families that add, upsert and remove alike.
template <class Index, class Nearest>
Family changing(Index& index, Nearest nearest) {
  return {.add =
              [&index](RowsView rows, const Ids& ids, std::size_t threads) {
                if constexpr (requires { index.add(rows, nullptr, nullptr); }) {
                  index.add(rows, ids.data(), nullptr);
                } else {
                  Ids out(ids.size());
                  index.add(rows, ids.data(), out.data(), threads, nullptr);
                }
              },
          .nearest = nearest,
          .read = reader_of(index),
          .upsert = [&index](RowsView rows,
                             const Ids& ids) { index.upsert(rows, ids.data()); },
          .remove = [&index](const Ids& ids) { index.remove(ids); }};
}

void share_ivf(index::IvfOptions options) {
  options.dim = kDim;
  options.n_lists = 5;
  index::IvfIndex index(options);
  const std::vector<float> sample = random_rows(2, 400);
  index.train(view_of(sample), 2, nullptr);
  share(changing(index, [&](RowsView queries, std::size_t threads, std::int64_t* ids,
                            float* distances) {
    index.search(queries, {.k = 1, .n_probe = 5, .rerank = 400}, nullptr, threads,
                 nullptr, ids, distances);
  }));
}

// So many rows at first that links have codes; codes are learnt again meanwhile.
void share_graph(bool codes) {
  index::GraphIndex index(
      {.dim = kDim, .codes = codes, .build = {.degree = 16, .ef_construction = 32}});
  if (codes) {
    const std::vector<float> many = random_rows(3, 2040 - kKept);
    const Ids ids = ids_from(500000, 2040 - kKept);
    index.add(view_of(many), ids.data(), 2, nullptr);
  }
  share({.add =
             [&](RowsView rows, const Ids& ids, std::size_t threads) {
               index.add(rows, ids.data(), threads, nullptr);
             },
         .nearest =
             [&](RowsView queries, std::size_t threads, std::int64_t* ids,
                 float* distances) {
               index.search(queries, 1, 200, nullptr, threads, ids, distances, nullptr);
             },
         .read =
             [&, look = reader_of(index)] {
               look();
               index.stats(true);
               index.neighbours(3);
             },
         .upsert = {},
         .remove = {}});
  CHECK_EQ(index.link_codec() != nullptr, codes);
}

}  // namespace

ANNX_TEST(flat_index_is_searched_while_it_changes) {
  for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
    index::FlatIndex index(kDim, metric, DType::kFloat32);
    share(changing(index, [&](RowsView queries, std::size_t threads, std::int64_t* ids,
                              float* distances) {
      index.search(queries, 1, nullptr, threads, nullptr, ids, distances);
    }));
  }
}

ANNX_TEST(kd_forest_is_searched_while_it_changes) {
  index::KDForestIndex index({.dim = kDim, .n_trees = 2});
  // Beyond what waits without a tree.
  const std::vector<float> many = random_rows(3, 510);
  Ids out(510);
  index.add(view_of(many), ids_from(500000, 510).data(), out.data(), 2, nullptr);
  share(changing(index, [&](RowsView queries, std::size_t threads, std::int64_t* ids,
                            float* distances) {
    index.search(queries, 1, 5000, nullptr, threads, nullptr, ids, distances);
  }));
}

ANNX_TEST(lsh_index_is_searched_while_it_changes) {
  for (const std::size_t sketch_bits : {0, 64}) {
    index::LSHIndex index({.dim = kDim,
                           .n_tables = 4,
                           .n_hashes = 3,
                           .width = 2,
                           .sketch_bits = sketch_bits});
    share(changing(index, [&](RowsView queries, std::size_t threads, std::int64_t* ids,
                              float* distances) {
      index.search(queries, 1, 64, 600, nullptr, threads, nullptr, ids, distances);
    }));
  }
}

ANNX_TEST(ivf_index_is_searched_while_it_changes) {
  share_ivf({});
  share_ivf({.codec = index::IvfCodec::kFlat});
  share_ivf({.keep_rows = false, .grid_bits = 8, .spill = 1.0});
}

ANNX_TEST(graph_index_is_searched_while_it_grows) {
  share_graph(false);
  share_graph(true);
}

}  // namespace annx::test
