// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/link_coder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "annx/base/random.h"
#include "annx/graph/squared_distance.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/half_rows.h"

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

// Projections are rounded to float16 if at most one in so many of the links looked at
// is shorter than this share of a projection's length.
constexpr std::size_t kLooked = 512;
constexpr std::size_t kFewShort = 100;
constexpr float kShort = 0x1.0p-6f;

// Whether links are long enough for the difference of two rounded projections to be as
// good as their own: it is off by some 2^-12 of the projections' length, and a code by
// a tenth of the link's.
bool may_round(const codec::RowCodec& rows, const storage::Adjacency& graph,
               const codec::LinkCodec& codec, std::span<const std::uint32_t> nodes) {
  const std::size_t axes = codec.axes();
  std::vector<float> row(rows.dim()), scratch, from(axes), to(axes);
  const std::vector<float> zero(axes);
  std::size_t looked = 0, brief = 0;
  for (std::size_t i = 0; i < nodes.size(); i += nodes.size() / kLooked + 1) {
    if (graph.count(nodes[i]) == 0) continue;
    rows.vector(nodes[i], row.data());
    codec.project(row.data(), scratch, from.data());
    // A node's own links come first, nearest first.
    rows.vector(graph.word(nodes[i], 0) & kSlotMask, row.data());
    codec.project(row.data(), scratch, to.data());
    const float link = squared_distance(from.data(), to.data(), axes);
    const float length = squared_distance(from.data(), zero.data(), axes);
    ++looked;
    // Equal rows have no direction to lose.
    if (link > 0 && !(link >= kShort * kShort * length)) ++brief;
  }
  return brief * kFewShort <= looked;
}

// The projections of some rows, by slot.
class Projections {
 public:
  // Of `slots`, sorted; of all rows if it is empty.
  Projections(const codec::RowCodec& rows, const codec::LinkCodec& codec,
              std::vector<std::uint32_t> slots, bool rounded, std::size_t threads)
      : axes_(codec.axes()),
        stride_(rounded ? storage::half_row_bytes(axes_) : axes_ * sizeof(float)),
        rounded_(rounded),
        all_(slots.empty()),
        slots_(std::move(slots)) {
    const std::size_t n = all_ ? rows.size() : slots_.size();
    bytes_ = AlignedBuffer(n * stride_);
    parallel_for(n, threads, 64, [&](std::size_t begin, std::size_t end, std::size_t) {
      std::vector<float> row(rows.dim()), scratch, projected(axes_);
      for (std::size_t i = begin; i < end; ++i) {
        rows.vector(all_ ? i : slots_[i], row.data());
        codec.project(row.data(), scratch, projected.data());
        std::byte* to = bytes_.data() + i * stride_;
        if (rounded_) {
          storage::put_half_row(projected.data(), axes_, to);
        } else {
          std::memcpy(to, projected.data(), stride_);
        }
      }
    });
  }
  // In place, or written to `scratch`.
  const float* read(std::uint32_t slot, float* scratch) const {
    std::size_t i = slot;
    if (!all_) {
      const auto at = std::lower_bound(slots_.begin(), slots_.end(), slot);
      i = static_cast<std::size_t>(at - slots_.begin());
    }
    const std::byte* from = bytes_.data() + i * stride_;
    if (!rounded_) return reinterpret_cast<const float*>(from);
    storage::get_half_row(from, axes_, scratch);
    return scratch;
  }
  std::size_t axes() const { return axes_; }

 private:
  std::size_t axes_;
  std::size_t stride_;  // bytes
  bool rounded_;
  bool all_;
  std::vector<std::uint32_t> slots_;
  AlignedBuffer bytes_;
};

// Collects links from one row, and writes them as a record's groups.
class RecordWriter {
 public:
  explicit RecordWriter(const codec::LinkCodec& codec)
      : codec_(codec),
        layout_(codec.parts()),
        coded_(kernels::link_code_bytes(codec.parts())),
        narrow_(kernels::active().narrow[static_cast<std::size_t>(DType::kFloat16)]) {}

