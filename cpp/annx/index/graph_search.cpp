// SPDX-License-Identifier: Apache-2.0
// Searching a GraphIndex, and what a search needs to know of the data.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "annx/index/graph.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

constexpr std::size_t kQueriesPerRange = 16;
constexpr std::int64_t kRootsId = -1;
// What an entry of a beam costs, in rows of a scan.
constexpr double kRowsPerBeamEntry = 16;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// How far a query that is harder than most may go beyond the width asked for.
constexpr std::size_t kWidthForHard = 2;
// Of keys that are not differences.
constexpr float kRounding = 1e-6f;

// Of update_growth: how many rows or queries are asked, how few queries serve, from how
// many rows on, and for which of their neighbours; a row is its own 0th.
constexpr std::size_t kGrowthSample = 256;
constexpr std::size_t kGrowthQueries = 32;
constexpr std::size_t kGrowthRows = 1024;
constexpr std::size_t kNear = 10;
constexpr std::size_t kFar = 100;

}  // namespace

// Around a row the number of others grows as a power of the key, whose exponent is half
// the intrinsic dimension where keys are squared distances. Measured from the keys of
// the 10th and the 100th neighbour, when the graph has doubled (Levina and Bickel,
// "Maximum likelihood estimation of intrinsic dimension", 2004, by two points). Around
// queries from elsewhere it is another power, so where some are given they are asked.
void GraphIndex::update_growth(RowsView queries) {
  const std::size_t count = ids_.slots();
  const bool given = queries.rows >= kGrowthQueries;
  if (count < kGrowthRows || (!given && count < 2 * growth_at_)) return;
  const std::size_t sample =
      given ? std::min(kGrowthSample, queries.rows) : kGrowthSample;
  double sum = 0;
  std::size_t asked = 0;
  if (options_.metric != Metric::kInnerProduct) {
    codec::RowCodec::Query query;
    search::BeamScratch scratch;
    for (std::size_t i = 0; i < sample; ++i) {
      if (given) {
        query.set(rows_, queries.row(i * queries.rows / sample));
      } else {
        query.set_item(rows_, i * count / sample);
      }
      search::beam_search(links_, count, query, entries_, kFar + kNear, {}, scratch);
      if (scratch.beam.size() <= kFar) continue;
      const std::size_t first = given ? 1 : 0;
      const double zero = given ? static_cast<double>(query.zero_key()) : 0.0;
      const double ratio =
          (static_cast<double>(scratch.beam.key(kFar - first)) - zero) /
          (static_cast<double>(scratch.beam.key(kNear - first)) - zero);
      // Copies of one row, more than ten, say nothing; nor does a ratio of roundings.
      if (!std::isfinite(ratio) || !(ratio >= 1)) continue;
      sum += std::log(ratio);
      ++asked;
    }
  }
  const double factor = std::log(static_cast<double>(kFar) / kNear);
  const auto lock = lock_.write();
  growth_ = 2 * asked < sample || sum <= 0
                ? 0
                : std::min(static_cast<double>(asked) * factor / sum, kMostGrowth);
  growth_at_ = count;
}

void GraphIndex::search(RowsView queries, std::size_t k, std::size_t width,
                        const storage::SlotSet* filter, std::size_t threads,
                        std::int64_t* ids, float* distances, Monitor* monitor) const {
  const bool bytes = options_.dtype == DType::kInt8 || options_.dtype == DType::kUInt8;
  storage::check_rows(options_.metric, bytes ? options_.dtype : DType::kFloat32,
                      queries, options_.dim, "queries");
  parallel_for(
      queries.rows, threads, kQueriesPerRange,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const ScratchPool<Scratch>::Lease scratch(scratch_);
        const auto lock = lock_.read();
        for (std::size_t i = begin; i < end; ++i) {
          search_one(queries.row(i), k, width, filter, *scratch, ids + i * k,
                     distances + i * k);
        }
      },
      monitor);
}

