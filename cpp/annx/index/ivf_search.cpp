// SPDX-License-Identifier: Apache-2.0
// Searching of IvfIndex: the lists to look at, their scan, and the second look.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "annx/base/error.h"
#include "annx/base/groups.h"
#include "annx/base/prefetch.h"
#include "annx/index/ivf_scratch.h"
#include "annx/kernels/dispatch.h"
#include "annx/search/least.h"
#include "annx/search/topk.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using storage::CodeLists;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Blocks that one call scans.
constexpr std::size_t kRunBlocks = 64;
// Queries of a batch that are searched for together.
constexpr std::size_t kTogether = 96;
// A filter of no more than this many, and the candidates, is searched exactly.
constexpr std::size_t kFewAllowed = 1000;

}  // namespace

// A list is nearer than the limit only if the nearest of its group is, and where as
// many groups as lists are wanted have one that near, so have enough lists: a limit
// that is sought among the groups' nearest serves, and leaves few lists to sort.
void IvfIndex::Scratch::choose(std::size_t row, std::size_t lists, std::size_t wanted,
                               bool products) {
  constexpr std::size_t kGroup = kernels::kGroup;
  const float* from = list_keys.data() + row * stride;
  const std::size_t groups = stride / kGroup;
  probes.clear();
  float limit = kInfinity;
  if (wanted <= groups) {
    minima.resize(groups);
    for (std::size_t g = 0; g < groups; ++g) {
      float least[4];
      for (std::size_t j = 0; j < 4; ++j) {
        const float* four = from + g * kGroup + j;
        least[j] = std::min(std::min(four[0], four[4]), std::min(four[8], four[12]));
      }
      minima[g] = std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
    }
    limit = search::least_limit(minima.data(), groups, wanted, wanted / 8);
  } else {
    minima.assign(groups, -kInfinity);
    limit = search::least_limit(from, lists, wanted, wanted / 8);
  }
  for (std::size_t g = 0; g < groups; ++g) {
    if (minima[g] > limit) continue;
    const std::size_t end = std::min(lists, (g + 1) * kGroup);
    for (std::size_t l = g * kGroup; l < end; ++l) {
      if (from[l] <= limit) probes.push_back(static_cast<std::uint32_t>(l));
    }
  }
  std::sort(probes.begin(), probes.end(), [&](std::uint32_t a, std::uint32_t b) {
    return from[a] < from[b] || (from[a] == from[b] && a < b);
  });
  probes.resize(wanted);
  probe_keys.resize(wanted);
  for (std::size_t p = 0; p < wanted; ++p) {
    const float key = from[probes[p]];
    probe_keys[p] = products ? key : std::max(0.0f, key + squares[row]);
  }
}

// What is left depends on what was there, not on its order: of candidates with the same
// estimate those of the least places stay.
float IvfIndex::Scratch::shrink(std::size_t wanted, bool exactly) {
  if (size <= wanted) return kInfinity;
  const std::size_t slack = exactly ? 0 : wanted / 8;
  const float limit = search::least_limit(keys.data(), size, wanted, slack);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    keys[kept] = keys[i];
    places[kept] = places[i];
    origins[kept] = origins[i];
    kept += keys[i] <= limit ? 1u : 0u;
  }
  size = kept;
  if (size > wanted + slack) drop_ties(wanted + slack, limit);
  return limit;
}

void IvfIndex::Scratch::drop_ties(std::size_t wanted, float limit) {
  tied.clear();
  for (std::size_t i = 0; i < size; ++i) {
    if (keys[i] == limit) tied.push_back(places[i]);
  }
  const std::size_t excess = std::min(size - wanted, tied.size());
  if (excess == 0) {  // estimates of damaged codes may be NaN, which equals nothing
    size = wanted;
    return;
  }
  const auto last = tied.end() - static_cast<std::ptrdiff_t>(excess);
  std::nth_element(tied.begin(), last, tied.end());
  const std::uint32_t end = *last;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    keys[kept] = keys[i];
    places[kept] = places[i];
    origins[kept] = origins[i];
    kept += keys[i] < limit || places[i] < end ? 1u : 0u;
  }
  size = std::min(kept, wanted);
}