  // Starts a record of `count` links; all lanes are unused. `from` must last.
  void start(const float* from, std::size_t count) {
    from_ = from;
    set_ = false;
    pending_ = 0;
    groups_ = (count + kLinkGroup - 1) / kLinkGroup;
    bytes_.assign(groups_ * layout_.group_bytes(), std::byte{0});
    for (std::size_t i = 0; i < groups_ * kLinkGroup; ++i) {
      storage::CodedLinks::clear_lane(group(i), i % kLinkGroup);
    }
  }
  // Link number `place`, with the code of a lane of another record.
  void copy(std::size_t place, std::uint32_t slot, const std::byte* other,
            std::size_t lane) {
    std::byte* const to = group(place);
    const std::size_t at = place % kLinkGroup;
    std::memcpy(to + 4 * at, &slot, 4);
    std::memcpy(storage::CodedLinks::offset_of(to, at),
                storage::CodedLinks::offsets(other) + 2 * lane, 2);
    std::memcpy(storage::CodedLinks::scale_of(to, at),
                storage::CodedLinks::scales(other) + 2 * lane, 2);
    put_codes(place, storage::CodedLinks::codes(other), lane);
  }
  // Link number `place` to a row with these coordinates at this squared distance. Takes
  // effect with a whole group of them, or flush(): `to` must last until then.
  void add(std::size_t place, std::uint32_t slot, const float* to, float square) {
    places_[pending_] = place;
    slots_[pending_] = slot;
    to_[pending_] = to;
    squares_[pending_] = square;
    if (++pending_ == kLinkGroup) flush();
  }
  void flush() {
    // Beyond what float16 holds a link keeps no code, and rows are asked.
    constexpr float kMost = 65000.0f;
    if (pending_ == 0) return;
    std::array<float, kLinkGroup> offsets{}, scales{};
    if (!set_) encoder_.set(codec_, from_);
    set_ = true;
    encoder_.encode(to_.data(), squares_.data(), pending_, coded_.data(),
                    offsets.data(), scales.data());
    for (std::size_t i = 0; i < pending_; ++i) {
      std::byte* const to = group(places_[i]);
      const std::size_t lane = places_[i] % kLinkGroup;
      std::memcpy(to + 4 * lane, &slots_[i], 4);
      if (std::abs(offsets[i]) <= kMost && std::abs(scales[i]) <= kMost) {
        narrow_(&offsets[i], 1, storage::CodedLinks::offset_of(to, lane));
        narrow_(&scales[i], 1, storage::CodedLinks::scale_of(to, lane));
      } else {
        storage::CodedLinks::put_half(storage::CodedLinks::scale_of(to, lane),
                                      storage::CodedLinks::kNotCoded);
      }
      put_codes(places_[i], coded_.data(), i);
    }
    pending_ = 0;
  }
  const std::byte* bytes() const { return bytes_.data(); }
  std::size_t groups() const { return groups_; }

 private:
  std::byte* group(std::size_t place) {
    return bytes_.data() + place / kLinkGroup * layout_.group_bytes();
  }
  void put_codes(std::size_t place, const std::uint8_t* from, std::size_t lane) {
    std::byte* const to = group(place) + storage::CodedLinks::kCodes;
    for (std::size_t at = 0; at < coded_.size(); at += kLinkGroup) {
      to[at + place % kLinkGroup] = static_cast<std::byte>(from[at + lane]);
    }
  }

  const codec::LinkCodec& codec_;
  storage::CodedLinks layout_;
  std::vector<std::uint8_t> coded_;
  kernels::Narrow narrow_;
  codec::LinkCodec::Encoder encoder_;
  const float* from_ = nullptr;
  bool set_ = false;  // the encoder, to from_
  std::size_t groups_ = 0;
  std::vector<std::byte> bytes_;
  std::size_t pending_ = 0;
  std::array<std::size_t, kLinkGroup> places_{};
  std::array<std::uint32_t, kLinkGroup> slots_{};
  std::array<const float*, kLinkGroup> to_{};
  std::array<float, kLinkGroup> squares_{};
};

// Finds a slot's lane in a record.
struct Lane {
  const std::byte* group = nullptr;
  std::size_t lane = 0;
};
Lane find_lane(const storage::CodedLinks& coded, std::uint32_t node,
               std::uint32_t slot) {
  for (const std::byte* group = coded.kept(node); group != nullptr;
       group = coded.next(group)) {
    const std::uint32_t* words = storage::CodedLinks::words(group);
    for (std::size_t lane = 0; lane < kLinkGroup; ++lane) {
      if ((words[lane] & kSlotMask) == slot) return {group, lane};
    }
  }
  return {};
}