void GraphIndex::search_one(const std::byte* query, std::size_t k, std::size_t width,
                            const storage::SlotSet* filter, Scratch& scratch,
                            std::int64_t* ids, float* distances) const {
  const std::size_t count = ids_.slots();
  width = std::max(width, k);
  scratch.query.set(rows_, query);
  auto& shortlist = scratch.shortlist;
  shortlist.clear();
  const auto consider = [&](std::uint32_t slot, double distance) {
    // Damaged rows may hold NaN, which has no order.
    shortlist.emplace_back(std::isnan(distance) ? kInfinity : distance,
                           ids_.id_of(slot));
  };
  bool walk = true;
  if (filter != nullptr) {
    // A beam that holds `width` allowed rows is wider by their scarcity. Scanning the
    // allowed rows is exact, so it is taken whenever it costs no more.
    const auto allowed = static_cast<double>(filter->count());
    const double wider = static_cast<double>(width) * static_cast<double>(count) /
                         std::max(allowed, 1.0);
    walk = allowed > wider * kRowsPerBeamEntry;
    if (walk) {
      width = static_cast<std::size_t>(wider);
    } else {
      for (const std::uint32_t slot : filter->slots()) {
        consider(slot, scratch.query.exact(slot));
      }
    }
  }
  if (walk) {
    // Rounded keys can swap near neighbours, so some more than k may be settled
    // exactly.
    const std::size_t settle = k + std::max<std::size_t>(k, 8);
    search::Reach reach;
    if (filter == nullptr && growth_ > 0 && width < count) {
      reach.zero = scratch.query.zero_key();
      if (std::isfinite(reach.zero)) {
        reach.k = k;
        reach.rounding = kRounding * std::abs(reach.zero);
        reach.factor = static_cast<float>(
            std::pow(static_cast<double>(width) / static_cast<double>(k), 1 / growth_));
        width *= kWidthForHard;
      }
    }
    width = std::min(width, count);
    if (codec_ != nullptr) {
      float gain;
      const float* vector = scratch.query.vector(gain);
      scratch.link_query.set(*codec_, vector, gain);
      search::coded_beam_search(links_, coded_, count, scratch.query,
                                scratch.link_query.view(), roots_, width,
                                filter != nullptr ? width : std::min(width, settle),
                                reach, scratch.beam);
    } else {
      search::beam_search(links_, count, scratch.query, entries_, width, reach,
                          scratch.beam);
    }
    const search::CandidateList& beam =
        codec_ != nullptr ? scratch.beam.found : scratch.beam.beam;
    const bool settled = scratch.query.keys_are_exact();
    std::size_t end = beam.size();
    if (filter == nullptr) {
      if (end > k) {
        const float last = beam.key(k - 1);
        const float limit = last + 2 * scratch.query.key_error(last);
        end = k;
        while (end < std::min(settle, beam.size()) && !(beam.key(end) > limit)) ++end;
      }
      for (std::size_t i = 0; i < end && !settled; ++i) {
        scratch.query.prefetch_exact(beam.slot(i));
      }
    }
    for (std::size_t i = 0; i < end && shortlist.size() < settle; ++i) {
      const std::uint32_t slot = beam.slot(i);
      if (filter != nullptr && (slot >= filter->capacity() || !filter->test(slot))) {
        continue;
      }
      consider(slot,
               settled ? static_cast<double>(beam.key(i)) : scratch.query.exact(slot));
    }
  }
  const std::size_t found = std::min(k, shortlist.size());
  std::partial_sort(shortlist.begin(),
                    shortlist.begin() + static_cast<std::ptrdiff_t>(found),
                    shortlist.end());
  for (std::size_t i = 0; i < found; ++i) {
    ids[i] = shortlist[i].second;
    distances[i] = static_cast<float>(shortlist[i].first);
  }
  for (std::size_t i = found; i < k; ++i) {
    ids[i] = -1;
    distances[i] = std::numeric_limits<float>::infinity();
  }
}

// The groups of a node's record, or of the roots'.
std::vector<const std::byte*> GraphIndex::record_of(std::int64_t id) const {
  const storage::CodedLinks& links = id == kRootsId ? roots_ : coded_;
  std::vector<const std::byte*> groups;
  const std::byte* group = links.record(id == kRootsId ? 0 : ids_.slot_of(id));
  for (; group != nullptr; group = links.next(group)) groups.push_back(group);
  return groups;
}

GraphIndex::LinkCodes GraphIndex::link_codes(std::int64_t id) const {
  const auto lock = lock_.read();
  LinkCodes result;
  if (codec_ == nullptr) return result;
  const auto widen = kernels::active().widen[static_cast<std::size_t>(DType::kFloat16)];
  for (const std::byte* group : record_of(id)) {
    for (std::size_t lane = 0; lane < kernels::kLinkGroup; ++lane) {
      const std::uint32_t other =
          storage::CodedLinks::words(group)[lane] & storage::kSlotMask;
      if (other >= ids_.slots()) continue;
      result.ids.push_back(ids_.id_of(other));
      float value;
      widen(storage::CodedLinks::offsets(group) + 2 * lane, 1, &value);
      result.offsets.push_back(value * codec_->offset_unit());
      widen(storage::CodedLinks::scales(group) + 2 * lane, 1, &value);
      result.scales.push_back(value * codec_->scale_unit());
      const std::uint8_t* codes = storage::CodedLinks::codes(group);
      for (std::size_t p = 0; p < coded_.parts(); ++p) {
        const unsigned two = codes[kernels::link_code_at(p, lane)];
        result.codes.push_back(
            static_cast<std::uint8_t>(two >> kernels::link_code_shift(p) & 15u));
      }
    }
  }
  return result;
}

std::vector<float> GraphIndex::estimate_links(const std::byte* query, std::int64_t id,
                                              float& key) const {
  const auto lock = lock_.read();
  std::vector<float> result;
  codec::RowCodec::Query row_query;
  row_query.set(rows_, query);
  key = 0;
  if (id != kRootsId) {
    const std::uint32_t slot = ids_.slot_of(id);
    row_query.score(&slot, 1, &key);
  }
  if (codec_ == nullptr) return result;
  codec::LinkCodec::Query link_query;
  float gain;
  const float* vector = row_query.vector(gain);
  link_query.set(*codec_, vector, gain);
  for (const std::byte* group : record_of(id)) {
    std::array<float, kernels::kLinkGroup> keys;
    kernels::active().link_scan(link_query.view(), storage::CodedLinks::codes(group),
                                storage::CodedLinks::offsets(group),
                                storage::CodedLinks::scales(group), key, 0.0f,
                                {nullptr, nullptr, 0, 0}, keys.data());
    for (std::size_t lane = 0; lane < keys.size(); ++lane) {
      const std::uint32_t other =
          storage::CodedLinks::words(group)[lane] & storage::kSlotMask;
      if (other < ids_.slots()) result.push_back(keys[lane]);
    }
  }
  return result;
}

}  // namespace annx::index