search::RowSet IvfIndex::row_set() const {
  return search::stored_rows(options_.metric, options_.storage, options_.dim,
                             rows_.data(), norms_.data(), ids_);
}

// The lists that query `row` of those that were scored looks at.
void IvfIndex::choose_lists(Scratch& scratch, std::size_t row,
                            std::size_t probes) const {
  scratch.choose(row, trained_->lists.lists(), probes, trained_->products);
  scratch.row = row;
  if (options_.residual) return;
  // Codes are of x - m, so that every list starts from |q - m|^2.
  const float base = trained_->products ? 0.0f : scratch.squares[row];
  std::fill(scratch.probe_keys.begin(), scratch.probe_keys.end(), base);
}

void IvfIndex::search(RowsView queries, const Search& how,
                      const storage::SlotSet* filter, std::size_t threads,
                      Monitor* monitor, std::int64_t* ids, float* distances) const {
  const DType type = search::query_dtype(options_.dtype);
  const std::size_t dim = options_.dim;
  storage::check_rows(type, queries, dim, "queries");
  const auto lock = lock_.read();
  if (filter != nullptr) filter->require(version());
  require_trained();
  const std::size_t count = ids_.slots();
  std::fill_n(ids, queries.rows * how.k, std::int64_t{-1});
  std::fill_n(distances, queries.rows * how.k, kInfinity);
  if (count == 0 || (filter != nullptr && filter->count() == 0)) return;
  Search plan = how;
  plan.k = std::min(how.k, count);
  if (!options_.keep_rows && options_.grid_bits == 0) plan.rerank = 0;
  if (filter != nullptr && options_.keep_rows &&
      static_cast<double>(filter->count()) <=
          static_cast<double>(kFewAllowed) +
              plan.rerank * static_cast<double>(plan.k)) {
    search_few(queries, *filter, how.k, threads, monitor, ids, distances);
    return;
  }
  if (trained_->copies == 2 && trained_->grid) locate();
  const std::size_t lists = trained_->lists.lists();
  plan.n_probe = std::min(how.n_probe, lists);
  if (flat() && filter == nullptr && queries.rows > 1) {
    search_flat_batch(queries, plan, how.k, threads, monitor, ids, distances);
    return;
  }
  if (!flat() && filter == nullptr && queries.rows > 1 && trained_->copies == 1) {
    const std::size_t workers = resolve_threads(threads);
    const std::size_t together = std::clamp((queries.rows + workers - 1) / workers,
                                            kernels::kScorePoints, kTogether);
    parallel_for(
        queries.rows, workers, together,
        [&](std::size_t begin, std::size_t end, std::size_t) {
          const ScratchPool<Scratch>::Lease lease(scratch_);
          for (std::size_t at = begin; at < end; at += together) {
            search_codes_together(*lease, queries, at, std::min(together, end - at),
                                  plan, how.k, ids + at * how.k,
                                  distances + at * how.k);
          }
        },
        monitor);
    return;
  }
  // With a filter lists are visited until k rows were found.
  const std::size_t probes = filter != nullptr ? lists : plan.n_probe;
  parallel_for(
      queries.rows, resolve_threads(threads), kernels::kScorePoints,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const ScratchPool<Scratch>::Lease lease(scratch_);
        Scratch& scratch = *lease;
        for (std::size_t at = begin; at < end; at += kernels::kScorePoints) {
          const std::size_t part = std::min(kernels::kScorePoints, end - at);
          score_lists(*trained_, scratch, queries, search::query_dtype(options_.dtype),
                      at, part);
          for (std::size_t i = 0; i < part; ++i) {
            choose_lists(scratch, i, probes);
            std::int64_t* to_ids = ids + (at + i) * how.k;
            float* to_distances = distances + (at + i) * how.k;
            if (flat()) {
              search_flat(scratch, queries.row(at + i), plan, filter, to_ids,
                          to_distances);
            } else {
              search_one(scratch, queries.row(at + i), scratch.vectors.data() + i * dim,
                         plan, filter, to_ids, to_distances);
            }
          }
        }
      },
      queries.rows > 1 ? monitor : nullptr);
}

