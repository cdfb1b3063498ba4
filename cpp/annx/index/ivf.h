// SPDX-License-Identifier: Apache-2.0
// Inverted lists: rows are kept with the nearest of n_lists centroids, and a query
// looks only at the lists of the n_probe centroids nearest to it (Jegou, Douze and
// Schmid, 2011). With IvfCodec::kFlat a list holds the rows themselves (row_block.h),
// so that what is looked at is ranked exactly. Otherwise it is scanned by its codes
// (codec/piece_codec.h), 32 at a time; the best k * rerank estimates are candidates,
// and those that the error bound of the estimates cannot exclude are measured by the
// canonical distance of their rows, or by longer codes of them (codec/grid_codec.h).
//
// Lists are made by l2: of rows of length 1 for "cosine" and "jaccard", of bits as
// numbers 0 and 1. "ip" visits lists in order of <q, c>, all others in order of
// |q - c|.
//
// A search costs n_lists d for the centroids and, of n_probe / n_lists of the rows, d
// each (flat) or d / 4 look-ups in registers, and d a row measured.
//
// Thread-safe: searches and reads share a lock, changes take it alone. A change that
// throws changes nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/rw_lock.h"
#include "annx/codec/grid_codec.h"
#include "annx/codec/kmeans.h"
#include "annx/codec/piece_codec.h"
#include "annx/index/row_block.h"
#include "annx/index/scratch_pool.h"
#include "annx/search/exact.h"
#include "annx/search/topk.h"
#include "annx/storage/array.h"
#include "annx/storage/code_lists.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

// What the lists hold; codes as PieceCodec::Kind.
enum class IvfCodec : std::uint8_t { kRabitq = 0, kProduct = 1, kFlat = 2, kBytes = 3 };

struct IvfOptions {
  std::size_t dim = 0;
  Metric metric = Metric::kL2;
  DType dtype = DType::kFloat32;
  // What rows are kept as. kFlat needs them. Unless keep_rows nothing is kept but codes
  // and, with grid_bits, longer codes to rank by (codec/grid_codec.h).
  DType storage = DType::kFloat32;
  bool keep_rows = true;
  std::size_t grid_bits = 0;  // 0, or 2 to 8
  codec::GridCodec::Kind grid = codec::GridCodec::Kind::kScalar;
  // Where at least 0, codes of a row go into a second list too (ivf_spill.cpp).
  double spill = -1;
  IvfCodec codec = IvfCodec::kRabitq;
  std::size_t n_segments = 0;  // of kProduct and kBytes
  codec::PieceCodec::Turn turn = codec::PieceCodec::Turn::kNone;  // of the same
  // Whether codes are of what is left of rows after their list's centroid, or only
  // after the mean of all rows.
  bool residual = true;
  std::size_t n_lists = 0;   // 0: chosen when trained
  std::size_t n_probe = 16;  // lists that a search looks at unless told otherwise
  std::size_t n_iterations = 10;
  std::size_t sample_limit = 256;  // rows a list to train on; 0: all
  std::uint64_t seed = 0;
};

class IvfIndex {
 public:
  // Throws InvalidArgument.
  explicit IvfIndex(const IvfOptions& options);
  ~IvfIndex();

  const IvfOptions& options() const { return options_; }
  bool trained() const;
  // 0 before training.
  std::size_t n_lists() const;
  std::size_t size() const;
  // Grows with every change: what a SlotSet must agree with.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // Learns centroids and codes from rows (of `dtype`). Rows that are held already are
  // coded anew; where only codes are kept there must be none.
  void train(RowsView rows, std::size_t threads, Monitor* monitor);

