// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/link_coder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "annx/base/random.h"
#include "annx/kernels/dispatch.h"

namespace annx::graph {
namespace {

using kernels::kLinkGroup;
using storage::kSlotMask;

// Differences to learn from, at most; every link of a drawn node is used.
constexpr std::size_t kSample = 8192;
// Nodes coded between two calls of publish.
constexpr std::size_t kChunk = 512;
// From one node in so many on, all rows are projected and found by slot.
constexpr std::size_t kAllFrom = 16;

// The projections of some rows, by slot.
class Projections {
 public:
  // Of `slots`, sorted; of all rows if it is empty.
  Projections(const codec::RowCodec& rows, const codec::LinkCodec& codec,
              std::vector<std::uint32_t> slots, std::size_t threads)
      : axes_(codec.axes()), all_(slots.empty()), slots_(std::move(slots)) {
    const std::size_t n = all_ ? rows.size() : slots_.size();
    values_.resize(n * axes_);
    parallel_for(n, threads, 64, [&](std::size_t begin, std::size_t end, std::size_t) {
      std::vector<float> row(rows.dim()), scratch;
      for (std::size_t i = begin; i < end; ++i) {
        rows.vector(all_ ? i : slots_[i], row.data());
        codec.project(row.data(), scratch, values_.data() + i * axes_);
      }
    });
  }
  const float* of(std::uint32_t slot) const {
    if (all_) return values_.data() + slot * axes_;
    const auto at = std::lower_bound(slots_.begin(), slots_.end(), slot);
    return values_.data() + static_cast<std::size_t>(at - slots_.begin()) * axes_;
  }