void IvfIndex::Trained::pack() {
  constexpr std::size_t kGroup = kernels::kGroup;
  const MatrixView<float> centroids = coarse.centroids();
  const std::size_t count = (centroids.rows + kGroup - 1) / kGroup;
  packed.assign(count * kGroup * centroids.cols, 0.0f);
  offsets.assign(count * kGroup, kInfinity);
  groups.resize(count);
  std::iota(groups.begin(), groups.end(), 0u);
  for (std::size_t l = 0; l < centroids.rows; ++l) {
    float* to = packed.data() + l / kGroup * kGroup * centroids.cols + l % kGroup;
    double square = 0;
    for (std::size_t k = 0; k < centroids.cols; ++k) {
      const float x = centroids.row(l)[k] - mean[k];
      to[k * kGroup] = products ? -x : -2 * x;
      square += static_cast<double>(x) * static_cast<double>(x);
    }
    offsets[l] = products ? 0.0f : static_cast<float>(square);
  }
}

// Float vectors of some rows of `dtype`, and the keys of all lists for each of them,
// less what is the same for all lists.
void IvfIndex::score_lists(const Trained& to, Scratch& scratch, RowsView rows,
                           DType dtype, std::size_t first, std::size_t count) const {
  const std::size_t dim = options_.dim;
  scratch.stride = to.offsets.size();
  scratch.vectors.resize(kernels::kScorePoints * dim);
  scratch.centred.resize(kernels::kScorePoints * dim);
  scratch.list_keys.resize(kernels::kScorePoints * scratch.stride);
  const float* mean = to.mean.data();
  for (std::size_t i = 0; i < count; ++i) {
    widen(rows.row(first + i), dtype, scratch.vectors.data() + i * dim);
    for (std::size_t k = 0; k < dim; ++k) {
      scratch.centred[i * dim + k] = scratch.vectors[i * dim + k] - mean[k];
    }
  }
  const auto& table = kernels::active();
  if (count == 1) {
    table.score_point(scratch.centred.data(), to.packed.data(), to.offsets.data(), dim,
                      to.groups.size(), scratch.list_keys.data());
  } else {
    table.score_tile(scratch.centred.data(), dim, count, to.packed.data(),
                     to.offsets.data(), dim, to.groups.data(), to.groups.size(),
                     scratch.list_keys.data(), scratch.stride, nullptr, 0);
  }
  for (std::size_t i = 0; i < count; ++i) {
    table.float_squares[0](
        reinterpret_cast<const std::byte*>(scratch.centred.data() + i * dim), 0, 1, dim,
        &scratch.squares[i]);
  }
}

// How many candidates a search for plan.k keeps; with two copies of a row both may be
// among them.
std::size_t IvfIndex::rows_wanted(const Search& plan) const {
  const double asked = std::max(plan.rerank, 1.0) * static_cast<double>(plan.k);
  const std::size_t count = ids_.slots();
  return asked < static_cast<double>(count) ? static_cast<std::size_t>(asked) : count;
}

void IvfIndex::Scratch::start(const codec::PieceCodec& codec, const float* vector,
                              std::size_t wanted_now, std::size_t codes) {
  query.set(codec, vector);
  wanted = wanted_now;
  // Estimates are sorted out when so many have gathered.
  full = std::min(codes, 4 * wanted + 256);
  const std::size_t room = full + (kRunBlocks + 1) * CodeLists::kBlock + 1;
  if (keys.size() < room) {
    keys.resize(room);
    places.resize(room);
    origins.resize(room);
  }
  size = 0;
  limit = kInfinity;
}

