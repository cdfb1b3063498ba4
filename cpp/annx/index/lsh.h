// SPDX-License-Identifier: Apache-2.0
// Rows in the buckets of many hash tables (codec/hash_family.h). A search probes the
// likeliest buckets of all tables, in the order of what their moves cost (Lv and
// others, "Multi-probe LSH", 2007), and measures every row that it meets with the
// canonical distance: or, of more than `rerank` rows, those whose sketches
// (codec/sign_sketch.h) differ least from the query's, which costs a tenth. Where the
// buckets together have half as many places as there are rows, all sketches are looked
// at, in the order of memory.
//
// Rows lie by slot, as in FlatIndex, tables (storage/bucket_table.h) beside them. New
// rows wait outside the tables, and are measured by every search, until there are more
// than 1/64 of all (at least 16, at most 8,192); then they are sorted in, O(n)
// a table. Removed rows leave holes until half of the places are such.
//
// Thread-safe: searches and reads share a lock, changes take it alone. A change that
// throws changes nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/types.h"
#include "annx/codec/hash_family.h"
#include "annx/codec/sign_sketch.h"
#include "annx/search/exact.h"
#include "annx/storage/array.h"
#include "annx/storage/bucket_table.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

struct LSHOptions {
  std::size_t dim = 1;
  Metric metric = Metric::kL2;  // any but ip
  DType dtype = DType::kFloat32;
  std::size_t n_tables = 16;
  std::size_t n_hashes = 0;     // of a table; 0: by the number of the first rows
  double width = 0;             // l2 and l1; 0: by the first rows
  std::size_t sketch_bits = 0;  // not of bits; 0: none
  std::uint64_t seed = 0;
};

class LSHIndex {
 public:
  static constexpr std::size_t kMaxTables = 1024;

  // Throws InvalidArgument.
  explicit LSHIndex(const LSHOptions& options);
  LSHIndex(LSHIndex&& other) noexcept;

  // With what was learnt from the first rows.
  LSHOptions options() const;
  std::size_t dim() const { return options_.dim; }
  Metric metric() const { return options_.metric; }
  DType dtype() const { return options_.dtype; }
  std::size_t size() const;
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // As FlatIndex.
  void add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
           std::size_t threads, Monitor* monitor);
  void upsert(RowsView rows, const std::int64_t* ids);
  void remove(std::span<const std::int64_t> ids);
  bool contains(std::int64_t id) const;
  void get(std::span<const std::int64_t> ids, std::byte* out) const;
  std::size_t ids(std::int64_t* out, std::size_t room) const;
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  // Probes n_probe buckets, of all tables together; as many as there are is exact. 0
  // takes the default, 4 a table. With sketches at least `rerank` of the rows met are
  // measured (0: max(256, 32 k)), and all that differ from the query as little.
  void search(RowsView queries, std::size_t k, std::size_t n_probe, std::size_t rerank,
              const storage::SlotSet* filter, std::size_t threads, Monitor* monitor,
              std::int64_t* ids, float* distances) const;
  // Exact: measures every row.
  search::Ragged search_radius(RowsView queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const;

  // Values of all functions, rows.rows x n_tables x n_hashes. Throws NotTrained before
  // the first add where something is learnt from it.
  void hash_values(RowsView rows, std::int32_t* out) const;

  struct Stats {
    std::size_t rows_bytes = 0;
    std::size_t tables_bytes = 0;
    std::size_t hashes_bytes = 0;
    std::size_t sketches_bytes = 0;
    std::size_t ids_bytes = 0;
    std::size_t buckets = 0;
    std::size_t largest = 0;  // rows of a bucket
    std::size_t waiting = 0;
  };
  Stats stats() const;

  void save_to(storage::FileWriter& writer) const;
  static LSHIndex load_from(const storage::FileReader& reader);

 private:
  template <class Key>
  class Searcher;

  search::RowSet row_set() const;
  void learn(RowsView rows);
  void put(std::uint32_t slot, const std::byte* row, codec::SignSketch::Space& space);
  void shrink(std::size_t count);
  // Room for rows up to slot `count`; what may throw of a change comes before it.
  void grow(std::size_t count);
  std::vector<storage::BucketTable> sorted_in(std::span<const std::uint32_t> fresh,
                                              std::size_t threads,
                                              Monitor* monitor) const;
  void settle();
  void take_out(std::uint32_t slot, std::uint32_t instead);
  template <class Key>
  void probe(RowsView queries, std::size_t k, std::size_t n_probe, std::size_t rerank,
             const storage::SlotSet* filter, std::size_t threads, Monitor* monitor,
             std::int64_t* ids, float* distances) const;
  std::size_t buckets() const;

  LSHOptions options_;
  std::size_t stride_;
  storage::Array<std::uint8_t> rows_;
  storage::Array<float> norms_;  // cosine over floats only
  storage::IdMap ids_;
  std::optional<codec::HashFamily> family_;  // none before the first add
  std::optional<codec::SignSketch> sketch_;  // with it, if there are sketches
  storage::Array<std::uint8_t> sketches_;    // by slot
  std::vector<storage::BucketTable>
      tables_;                          // empty until the first rows are sorted in
  std::vector<std::uint32_t> waiting_;  // slots outside the tables
  std::size_t holes_ = 0;               // removed places of a table
  std::atomic<std::uint64_t> version_{0};
  mutable std::shared_mutex mutex_;
};

}  // namespace annx::index