 private:
  std::size_t axes_;
  bool all_;
  std::vector<std::uint32_t> slots_;
  std::vector<float> values_;
};

// Codes `count` links of one group and writes them into `block`, a copy of a block of
// `graph`; link i is in lane lanes[i].
void write_codes(const storage::Adjacency& graph, const codec::LinkCodec& codec,
                 const float* from, const float* const* to, const float* squares,
                 std::size_t group, const std::size_t* lanes, std::size_t count,
                 std::byte* block) {
  // Beyond what float16 holds a link keeps no code, and rows are asked.
  constexpr float kMost = 65000.0f;
  std::vector<std::uint8_t> coded(graph.code_bytes());
  std::array<float, kLinkGroup> offsets{}, scales{};
  codec.encode(from, to, squares, count, coded.data(), offsets.data(), scales.data());
  const auto narrow =
      kernels::active().narrow[static_cast<std::size_t>(DType::kFloat16)];
  std::byte* const offset_lanes = block + graph.offsets_at(group);
  std::byte* const scale_lanes = block + graph.scales_at(group);
  std::byte* const codes = block + graph.codes_at(group);
  for (std::size_t i = 0; i < count; ++i) {
    const bool fits = std::abs(offsets[i]) <= kMost && std::abs(scales[i]) <= kMost;
    if (!fits) continue;
    narrow(&offsets[i], 1, offset_lanes + 2 * lanes[i]);
    narrow(&scales[i], 1, scale_lanes + 2 * lanes[i]);
    for (std::size_t pair = 0; pair < graph.parts() / 2; ++pair) {
      codes[pair * kLinkGroup + lanes[i]] =
          static_cast<std::byte>(coded[pair * kLinkGroup + i]);
    }
  }
}

// The block of a node with codes for its stale links.
void code_block(const codec::RowCodec& rows, const storage::Adjacency& graph,
                const codec::LinkCodec& codec, const Projections& projections,
                std::uint32_t node, codec::RowCodec::Query& query, std::byte* block) {
  const std::uint32_t* links = graph.block(node);
  std::memcpy(block, links, graph.block_bytes());
  bool scored = false;
  for (std::size_t g = 0; g < graph.groups(); ++g) {
    std::array<std::size_t, kLinkGroup> lanes{};
    std::array<std::uint32_t, kLinkGroup> slots{};
    std::array<const float*, kLinkGroup> to{};
    std::size_t n = 0;
    for (std::size_t lane = 0; lane < kLinkGroup; ++lane) {
      const std::size_t place = g * kLinkGroup + lane;
      if (place >= graph.degree() || links[place] == storage::kNoEdge) break;
      if (!graph.stale(node, place)) continue;
      lanes[n] = lane;
      slots[n] = links[place] & kSlotMask;
      to[n] = projections.of(slots[n]);
      ++n;
    }
    if (n == 0) continue;
    if (!scored) query.set_item(rows, node);
    scored = true;
    std::array<float, kLinkGroup> squares{};
    query.score(slots.data(), n, squares.data());
    for (float& square : squares) square = rows.square_of_key(square);
    write_codes(graph, codec, projections.of(node), to.data(), squares.data(), g,
                lanes.data(), n, block);
  }
}

}  // namespace

std::unique_ptr<codec::LinkCodec> learn_link_codec(const codec::RowCodec& rows,
                                                   const storage::Adjacency& graph,
                                                   std::size_t count,
                                                   std::uint64_t seed,
                                                   std::size_t threads) {
  const std::size_t dim = rows.dim();
  std::vector<double> sum(dim);
  std::vector<float> differences;
  std::vector<float> from(dim), to(dim);
  const Random random(seed, count);
  std::size_t nodes = 0;
  std::size_t links = 0;
  for (; links < kSample && nodes < kSample; ++nodes) {
    const auto node = static_cast<std::uint32_t>(random.below(nodes, count));
    rows.vector(node, from.data());
    for (std::size_t k = 0; k < dim; ++k) sum[k] += static_cast<double>(from[k]);
    const std::size_t used = graph.count(node);
    for (std::size_t i = 0; i < used && links < kSample; ++i) {
      rows.vector(graph.word(node, i) & kSlotMask, to.data());
      double square = 0;
      for (std::size_t k = 0; k < dim; ++k) {
        to[k] -= from[k];
        square += static_cast<double>(to[k]) * static_cast<double>(to[k]);
      }
      if (!(square > 0) || !std::isfinite(square)) continue;
      differences.insert(differences.end(), to.begin(), to.end());
      ++links;
    }
  }
  if (links < codec::LinkCodec::kLeastSample) return nullptr;
  codec::LinkCodec::Options options;
  options.products = rows.metric() == Metric::kInnerProduct;
  options.seed = seed;
  std::vector<float> mean(dim);
  for (std::size_t k = 0; k < dim && !options.products; ++k) {
    mean[k] = static_cast<float>(sum[k] / static_cast<double>(nodes));
  }
  return std::make_unique<codec::LinkCodec>(
      MatrixView<float>{differences.data(), links, dim, dim}, std::move(mean), options,
      threads);
}

void code_links(const codec::RowCodec& rows, storage::Adjacency& graph,
                const codec::LinkCodec& codec, std::span<const std::uint32_t> nodes,
                std::size_t threads,
                const std::function<void(const std::function<void()>&)>& publish,
                Monitor* monitor) {
  std::vector<std::uint32_t> stale;
  std::vector<std::uint32_t> slots;
  const bool all = nodes.size() >= rows.size() / kAllFrom;
  for (const std::uint32_t node : nodes) {
    const std::size_t used = graph.count(node);
    bool any = false;
    for (std::size_t place = 0; place < used; ++place) {
      if (!graph.stale(node, place)) continue;
      any = true;
      if (!all) slots.push_back(graph.word(node, place) & kSlotMask);
    }
    if (!any) continue;
    if (!all) slots.push_back(node);
    stale.push_back(node);
  }
  if (stale.empty()) return;
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  const Projections projections(rows, codec, std::move(slots), threads);
  const std::size_t bytes = graph.block_bytes();
  std::vector<std::byte> blocks(std::min(kChunk, stale.size()) * bytes);
  for (std::size_t begin = 0; begin < stale.size(); begin += kChunk) {
    if (monitor != nullptr) monitor->poll(begin, stale.size());
    const std::size_t n = std::min(kChunk, stale.size() - begin);
    parallel_for(n, threads, 16, [&](std::size_t first, std::size_t last, std::size_t) {
      codec::RowCodec::Query query;
      for (std::size_t i = first; i < last; ++i) {
        code_block(rows, graph, codec, projections, stale[begin + i], query,
                   blocks.data() + i * bytes);
      }
    });
    publish([&] {
      for (std::size_t i = 0; i < n; ++i) {
        std::memcpy(graph.mutable_bytes(stale[begin + i]), blocks.data() + i * bytes,
                    bytes);
      }
    });
  }
}

storage::Adjacency code_roots(const codec::RowCodec& rows,
                              const codec::LinkCodec& codec,
                              std::span<const std::uint32_t> slots) {
  const std::size_t degree = (slots.size() + kLinkGroup - 1) / kLinkGroup * kLinkGroup;
  storage::Adjacency roots(degree, codec.parts());
  roots.resize(1);
  const std::vector<float> mean(codec.axes());
  std::vector<float> projected(kLinkGroup * codec.axes());
  std::vector<float> row(rows.dim()), scratch;
  for (std::size_t g = 0; g < roots.groups(); ++g) {
    std::array<std::size_t, kLinkGroup> lanes{};
    std::array<const float*, kLinkGroup> to{};
    std::array<float, kLinkGroup> squares{};
    const std::size_t n = std::min(kLinkGroup, slots.size() - g * kLinkGroup);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t slot = slots[g * kLinkGroup + i];
      roots.set(0, g * kLinkGroup + i, slot);
      rows.vector(slot, row.data());
      float* coordinates = projected.data() + i * codec.axes();
      codec.project(row.data(), scratch, coordinates);
      for (std::size_t k = 0; k < rows.dim(); ++k) {
        const float d = row[k] - codec.mean()[k];
        squares[i] += d * d;
      }
      lanes[i] = i;
      to[i] = coordinates;
    }
    write_codes(roots, codec, mean.data(), to.data(), squares.data(), g, lanes.data(),
                n, roots.mutable_bytes(0));
  }
  return roots;
}

}  // namespace annx::graph