// The codes in `run` blocks from the `at`-th of a list on, which lie one after the
// other; the list is the p-th of the scratch's probes.
void IvfIndex::scan_run(Scratch& scratch, std::size_t list, std::size_t p,
                        std::size_t at, std::size_t run,
                        const storage::SlotSet* filter) const {
  constexpr std::uint32_t kBlock = CodeLists::kBlock;
  const CodeLists& lists = trained_->lists;
  const std::uint32_t block = lists.blocks(list)[at];
  const std::size_t codes =
      std::min<std::size_t>(run * kBlock, lists.size(list) - at * kBlock);
  const float base = scratch.probe_keys[p];
  // What rounding may add to an estimate at the limit: that one must stay.
  const float margin = 0x1.0p-21f * (std::abs(base) + std::abs(scratch.limit));
  std::size_t found = trained_->codec->scan(
      scratch.query, lists.block(block), codes, base,
      scratch.limit < kInfinity ? scratch.limit + margin : kInfinity, block * kBlock,
      scratch.keys.data() + scratch.size, scratch.places.data() + scratch.size);
  if (filter != nullptr) {
    const std::size_t count = ids_.slots();
    std::size_t kept = scratch.size;
    for (std::size_t i = scratch.size; i < scratch.size + found; ++i) {
      const std::uint32_t slot = slot_at(scratch.places[i]);
      scratch.keys[kept] = scratch.keys[i];
      scratch.places[kept] = scratch.places[i];
      kept += slot < count && filter->test(slot) ? 1u : 0u;
    }
    found = kept - scratch.size;
  }
  std::fill_n(scratch.origins.data() + scratch.size, found,
              static_cast<std::uint32_t>(p));
  scratch.size += found;
  if (scratch.size >= scratch.full ||
      (scratch.limit == kInfinity && scratch.size >= 2 * scratch.wanted)) {
    scratch.limit = std::min(scratch.limit, scratch.shrink(scratch.wanted, false));
  }
}

void IvfIndex::scan_list(Scratch& scratch, std::size_t p,
                         const storage::SlotSet* filter) const {
  const CodeLists& lists = trained_->lists;
  const std::size_t list = scratch.probes[p];
  const std::size_t blocks = lists.blocks(list).size();
  for (std::size_t b = 0; b < blocks;) {
    // Until there is a limit every code passes, which costs more than its scan.
    const std::size_t most =
        scratch.limit < kInfinity
            ? kRunBlocks
            : std::min(kRunBlocks, 2 * scratch.wanted / CodeLists::kBlock + 1);
    const std::size_t run = lists.run(list, b, most);
    scan_run(scratch, list, p, b, run, filter);
    b += run;
  }
}

void IvfIndex::search_one(Scratch& scratch, const std::byte* query, const float* vector,
                          const Search& how, const storage::SlotSet* filter,
                          std::int64_t* ids, float* distances) const {
  const CodeLists& lists = trained_->lists;
  const std::uint32_t copies = trained_->copies;
  scratch.start(*trained_->codec, vector, rows_wanted(how) * copies,
                ids_.slots() * copies);
  for (std::size_t p = 0; p < scratch.probes.size(); ++p) {
    if (p >= how.n_probe && scratch.size >= copies * how.k) break;
    if (p + 1 < scratch.probes.size()) {
      const auto& next = lists.blocks(scratch.probes[p + 1]);
      if (!next.empty()) prefetch_run(lists.block(next[0]), lists.stride());
    }
    scan_list(scratch, p, filter);
  }
  finish(scratch, query, vector, how, ids, distances);
}

