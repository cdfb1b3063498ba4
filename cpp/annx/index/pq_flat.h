// SPDX-License-Identifier: Apache-2.0
// Every row as a product code, scanned with asymmetric distances (codec/product.h), and
// the row itself, with which the best of the scan are ranked again by the canonical
// distance. Codes and rows lie densely, one slot each; the last moves into the slot of
// a removed one. O(n_segments) a row and query for the scan, O(dim) a row ranked again.
//
// Thread-safe: searches and reads share a lock, changes take it alone. A change that
// throws changes nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <span>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/codec/product.h"
#include "annx/search/exact.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

class PQFlatIndex {
 public:
  explicit PQFlatIndex(const codec::ProductOptions& options);
  PQFlatIndex(PQFlatIndex&& other) noexcept;

  const codec::ProductOptions& options() const { return pq_.options(); }
  bool trained() const;
  std::size_t size() const;
  // Grows with every change: what a SlotSet must agree with.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // Learns the codebooks; rows that are held already are coded anew.
  void train(MatrixView<float> rows, std::size_t threads, Monitor* monitor);

  // Throws NotTrained. Null `ids` asks for automatic ones; `out` gets the ids.
  void add(MatrixView<float> rows, const std::int64_t* ids, std::int64_t* out,
           std::size_t threads, Monitor* monitor);
  // Replaces the rows of ids that are held, and adds the others.
  void upsert(MatrixView<float> rows, const std::int64_t* ids);
  // Throws UnknownId (or InvalidArgument at a repeated id) before removing any.
  void remove(std::span<const std::int64_t> ids);

  bool contains(std::int64_t id) const;
  void get(std::span<const std::int64_t> ids, std::byte* out) const;
  // At most `room` ids in the order of storage; returns how many.
  std::size_t ids(std::int64_t* out, std::size_t room) const;
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  // The k nearest by the codes; with `rerank` > 0 the nearest among the first
  // k * rerank of those, by the rows. Padded with -1 and +inf.
  void search(MatrixView<float> queries, std::size_t k, std::size_t rerank,
              const storage::SlotSet* filter, std::size_t threads, Monitor* monitor,
              std::int64_t* ids, float* distances) const;
  // By the rows alone, so exact.
  search::Ragged search_radius(MatrixView<float> queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const;

  struct Memory {
    std::size_t codes;
    std::size_t rows;
    std::size_t codebooks;
    std::size_t ids;
  };
  Memory memory() const;

  void save_to(storage::FileWriter& writer) const;
  static PQFlatIndex load_from(const storage::FileReader& reader);

 private:
  search::RowSet row_set() const;
  void resize(std::size_t count);
  void put(std::uint32_t slot, const float* row, const std::uint8_t* code);

  codec::ProductQuantizer pq_;
  storage::Array<std::uint8_t> codes_;
  storage::Array<float> rows_;
  storage::Array<float> norms_;  // cosine only
  storage::IdMap ids_;
  std::atomic<std::uint64_t> version_{0};
  mutable std::shared_mutex mutex_;
};

}  // namespace annx::index
