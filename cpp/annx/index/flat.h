// SPDX-License-Identifier: Apache-2.0
// Every row as it came, and exact search over them. Rows lie densely, one slot each;
// the last row moves into the slot of a removed one, so there are never gaps. Under
// cosine float32 norms lie beside them.
//
// Thread-safe: searches and reads share a lock, changes take it alone. A change that
// throws changes nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <span>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/types.h"
#include "annx/search/exact.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

class FlatIndex {
 public:
  // Throws InvalidArgument where the metric is not defined over the type.
  FlatIndex(std::size_t dim, Metric metric, DType dtype);
  FlatIndex(FlatIndex&& other) noexcept;

  std::size_t dim() const { return dim_; }
  Metric metric() const { return metric_; }
  DType dtype() const { return dtype_; }
  std::size_t size() const;
  // Grows with every change: what a SlotSet must agree with.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // Rows in stored form (row_bytes(dtype, dim) each). Null `ids` asks for automatic
  // ones; `out`, if not null, gets the ids. Values are checked before anything changes.
  void add(RowsView rows, const std::int64_t* ids, std::int64_t* out);
  // Replaces the rows of ids that are held, and adds the others.
  void upsert(RowsView rows, const std::int64_t* ids);
  // Throws UnknownId (or InvalidArgument at a repeated id) before removing any.
  void remove(std::span<const std::int64_t> ids);

  bool contains(std::int64_t id) const;
  // Copies rows into out, ids.size() of them. Throws UnknownId.
  void get(std::span<const std::int64_t> ids, std::byte* out) const;
  // At most `room` ids in the order of storage; returns how many.
  std::size_t ids(std::int64_t* out, std::size_t room) const;
  // Ids that are not held are left out.
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  // As search::search_topk and search_within, over the slots of `filter` if given;
  // throws InvalidArgument where it belongs to another version. Queries are checked.
  void search(RowsView queries, std::size_t k, const storage::SlotSet* filter,
              std::size_t threads, Monitor* monitor, std::int64_t* ids,
              float* distances) const;
  search::Ragged search_radius(RowsView queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const;
  // How many each query has, as Ragged::offsets.
  std::vector<std::int64_t> count_radius(RowsView queries, double radius,
                                         const storage::SlotSet* filter,
                                         std::size_t threads, Monitor* monitor) const;

  struct Memory {
    std::size_t rows;
    std::size_t norms;
    std::size_t ids;
  };
  Memory memory() const;

  void save_to(storage::FileWriter& writer) const;
  static FlatIndex load_from(const storage::FileReader& reader);

 private:
  search::RowSet row_set() const;
  template <class Search>
  auto over(const storage::SlotSet* filter, Search&& run) const;
  void put(std::uint32_t slot, RowsView rows, std::size_t first, std::size_t count);

  std::size_t dim_;
  Metric metric_;
  DType dtype_;
  std::size_t stride_;
  storage::Array<std::uint8_t> rows_;
  storage::Array<float> norms_;  // cosine only
  storage::IdMap ids_;
  std::atomic<std::uint64_t> version_{0};
  mutable std::shared_mutex mutex_;
};

}  // namespace annx::index