// From candidates to results.
void IvfIndex::finish(Scratch& scratch, const std::byte* query, const float* vector,
                      const Search& how, std::int64_t* ids, float* distances) const {
  const std::size_t count = ids_.slots();
  scratch.shrink(scratch.wanted, true);
  if (trained_->copies == 2) {
    scratch.drop_doubles(trained_->lists);
    scratch.shrink(rows_wanted(how), true);
  }
  if (how.rerank == 0) {
    search::TopK<float> near(how.k);
    for (std::size_t i = 0; i < scratch.size; ++i) {
      const std::uint32_t slot = slot_at(scratch.places[i]);
      if (slot < count) near.push(scratch.keys[i], ids_.id_of(slot));
    }
    write_estimates(near, ids, distances);
    return;
  }
  if (trained_->grid) {
    measure_codes(scratch, vector, how, ids, distances);
    return;
  }
  if (search::has_integer_key(options_.metric, options_.storage)) {
    measure<std::int32_t>(scratch, query, vector, how, ids, distances);
  } else {
    measure<float>(scratch, query, vector, how, ids, distances);
  }
}

// Queries that are searched for together: every list is read once for all of them that
// look at it. Each looks first at its nearest lists, by itself, until it has a limit.
// Finds what search_one() does: the candidates do not depend on the order of lists.
void IvfIndex::search_codes_together(Scratch& lead, RowsView queries, std::size_t first,
                                     std::size_t count, const Search& how,
                                     std::size_t room, std::int64_t* ids,
                                     float* distances) const {
  const CodeLists& lists = trained_->lists;
  const std::size_t dim = options_.dim;
  if (lead.others.size() < count) lead.others.resize(count);
  std::vector<float> vectors(count * dim);
  std::vector<std::uint32_t> later;    // lists that are still to be looked at
  std::vector<std::uint32_t> askers;   // the query of each
  std::vector<std::uint32_t> numbers;  // and which of its probes it is
  for (std::size_t at = 0; at < count; at += kernels::kScorePoints) {
    const std::size_t part = std::min(kernels::kScorePoints, count - at);
    score_lists(*trained_, lead, queries, search::query_dtype(options_.dtype),
                first + at, part);
    std::copy_n(lead.vectors.data(), part * dim, vectors.data() + at * dim);
    for (std::size_t i = 0; i < part; ++i) {
      choose_lists(lead, i, how.n_probe);
      Scratch& one = lead.others[at + i];
      one.probes.swap(lead.probes);
      one.probe_keys.swap(lead.probe_keys);
      one.start(*trained_->codec, vectors.data() + (at + i) * dim, rows_wanted(how),
                ids_.slots());
      std::size_t p = 0;
      while (p < one.probes.size() && one.limit == kInfinity) {
        scan_list(one, p++, nullptr);
      }
      for (; p < one.probes.size(); ++p) {
        later.push_back(one.probes[p]);
        askers.push_back(static_cast<std::uint32_t>(at + i));
        numbers.push_back(static_cast<std::uint32_t>(p));
      }
    }
  }
  const Groups visits(later, lists.lists());
  for (std::size_t l = 0; l < lists.lists(); ++l) {
    const std::span<const std::uint32_t> here(visits.items.data() + visits.begins[l],
                                              visits.begins[l + 1] - visits.begins[l]);
    const std::size_t blocks = here.empty() ? 0 : lists.blocks(l).size();
    for (std::size_t b = 0; b < blocks;) {
      const std::size_t run = lists.run(l, b, kRunBlocks);
      for (const std::uint32_t visit : here) {
        scan_run(lead.others[askers[visit]], l, numbers[visit], b, run, nullptr);
      }
      b += run;
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    finish(lead.others[i], queries.row(first + i), vectors.data() + i * dim, how,
           ids + i * room, distances + i * room);
  }
}

// Distances from keys as estimates have them.
void IvfIndex::write_estimates(search::TopK<float>& near, std::int64_t* ids,
                               float* distances) const {
  const bool products = options_.metric == Metric::kInnerProduct;
  const float unit = options_.metric == Metric::kCosine ? 0.5f : 1.0f;
  const auto& best = near.sort();
  for (std::size_t i = 0; i < best.size(); ++i) {
    ids[i] = best[i].id;
    distances[i] = products ? best[i].key : std::max(0.0f, best[i].key * unit);
  }
}

// Has the candidates taken (scratch.slots, which are numbers scratch.chosen): first
// those that look best, then those that the error bound lets come before the k-th of
// them, worst() in the estimates' terms.
template <class Take, class Worst>
void IvfIndex::look_again(Scratch& scratch, const float* vector, const Search& how,
                          const Take& take, const Worst& worst) const {
  constexpr std::uint32_t kBlock = CodeLists::kBlock;
  const CodeLists& lists = trained_->lists;
  const std::size_t count = ids_.slots();
  const std::size_t first = std::min(scratch.size, 2 * how.k + 6);
  float limit = kInfinity;
  if (first < scratch.size) {
    limit = search::least_limit(scratch.keys.data(), scratch.size, first, first / 8);
  }
  const auto choose = [&](std::uint32_t i, std::uint32_t slot) {
    scratch.chosen.push_back(i);
    scratch.slots.push_back(slot);
  };
  scratch.chosen.clear();
  scratch.slots.clear();
  scratch.later.clear();
  for (std::size_t i = 0; i < scratch.size; ++i) {
    const std::uint32_t slot = slot_at(scratch.places[i]);
    if (slot >= count) continue;  // a damaged file
    if (scratch.keys[i] <= limit) {
      choose(static_cast<std::uint32_t>(i), slot);
    } else {
      scratch.later.push_back(static_cast<std::uint32_t>(i));
    }
  }
  take();
  if (scratch.later.empty()) return;
  scratch.chosen.clear();
  scratch.slots.clear();
  const float last = worst();
  float length = 0;
  if (options_.metric == Metric::kInnerProduct) {
    kernels::active().float_squares[0](reinterpret_cast<const std::byte*>(vector), 0, 1,
                                       options_.dim, &length);
    length = std::sqrt(length);
  }
  const float step = scratch.query.step();
  const auto epsilon = static_cast<float>(how.epsilon);
  for (const std::uint32_t i : scratch.later) {
    const std::uint32_t place = scratch.places[i];
    const float reach =
        options_.metric == Metric::kInnerProduct
            ? length
            : std::sqrt(std::max(0.0f, scratch.probe_keys[scratch.origins[i]]));
    const float scale =
        trained_->codec->scale(lists.block(place / kBlock), place % kBlock);
    const float error = epsilon * trained_->codec->error(scale, reach, step);
    if (scratch.keys[i] - error > last) continue;
    choose(i, slot_at(place));
  }
  take();
}

// Ranks the candidates by their longer codes.
void IvfIndex::measure_codes(Scratch& scratch, const float* vector, const Search& how,
                             std::int64_t* ids, float* distances) const {
  if (options_.grid == codec::GridCodec::Kind::kRabitq) {
    scratch.grid.set(*trained_->grid, scratch.query.coordinates());
  } else {
    scratch.plain.resize(options_.dim);
    for (std::size_t k = 0; k < options_.dim; ++k) {
      scratch.plain[k] = vector[k] - trained_->mean[k];
    }
    scratch.grid.set(*trained_->grid, scratch.plain.data());
  }
  search::TopK<float> near(how.k);
  const std::uint32_t copies = trained_->copies;
  const auto take = [&] {
    const std::size_t count = scratch.slots.size();
    scratch.bases.resize(count);
    scratch.screened.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t candidate = scratch.chosen[i];
      if (!options_.residual ||
          (trained_->lists.slot(scratch.places[candidate]) & (copies - 1)) == 0) {
        scratch.bases[i] = scratch.probe_keys[scratch.origins[candidate]];
        continue;
      }
      // Longer codes are of the first list, wherever the row was found.
      const std::size_t list =
          trained_->lists.list_of(places_[scratch.slots[i] * copies]);
      const float key = scratch.list_keys[scratch.row * scratch.stride + list];
      scratch.bases[i] =
          trained_->products ? key : std::max(0.0f, key + scratch.squares[scratch.row]);
    }
    scratch.grid.keys(rows_.data(), scratch.slots.data(), scratch.bases.data(), count,
                      scratch.screened.data());
    for (std::size_t i = 0; i < count; ++i) {
      // A damaged file may hold what is no number.
      if (std::isnan(scratch.screened[i])) continue;
      near.push(scratch.screened[i], ids_.id_of(scratch.slots[i]));
    }
  };
  look_again(scratch, vector, how, take,
             [&] { return near.full() ? near.limit() : kInfinity; });
  write_estimates(near, ids, distances);
}

