// SPDX-License-Identifier: Apache-2.0
// k-d trees (search/kd_tree.h): one, which answers exactly, or a forest of randomized
// ones that share a queue and a budget of distances (Silpa-Anan and Hartley, 2008; Muja
// and Lowe, 2009).
//
// Rows lie leaf by leaf in the order of the first tree: up to 32 dimensions in lanes,
// element k of the sixteen points of a leaf together, which are measured at once with
// the canonical distance; above that row by row. Cosine trees divide directions.
//
// Changing. New rows wait in a part without a tree, which every search scans, until
// there are more than 512, or more than rows in trees; then they become a part with
// trees of its own, together with every part that is not twice as large (after the
// logarithmic method of Bentley and Saxe, 1980): at most log2(n) - 3 parts, and a row
// is built into trees at most 1.7 log2(n) times. A removed row is marked, and a part of
// which more than half is removed is built anew.
//
// Thread-safe: searches and reads share a lock, changes take it alone. A change that
// throws changes nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/types.h"
#include "annx/search/exact.h"
#include "annx/search/kd_tree.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

struct KDForestOptions {
  std::size_t dim = 1;
  Metric metric = Metric::kL2;  // l2, l1 or cosine
  std::size_t n_trees = 1;
  std::uint64_t seed = 0;
};

class KDForestIndex {
 public:
  static constexpr std::size_t kMaxTrees = 64;
  // Dimensions of highest variance of which a forest's later trees draw one.
  static constexpr std::size_t kChoices = 5;
  static constexpr std::size_t kWaiting = 512;

  // Throws InvalidArgument.
  explicit KDForestIndex(const KDForestOptions& options);
  KDForestIndex(KDForestIndex&& other) noexcept;
  ~KDForestIndex();

  const KDForestOptions& options() const { return options_; }
  std::size_t size() const;
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // As FlatIndex: rows of float32; values are checked before anything changes.
  void add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
           std::size_t threads, Monitor* monitor);
  void upsert(RowsView rows, const std::int64_t* ids);
  void remove(std::span<const std::int64_t> ids);

  bool contains(std::int64_t id) const;
  void get(std::span<const std::int64_t> ids, std::byte* out) const;
  std::size_t ids(std::int64_t* out, std::size_t room) const;
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  // Measures at most about `checks` vectors a query (those that pass the filter), in
  // order of their leaves' boxes; at least as many as there are is exact. 0 takes the
  // default: no limit for one tree, max(1024, 32 k) for a forest.
  void search(RowsView queries, std::size_t k, std::size_t checks,
              const storage::SlotSet* filter, std::size_t threads, Monitor* monitor,
              std::int64_t* ids, float* distances) const;
  search::Ragged search_radius(RowsView queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const;

  struct Stats {
    std::size_t rows_bytes = 0;
    std::size_t trees_bytes = 0;
    std::size_t ids_bytes = 0;
    std::size_t parts = 0;
    std::size_t waiting = 0;  // rows without a tree
    std::size_t removed = 0;  // places of removed rows
    std::size_t leaves = 0;   // of the first trees
  };
  Stats stats() const;

  void save_to(storage::FileWriter& writer) const;
  static KDForestIndex load_from(const storage::FileReader& reader);

 private:
  struct Part;
  struct Place {
    std::uint32_t part;
    std::uint32_t at;
  };
  class Searcher;

  bool in_lanes() const;
  search::RowSet row_set(const Part& part) const;
  std::unique_ptr<Part> build(MatrixView<float> rows, const std::uint32_t* slots,
                              std::size_t threads, Monitor* monitor) const;
  void fill(Part& part, std::size_t at, const float* row, std::uint32_t slot,
            float norm) const;
  void copy_row(const Part& part, std::size_t at, float* out) const;
  void grow(Part& part, std::size_t count) const;
  void insert(MatrixView<float> rows, const std::uint32_t* slots, std::size_t threads,
              Monitor* monitor);
  void replace(std::size_t begin, std::size_t end, MatrixView<float> rows,
               const std::uint32_t* slots, std::size_t threads, Monitor* monitor);
  void find_places(std::size_t part);
  void drop(std::span<const Place> places);
  void tidy();
  template <class Run>
  void over_queries(RowsView queries, const storage::SlotSet* filter,
                    std::size_t threads, Monitor* monitor, Run&& run) const;

  KDForestOptions options_;
  // Larger ones first; the last has no tree and holds the rows that wait.
  std::vector<std::unique_ptr<Part>> parts_;
  std::vector<Place> places_;  // by slot
  storage::IdMap ids_;
  std::atomic<std::uint64_t> version_{0};
  mutable std::shared_mutex mutex_;
};

}  // namespace annx::index