// The record of a node; codes that it has already are taken over.
void make_record(const codec::RowCodec& rows, const storage::Adjacency& graph,
                 const storage::CodedLinks& coded, const Projections& projections,
                 std::uint32_t node, codec::RowCodec::Query& query,
                 std::vector<float>& read, RecordWriter& writer) {
  const std::uint32_t* links = graph.block(node);
  const std::size_t count = graph.count(node);
  const std::size_t axes = projections.axes();
  read.resize((1 + kLinkGroup) * axes);
  float* const group = read.data() + axes;
  writer.start(projections.read(node, read.data()), count);
  std::vector<std::uint32_t> slots;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t slot = links[i] & kSlotMask;
    const Lane lane = find_lane(coded, node, slot);
    if (lane.group != nullptr) {
      writer.copy(i, slot, lane.group, lane.lane);
    } else {
      slots.push_back(slot);
      places.push_back(i);
    }
  }
  if (slots.empty()) return;
  std::vector<float> keys(slots.size());
  query.set_item(rows, node);
  query.score(slots.data(), slots.size(), keys.data());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    writer.add(places[i], slots[i],
               projections.read(slots[i], group + i % kLinkGroup * axes),
               rows.square_of_key(keys[i]));
  }
  writer.flush();
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

void code_links(const codec::RowCodec& rows, const storage::Adjacency& graph,
                storage::CodedLinks& coded, const codec::LinkCodec& codec,
                std::span<const std::uint32_t> nodes, std::size_t threads,
                const std::function<void(const std::function<void()>&)>& publish,
                Monitor* monitor) {
  if (nodes.empty()) return;
  std::vector<std::uint32_t> slots;
  std::size_t groups = 0;
  const bool all = nodes.size() >= rows.size() / kAllFrom;
  for (const std::uint32_t node : nodes) {
    const std::size_t used = graph.count(node);
    if (coded.kept(node) == nullptr) groups += (used + kLinkGroup - 1) / kLinkGroup;
    if (all) continue;
    slots.push_back(node);
    for (std::size_t i = 0; i < used; ++i) {
      const std::uint32_t slot = graph.word(node, i) & kSlotMask;
      if (find_lane(coded, node, slot).group == nullptr) slots.push_back(slot);
    }
  }
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  // Of few rows memory does not matter.
  const bool rounded = all && may_round(rows, graph, codec, nodes);
  const Projections projections(rows, codec, std::move(slots), rounded, threads);
  if (all) publish([&] { coded.reserve_groups(groups); });
  std::vector<std::vector<std::byte>> records(std::min(kChunk, nodes.size()));
  std::vector<std::size_t> counts(records.size());
  for (std::size_t begin = 0; begin < nodes.size(); begin += kChunk) {
    if (monitor != nullptr) monitor->poll(begin, nodes.size());
    const std::size_t n = std::min(kChunk, nodes.size() - begin);
    parallel_for(n, threads, 16, [&](std::size_t first, std::size_t last, std::size_t) {
      codec::RowCodec::Query query;
      RecordWriter writer(codec);
      std::vector<float> read;
      for (std::size_t i = first; i < last; ++i) {
        make_record(rows, graph, coded, projections, nodes[begin + i], query, read,
                    writer);
        counts[i] = writer.groups();
        records[i].assign(writer.bytes(),
                          writer.bytes() + writer.groups() * coded.group_bytes());
      }
    });
    publish([&] {
      for (std::size_t i = 0; i < n; ++i) {
        coded.replace(nodes[begin + i], records[i].data(), counts[i]);
      }
    });
  }
}

storage::CodedLinks code_roots(const codec::RowCodec& rows,
                               const codec::LinkCodec& codec,
                               std::span<const std::uint32_t> slots) {
  storage::CodedLinks roots(codec.parts());
  roots.resize(1);
  const std::vector<float> mean(codec.axes());
  std::vector<float> row(rows.dim()), scratch;
  std::vector<float> projected(slots.size() * codec.axes());
  RecordWriter writer(codec);
  writer.start(mean.data(), slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    rows.vector(slots[i], row.data());
    float* const coordinates = projected.data() + i * codec.axes();
    codec.project(row.data(), scratch, coordinates);
    float square = 0;
    for (std::size_t k = 0; k < rows.dim(); ++k) {
      const float d = row[k] - codec.mean()[k];
      square += d * d;
    }
    writer.add(i, slots[i], coordinates, square);
  }
  writer.flush();
  roots.replace(0, writer.bytes(), writer.groups());
  return roots;
}

}  // namespace annx::graph