// Ranks the candidates by the rows.
template <class Key>
void IvfIndex::measure(Scratch& scratch, const std::byte* query, const float* vector,
                       const Search& how, std::int64_t* ids, float* distances) const {
  const std::size_t stride = row_stride();
  const search::Canonical<Key> canonical(row_set(), query);
  // Cosine over floats: inner products first, and the canonical distance for those that
  // rounding may have among the k nearest.
  const bool cosine = options_.metric == Metric::kCosine;
  const bool screened = cosine && search::is_float(options_.storage);
  search::TopK<Key> near(how.k);
  scratch.measured.clear();
  scratch.screened.clear();
  const auto take = [&] {
    constexpr std::size_t kPart = search::Canonical<Key>::kBlock;
    const std::vector<std::uint32_t>& slots = scratch.slots;
    const auto dots = kernels::active().float_gather[kernels::kOpDot];
    Key keys[kPart];
    float products[kPart];
    for (std::size_t at = 0; at < slots.size(); at += kPart) {
      const std::size_t part = std::min(kPart, slots.size() - at);
      if (screened) {
        dots[static_cast<std::size_t>(options_.storage)](vector, rows_.data(), stride,
                                                         slots.data() + at, part,
                                                         options_.dim, products);
        for (std::size_t i = 0; i < part; ++i) {
          const float norm = norms_[slots[at + i]];
          const float key = norm > 0 ? 1.0f - products[i] / norm : 1.0f;
          scratch.measured.push_back(slots[at + i]);
          scratch.screened.push_back(key);
          near.push(static_cast<Key>(key), slots[at + i]);
        }
      } else {
        canonical.some(slots.data() + at, part, keys);
        for (std::size_t i = 0; i < part; ++i) {
          near.push(keys[i], ids_.id_of(slots[at + i]));
        }
      }
    }
  };
  look_again(scratch, vector, how, take, [&] {
    return near.full() ? static_cast<float>(near.limit()) * (cosine ? 2.0f : 1.0f)
                       : kInfinity;
  });
  if (screened) {
    // Twice the rounding of a product of unit vectors, of the norm and of the query.
    const float error = 2 * (static_cast<float>(options_.dim) / 32 + 16) * 0x1.0p-24f;
    const float last = static_cast<float>(near.limit()) + error;
    near = search::TopK<Key>(how.k);
    for (std::size_t i = 0; i < scratch.measured.size(); ++i) {
      if (scratch.screened[i] > last) continue;
      const std::uint32_t slot = scratch.measured[i];
      Key key;
      canonical.some(&slot, 1, &key);
      near.push(key, ids_.id_of(slot));
    }
  }
  const auto& best = near.sort();
  for (std::size_t i = 0; i < best.size(); ++i) {
    ids[i] = best[i].id;
    distances[i] = search::Canonical<Key>::distance(best[i].key);
  }
}

search::Ragged IvfIndex::search_radius(RowsView queries, double radius,
                                       const storage::SlotSet* filter,
                                       std::size_t threads, Monitor* monitor) const {
  storage::check_rows(search::query_dtype(options_.dtype), queries, options_.dim,
                      "queries");
  const auto lock = lock_.read();
  if (filter != nullptr) filter->require(version());
  if (!options_.keep_rows) {
    throw InvalidArgument(
        "the index keeps codes in place of rows; search_radius needs rows");
  }
  if (flat()) return flat_within(queries, radius, filter, threads, monitor);
  const search::FilteredRows rows(row_set(), filter);
  return search::search_within(rows.set(), queries, radius, threads, monitor);
}

}  // namespace annx::index
