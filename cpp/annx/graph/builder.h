// SPDX-License-Identifier: Apache-2.0
// Growing the graph, a batch of nodes at a time (after ParlayANN; Manohar and others,
// 2023). Every node of a batch searches the graph as it was before the batch, scores
// the other nodes of the batch outright, and chooses its links among both; then each
// node that was chosen takes the new ones in as reverse links, in order of slot. No
// step depends on which thread runs it, so a seed gives the same graph for any number
// of threads, and no lock is needed. Scoring the batch itself is what makes rows that
// come sorted by topic, or a new cluster that comes at once, as well linked as shuffled
// ones; it costs kBatch sequential distances a node, a few per cent of its search.
//
// Reachability. Each node but slot 0 has one tree edge: a link into it that is never
// pruned, from a node that was there before it or has a smaller slot. By induction
// every node can be reached from slot 0, whatever the data: duplicates, clusters,
// outliers. A node holds at most degree / 2 tree edges, so there is always room for
// others; where the nearest earlier node has none left, a descendant of it takes the
// edge.
//
// Many rows at once, into an empty graph, choose their links by the same rule from
// lists of near neighbours (levels.h). Reverse links and tree edges are then those of a
// batch.
//
// Cost of a node: one search of width ef_construction, and for each of its links at
// most 2 x degree distances at the other end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/base/parallel.h"
#include "annx/codec/row_codec.h"
#include "annx/graph/levels.h"
#include "annx/graph/prune.h"
#include "annx/search/beam.h"
#include "annx/storage/adjacency.h"

namespace annx::graph {

struct BuildOptions {
  std::size_t degree = 32;  // links a node can hold; even, at least 4
  std::size_t ef_construction = 200;
  float alpha = 1.0f;  // on distances, not on squares
  std::uint64_t seed = 0;
};

class Builder {
 public:
  Builder(const codec::RowCodec& rows, storage::Adjacency& graph, BuildOptions options);

  // Most nodes that are added at once.
  static constexpr std::size_t kBatch = 512;

  // Chooses the links of the nodes [count, rows.size()), at most kBatch, whose blocks
  // exist and are empty. Writes those blocks only, so searches below `count` may run
  // meanwhile.
  void choose_links(std::size_t count, const std::vector<std::uint32_t>& entries,
                    std::size_t threads, Monitor* monitor);

  // Chooses the links of all rows, where all blocks are empty.
  void choose_links_from(const std::vector<Level>& levels, std::size_t threads,
                         Monitor* monitor);

  // Adds the reverse links of what choose_links chose, and the tree edges. Writes
  // blocks of every node: no search may run meanwhile.
  void add_reverse_links(std::size_t threads);

  // The nodes whose links may have changed, with repeats; the caller may empty it.
  std::vector<std::uint32_t>& touched() { return touched_; }

 private:
  struct Worker {
    codec::RowCodec::Query query;
    search::BeamScratch beam;
    PruneScratch prune;
    std::vector<Neighbour> candidates;
    std::vector<Neighbour> chosen;
    std::vector<float> to_target;
    std::vector<float> to_source;
    std::vector<std::uint32_t> slots;
    std::vector<float> batch_keys;
    Neighbour parent;
    std::vector<Neighbour> links;
  };

  // A new link target -> source, in one number that sorts by target, then source, tree
  // edges first: a build of many rows sorts some twenty of them a row.
  struct Link {
    Link() = default;
    Link(std::uint32_t target, std::uint32_t source, bool tree)
        : bits(std::uint64_t{target} << 32 | std::uint64_t{source} << 1 |
               (tree ? 0 : 1)) {}
    std::uint32_t target() const { return static_cast<std::uint32_t>(bits >> 32); }
    std::uint32_t source() const { return static_cast<std::uint32_t>(bits) >> 1; }
    bool tree() const { return (bits & 1) == 0; }
    bool operator<(const Link& other) const { return bits < other.bits; }

    std::uint64_t bits = 0;
  };

  void prepare_workers(std::size_t threads);
  void choose(std::uint32_t node, const std::vector<std::uint32_t>& entries,
              Worker& worker);
  void score_slots(std::uint32_t node, Worker& worker);
  void choose_listed(const std::vector<Level>& levels, std::uint32_t node,
                     Worker& worker);
  void link_sources(std::span<const Link> links, Worker& worker);
  void attach(std::uint32_t node, Worker& worker);
  std::size_t tree_edges(std::uint32_t node) const;

  const codec::RowCodec& rows_;
  storage::Adjacency& graph_;
  BuildOptions options_;
  float relax_;
  std::size_t first_ = 0;  // the batch is [first_, last_)
  std::size_t last_ = 0;
  std::vector<Worker> workers_;
  std::vector<std::uint32_t> batch_;    // the slots of the batch
  std::vector<std::uint32_t> parents_;  // per node of the batch: nearest earlier node
  std::vector<char> attached_;          // per node of the batch: has its tree edge
  std::vector<Link> links_;
  std::vector<std::uint32_t> touched_;
};

}  // namespace annx::graph