  // Throws NotTrained. Null `ids` asks for automatic ones; `out` gets the ids.
  void add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
           std::size_t threads, Monitor* monitor);
  // Replaces the rows of ids that are held, and adds the others.
  void upsert(RowsView rows, const std::int64_t* ids);
  // Throws UnknownId (or InvalidArgument at a repeated id) before removing any.
  void remove(std::span<const std::int64_t> ids);

  bool contains(std::int64_t id) const;
  // Rows of `dtype`: as they are kept, or else as their codes tell.
  void get(std::span<const std::int64_t> ids, std::byte* out) const;
  // At most `room` ids in the order of storage; returns how many.
  std::size_t ids(std::int64_t* out, std::size_t room) const;
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  struct Search {
    std::size_t k = 10;
    std::size_t n_probe = 1;
    // Candidates are the best k * rerank estimates; 0: estimates are the result.
    double rerank = 10;
    // How many standard deviations of an estimate's error a candidate is given.
    double epsilon = 1.9;
  };
  // Queries are of `dtype`, or float32 where that is a float type. Padded with -1 and
  // +inf.
  void search(RowsView queries, const Search& how, const storage::SlotSet* filter,
              std::size_t threads, Monitor* monitor, std::int64_t* ids,
              float* distances) const;
  // By the rows alone, so exact. Throws InvalidArgument where they are not kept.
  search::Ragged search_radius(RowsView queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const;

  // Rows in each list; with second lists twice as many in all.
  std::vector<std::size_t> list_sizes() const;
  // [n_lists][dim], empty before training.
  std::vector<float> centroids() const;

  struct Memory {
    std::size_t codes;
    std::size_t rows;
    std::size_t centroids;
    std::size_t ids;
  };
  Memory memory() const;

  void save_to(storage::FileWriter& writer) const;
  static std::unique_ptr<IvfIndex> load_from(const storage::FileReader& reader);

 private:
  struct Scratch;
  struct Trained;

  bool flat() const { return options_.codec == IvfCodec::kFlat; }
  // Whether rows_ has the rows, and not the lists.
  bool rows_apart() const { return options_.keep_rows && !flat(); }
  RowBlock row_block() const {
    return {options_.metric, options_.storage, options_.dim};
  }
  search::RowSet row_set() const;
  const std::byte* row_of(std::uint32_t slot) const;
  std::size_t row_stride() const { return row_bytes(options_.storage, options_.dim); }
  // What rows_ has of each slot.
  std::size_t slot_bytes() const;
  codec::GridCodec::Options grid_options() const;
  void widen(const std::byte* row, DType dtype, float* out) const;
  void keep(std::uint32_t slot, const std::byte* row);
  void stored(const std::byte* row, DType dtype, std::byte* out) const;
  void check_room(std::size_t count) const;
  void resize_rows(std::size_t count);
  void train_codes(Trained& to, const std::vector<float>& sample, std::size_t threads,
                   Monitor* monitor) const;
  void code(Trained& to, RowsView rows, DType dtype, const std::uint32_t* slots,
            std::size_t first, std::vector<std::uint32_t>* places, std::byte* grid_rows,
            std::size_t threads, Monitor* monitor) const;
  // What codes of a list's rows are relative to.
  const float* origin(const Trained& to, std::size_t list) const;
  void locate() const;
  void unlink(std::uint32_t place);
  void require_trained() const;
  void choose_second(const Trained& to, RowsView rows, DType dtype,
                     std::vector<std::uint32_t>& cells, std::size_t threads,
                     Monitor* monitor) const;
  void score_lists(const Trained& to, Scratch& scratch, RowsView rows, DType dtype,
                   std::size_t first, std::size_t count) const;
  void choose_lists(Scratch& scratch, std::size_t row, std::size_t probes) const;
  std::size_t rows_wanted(const Search& plan) const;
  void scan_run(Scratch& scratch, std::size_t list, std::size_t p, std::size_t at,
                std::size_t run, const storage::SlotSet* filter) const;
  void scan_list(Scratch& scratch, std::size_t p, const storage::SlotSet* filter) const;
  void finish(Scratch& scratch, const std::byte* query, const float* vector,
              const Search& how, std::int64_t* ids, float* distances) const;
  void search_codes_together(Scratch& lead, RowsView queries, std::size_t first,
                             std::size_t count, const Search& how, std::size_t room,
                             std::int64_t* ids, float* distances) const;
  void search_one(Scratch& scratch, const std::byte* query, const float* vector,
                  const Search& how, const storage::SlotSet* filter, std::int64_t* ids,
                  float* distances) const;
  // Of whole rows in lists (ivf_flat.cpp).
  void search_flat(const Scratch& scratch, const std::byte* query, const Search& how,
                   const storage::SlotSet* filter, std::int64_t* ids,
                   float* distances) const;
  void search_few(RowsView queries, const storage::SlotSet& chosen, std::size_t k,
                  std::size_t threads, Monitor* monitor, std::int64_t* ids,
                  float* distances) const;
  search::Ragged flat_within(RowsView queries, double radius,
                             const storage::SlotSet* filter, std::size_t threads,
                             Monitor* monitor) const;
  // `room` entries of ids and distances a query.
  void search_flat_batch(RowsView queries, const Search& how, std::size_t room,
                         std::size_t threads, Monitor* monitor, std::int64_t* ids,
                         float* distances) const;
  template <class Visit>
  void walk_list(std::size_t list, std::size_t most, const Visit& visit) const;
  template <class Key>
  void take_nearest(search::TopK<Key>& near, const Key* keys, std::size_t count,
                    std::uint32_t place, const storage::SlotSet* filter) const;
  template <class Key>
  void search_together(Scratch& scratch, RowsView queries, std::size_t first,
                       std::size_t count, const Search& how, std::size_t room,
                       std::int64_t* ids, float* distances) const;
  template <class Key>
  void search_rows(const Scratch& scratch, const std::byte* query, const Search& how,
                   const storage::SlotSet* filter, std::int64_t* ids,
                   float* distances) const;
  template <class Key>
  void search_chosen(const std::byte* query, const std::vector<std::uint32_t>& slots,
                     std::size_t k, std::int64_t* ids, float* distances) const;
  template <class Key>
  search::Ragged rows_within(RowsView queries, double radius,
                             const storage::SlotSet* filter, std::size_t threads,
                             Monitor* monitor) const;
  void write_estimates(search::TopK<float>& near, std::int64_t* ids,
                       float* distances) const;
  template <class Take, class Worst>
  void look_again(Scratch& scratch, const float* vector, const Search& how,
                  const Take& take, const Worst& worst) const;
  template <class Key>
  void measure(Scratch& scratch, const std::byte* query, const float* vector,
               const Search& how, std::int64_t* ids, float* distances) const;
  std::uint32_t slot_at(std::uint32_t place) const {
    return trained_->lists.slot(place) >> (trained_->copies - 1);
  }
  void measure_codes(Scratch& scratch, const float* vector, const Search& how,
                     std::int64_t* ids, float* distances) const;

  // What training learns, and the lists that depend on it.
  struct Trained {
    codec::KMeans coarse;
    std::vector<float> mean;  // of the rows; zeros for products
    bool products;
    // Codes of a row, 1 or 2. What lists call a slot is slot * copies and the number of
    // the copy.
    std::uint32_t copies = 1;
    std::optional<codec::PieceCodec> codec = {};  // none for kFlat
    std::optional<codec::GridCodec> grid = {};
    storage::CodeLists lists = {};
    // The centroids as ScoreTile reads them, so that keys of lists are
    // |q'|^2 + (|c'|^2 - 2 <q', c'>), about the mean (ip: -<q, c>).
    std::vector<float> packed = {};
    std::vector<float> offsets = {};
    std::vector<std::uint32_t> groups = {};
    void pack();
  };

  IvfOptions options_;
  std::unique_ptr<Trained> trained_;
  storage::Array<std::byte> rows_;  // or their longer codes
  storage::Array<float> norms_;     // cosine with rows only
  storage::IdMap ids_;
  // [slot][copy] place; made when first needed, empty until then, under the mutex where
  // readers need it.
  mutable std::vector<std::uint32_t> places_;
  mutable std::mutex places_mutex_;
  std::atomic<std::uint64_t> version_{0};
  mutable RwLock lock_;
  mutable ScratchPool<Scratch> scratch_;
};

}  // namespace annx::index
