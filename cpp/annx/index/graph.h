// SPDX-License-Identifier: Apache-2.0
// The graph family: rows, links and ids together, safe to search while it grows.
//
// Many threads may search; adding takes the lock for writing only to append rows and to
// publish a finished batch of links, so searches go on between. A search sees whole
// batches only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/rw_lock.h"
#include "annx/base/types.h"
#include "annx/codec/link_codec.h"
#include "annx/codec/row_codec.h"
#include "annx/graph/builder.h"
#include "annx/index/scratch_pool.h"
#include "annx/search/beam.h"
#include "annx/storage/adjacency.h"
#include "annx/storage/coded_links.h"
#include "annx/storage/file.h"
#include "annx/storage/id_map.h"
#include "annx/storage/slot_set.h"

namespace annx::index {

struct GraphOptions {
  std::size_t dim = 0;
  Metric metric = Metric::kL2;
  DType dtype = DType::kFloat32;
  bool codes = true;   // codes beside the links, once there is enough to learn from
  bool narrow = true;  // float32 rows become 16-bit ones then, where that loses little
  bool small = false;  // rows of floats become 8-bit codes, once there are enough
  graph::BuildOptions build;
};

struct GraphStats {
  std::size_t links = 0;
  std::size_t max_links = 0;
  std::size_t reachable = 0;  // from slot 0
  std::size_t rows_bytes = 0;
  std::size_t links_bytes = 0;
  std::size_t ids_bytes = 0;
  std::size_t codes_bytes = 0;  // what link codes add, the codec included
  std::size_t code_parts = 0;   // 0 without codes
  double growth = 0;            // see GraphIndex::update_growth; 0: not known
  double code_error = 0;        // what training expects, see LinkCodec::Options::error
  bool split_rows = false;
  bool narrow_rows = false;
  bool byte_rows = false;     // on a grid, see codec/row_grid.h
  double byte_error = 0;      // what the grid does to the distance of a near pair
  bool turned_rows = false;   // rotated for it
  std::size_t wide_rows = 0;  // kept more coarsely than it
  bool centred = false;
};

class GraphIndex {
 public:
  // Throws InvalidArgument for options that make no sense.
  explicit GraphIndex(const GraphOptions& options);

  const GraphOptions& options() const { return options_; }
  std::size_t size() const;

  // Appends `rows.rows` rows of options().dtype; `ids` null for automatic ones. Returns
  // the first automatic id (the others follow it). Ids that are held, repeated or
  // negative throw before anything changes. If the monitor or memory stops it, the rows
  // of the batches finished by then stay: size() tells. The first rows, where they are
  // many, are linked at once (graph/levels.h), all or none of them. `near` (slots
  // alone; empty: they are found), of the first rows of an index only, makes them so if
  // few. `queries`, as `search` takes them, are a sample of those to come: links are
  // made for them (graph/query_links.h), among all rows, when the new ones have theirs;
  // and growth is measured from them.
  std::int64_t add(RowsView rows, const std::int64_t* ids, std::size_t threads,
                   Monitor* monitor, graph::KnnGraph near = {}, RowsView queries = {});

  // k nearest per query: ids padded with -1, distances with +inf, nearest first, ties
  // by id. Queries are float32 for float dtypes, else of the rows' dtype; finite.
  // `width` is the beam (ef), raised to k if below: about the nodes that a query walks
  // through. One with near answers walks through fewer, one with far ones through up to
  // twice as many (search/beam.h).
  // With a filter only its slots are answered: few of them are scanned outright,
  // otherwise the beam is widened by their scarcity.
  void search(RowsView queries, std::size_t k, std::size_t width,
              const storage::SlotSet* filter, std::size_t threads, std::int64_t* ids,
              float* distances, Monitor* monitor) const;

  // The slots of those ids that are here. It stays right while the index grows.
  storage::SlotSet slot_set(std::span<const std::int64_t> ids) const;

  // The rows of these ids, in order, as options().dtype. Throws UnknownId.
  void get(const std::int64_t* ids, std::size_t count, std::byte* out) const;

  bool contains(std::int64_t id) const;
  // Ids by slot; `out` has room for size() of them.
  std::vector<std::int64_t> ids() const;
  // Neighbour ids of a node, for inspection.
  std::vector<std::int64_t> neighbours(std::int64_t id) const;
  // The links of a node with what their codes say, for inspection and for tests against
  // the reference: the codes (parts a link), and offsets and scales as in
  // codec/link_codec.h, a NaN scale where a link has no code. Empty without a codec. Of
  // the id -1: the roots at which searches begin, as links from the codec's mean.
  struct LinkCodes {
    std::vector<std::int64_t> ids;
    std::vector<std::uint8_t> codes;
    std::vector<float> offsets;
    std::vector<float> scales;
  };
  LinkCodes link_codes(std::int64_t id) const;
  // The key of a node for a query (0 of the id -1), and the keys of its links estimated
  // from their codes, if they have any.
  std::vector<float> estimate_links(const std::byte* query, std::int64_t id,
                                    float& key) const;
  // Null where rows are not on a grid. Valid until the next add.
  const codec::RowGrid* grid() const { return rows_.grid(); }
  // Null without codes. Valid until the next add.
  const codec::LinkCodec* link_codec() const { return codec_.get(); }
  // O(1) without `walk`, which counts links and what can be reached: O(links).
  GraphStats stats(bool walk) const;

  // The writer keeps the lock for reading: rows being added meanwhile stay out, and are
  // not published before it is done.
  void save_to(storage::FileWriter& file) const;
  static std::unique_ptr<GraphIndex> load_from(const storage::FileReader& file);

 private:
  // Above this all distances are alike, and a search's width is all that serves.
  static constexpr double kMostGrowth = 1e6;

  struct Scratch {
    codec::RowCodec::Query query;
    codec::LinkCodec::Query link_query;
    search::BeamScratch beam;
    std::vector<std::pair<double, std::int64_t>> shortlist;
  };

  bool link_at_once(RowsView rows, const std::int64_t* ids, graph::KnnGraph near,
                    std::size_t threads, Monitor* monitor);
  void check_links() const;
  void learn_grid(RowsView to_come);
  void refine(std::size_t count);
  storage::CodedLinks choose_roots(const codec::LinkCodec& codec, std::size_t threads);
  void update_codes(std::size_t threads, Monitor* monitor);
  void link_queries(RowsView queries, std::size_t threads, Monitor* monitor);
  void update_growth(RowsView queries);
  std::vector<std::uint32_t> listed_pairs(const graph::KnnGraph& near) const;
  std::vector<std::uint32_t> linked_pairs(std::size_t count) const;
  std::vector<std::uint32_t> nearest_pairs() const;
  std::vector<const std::byte*> record_of(std::int64_t id) const;
  void search_one(const std::byte* query, std::size_t k, std::size_t width,
                  const storage::SlotSet* filter, Scratch& scratch, std::int64_t* ids,
                  float* distances) const;

  GraphOptions options_;
  codec::RowCodec rows_;
  storage::Adjacency links_;
  storage::IdMap ids_;
  std::vector<std::uint32_t> entries_;
  std::vector<std::uint32_t> heads_;  // for roots_, from linking at once till then
  std::size_t refined_at_ = 0;  // size at which centre, layout and entries were chosen

  double growth_ = 0;          // how neighbours grow with the key; 0: not known
  std::size_t growth_at_ = 0;  // size when that was measured

  std::unique_ptr<codec::LinkCodec> codec_;  // null while links have no codes
  storage::CodedLinks coded_;
  storage::CodedLinks roots_;           // see graph::code_roots
  std::size_t roots_at_ = 0;            // size when those were chosen
  std::size_t learned_at_ = 0;          // size when it was last tried to learn one
  std::vector<std::uint32_t> touched_;  // nodes whose records are out of date

  bool links_trusted_ = true;  // false until the links of a file have been checked

  std::mutex add_mutex_;
  mutable RwLock lock_;
  mutable ScratchPool<Scratch> scratch_;
};

}  // namespace annx::index
