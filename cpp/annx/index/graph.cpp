// SPDX-License-Identifier: Apache-2.0
#include "annx/index/graph.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "annx/base/error.h"
#include "annx/graph/heads.h"
#include "annx/graph/link_coder.h"
#include "annx/graph/query_links.h"
#include "annx/search/canonical.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

// The first size at which the rows' centre and layout are judged.
constexpr std::size_t kFirstRefinement = 64;
constexpr std::size_t kLayoutSample = 64;
// Link codes pay, and are learnt, from this many dimensions and rows on; again each
// time that the rows have grown by the factor, until there are plenty.
constexpr std::size_t kCodedDim = 16;
constexpr std::size_t kCodedRows = 2048;
constexpr std::size_t kRoots = 256;
constexpr std::size_t kLearnAgain = 4;
constexpr std::size_t kLearntEnough = 100000;
// Rows of floats become 8-bit codes when there are so many to learn the grid from.
constexpr std::size_t kGridRows = 128;
// From so many first rows on they are linked at once.
constexpr std::size_t kAtOnce = 8192;
// Of link_queries: the rows near a query among which links are made are so many times
// ef_construction, within this; and lists of so many slots are held at a time.
constexpr std::size_t kNearQuery = 2;
constexpr std::size_t kMostNearQuery = 1024;
constexpr std::size_t kListed = std::size_t{1} << 20;

// Shows a monitor one count over several parallel_for calls.
class PartMonitor final : public Monitor {
 public:
  PartMonitor(Monitor& whole, std::size_t done, std::size_t total)
      : whole_(whole), done_(done), total_(total) {}
  void poll(std::size_t done, std::size_t) override {
    whole_.poll(done_ + done, total_);
  }

 private:
  Monitor& whole_;
  std::size_t done_;
  std::size_t total_;
};

// Shows a monitor a part of its count while other things are counted.
class ShareMonitor final : public Monitor {
 public:
  ShareMonitor(Monitor* whole, double begin, double end, std::size_t total)
      : whole_(whole), begin_(begin), end_(end), total_(total) {}
  void poll(std::size_t done, std::size_t of) override {
    if (whole_ == nullptr) return;
    const double share =
        static_cast<double>(done) / static_cast<double>(std::max<std::size_t>(of, 1));
    const double now = begin_ + (end_ - begin_) * std::min(share, 1.0);
    // Work that comes in parts begins to count anew, which a monitor must not see.
    most_ =
        std::max(most_, static_cast<std::size_t>(now * static_cast<double>(total_)));
    whole_->poll(most_, total_);
  }

 private:
  Monitor* whole_;
  double begin_;
  double end_;
  std::size_t total_;
  std::size_t most_ = 0;
};

// Lets a monitor stop work that is not counted.
class IdleMonitor final : public Monitor {
 public:
  IdleMonitor(Monitor& whole, std::size_t total) : whole_(whole), total_(total) {}
  void poll(std::size_t, std::size_t) override { whole_.poll(total_, total_); }

 private:
  Monitor& whole_;
  std::size_t total_;
};

// Codes estimate squared distances and inner products.
bool has_codes(Metric metric) {
  return metric != Metric::kL1 && metric != Metric::kPoincare;
}

GraphOptions checked(const GraphOptions& options) {
  const auto refuse = [](const std::string& what) { throw InvalidArgument(what); };
  if (options.dim == 0) refuse("dim is 0; it must be at least 1");
  if (options.metric == Metric::kHamming || options.metric == Metric::kJaccard ||
      options.dtype == DType::kBits) {
    refuse(
        "GraphIndex takes the metrics 'l2', 'ip', 'cosine', 'l1' and 'poincare', not "
        "packed bits");
  }
  if (options.metric == Metric::kPoincare && options.dtype > DType::kBFloat16) {
    refuse("metric is 'poincare', which is of floats only");
  }
  if (options.small && options.metric == Metric::kPoincare) {
    refuse("storage is 'small', which is not for metric 'poincare'");
  }
  if (options.small && options.dim > kernels::kMaxDim8) {
    refuse("dim is " + std::to_string(options.dim) +
           "; storage 'small' takes at most " + std::to_string(kernels::kMaxDim8));
  }
  const std::size_t degree = options.build.degree;
  if (degree < 4 || degree > 256 || degree % 2 != 0) {
    refuse("degree is " + std::to_string(degree) +
           "; it must be an even number from 4 to 256");
  }
  if (options.build.ef_construction < 1 || options.build.ef_construction > 1u << 20) {
    refuse("ef_construction is " + std::to_string(options.build.ef_construction) +
           "; it must be from 1 to 1048576");
  }
  if (!(options.build.alpha >= 1.0f && options.build.alpha <= 2.0f)) {
    refuse("alpha is " + std::to_string(options.build.alpha) +
           "; it must be from 1 to 2");
  }
  return options;
}

}  // namespace

GraphIndex::GraphIndex(const GraphOptions& options)
    : options_(checked(options)),
      rows_(options.dim, options.metric, options.dtype),
      links_(options.build.degree) {}

std::size_t GraphIndex::size() const {
  const auto lock = lock_.read();
  return ids_.size();
}

std::int64_t GraphIndex::add(RowsView rows, const std::int64_t* ids,
                             std::size_t threads, Monitor* monitor,
                             graph::KnnGraph near, RowsView queries) {
  if (options_.metric == Metric::kPoincare) {
    storage::check_rows(options_.metric, options_.dtype, rows, options_.dim, "vectors");
  }
  storage::check_rows(options_.metric, search::query_dtype(options_.dtype), queries,
                      options_.dim, "queries");
  const std::lock_guard adding(add_mutex_);
  const std::int64_t first_id = ids_.next_id();
  ids_.check(rows.rows, ids);
  if (near.k != 0) {
    if (ids_.slots() != 0) {
      throw InvalidArgument("neighbours are of an index's first vectors only");
    }
    if (options_.metric != Metric::kL2 && options_.metric != Metric::kCosine) {
      throw InvalidArgument("neighbours are of vectors under l2 or cosine only");
    }
    for (const std::uint32_t slot : near.all()) {
      if (slot >= rows.rows && slot != kNoSlot) {
        throw InvalidArgument("neighbours names a row beyond the vectors");
      }
    }
  }
  if (ids_.slots() + rows.rows >= storage::kMaxSlots) {
    throw InvalidArgument("vectors: an index holds at most 2^31 - 2 rows");
  }
  if (!links_trusted_) {
    check_links();
    // A file may hold nodes that nobody has come to code yet.
    for (std::size_t slot = 0; slot < ids_.slots() && codec_ != nullptr; ++slot) {
      if (coded_.record(slot) == nullptr) {
        touched_.push_back(static_cast<std::uint32_t>(slot));
      }
    }
    links_trusted_ = true;
  }
  learn_grid(rows);
  {
    const auto lock = lock_.write();
    ids_.reserve(rows.rows);
    rows_.reserve(ids_.slots() + rows.rows);
    links_.reserve(ids_.slots() + rows.rows);
  }
  std::size_t done = 0;
  if (link_at_once(rows, ids, std::move(near), threads, monitor)) done = rows.rows;
  graph::Builder builder(rows_, links_, options_.build);
  while (done < rows.rows) {
    // A batch is often over before parallel_for would report.
    if (monitor != nullptr) monitor->poll(done, rows.rows);
    const std::size_t count = ids_.slots();
    const std::size_t batch = std::min(rows.rows - done, graph::Builder::kBatch);
    try {
      {
        const auto lock = lock_.write();
        rows_.append(rows.row(done), rows.stride, batch);
        links_.resize(count + batch);
        if (codec_ != nullptr) coded_.resize(count + batch);
        // With the batch, so that already the first one is linked around its centre.
        if (rows_.size() >= std::max(kFirstRefinement, 2 * refined_at_)) refine(count);
      }
      // Writes the blocks of the batch only, which no search follows yet.
      if (monitor != nullptr) {
        PartMonitor part(*monitor, done, rows.rows);
        builder.choose_links(count, entries_, threads, &part);
      } else {
        builder.choose_links(count, entries_, threads, nullptr);
      }
    } catch (...) {
      const auto lock = lock_.write();
      rows_.truncate(count);
      links_.resize(count);
      if (codec_ != nullptr) coded_.resize(count);
      refined_at_ = std::min(refined_at_, count);
      throw;
    }
    const auto lock = lock_.write();
    builder.add_reverse_links(threads);
    if (codec_ != nullptr) {
      for (const std::uint32_t node : builder.touched()) coded_.mark_stale(node);
      touched_.insert(touched_.end(), builder.touched().begin(),
                      builder.touched().end());
    }
    builder.touched().clear();
    ids_.append(batch, ids == nullptr ? nullptr : ids + done);
    if (entries_.empty()) entries_ = {0};
    done += batch;
  }
  if (rows.rows != 0 || queries.rows != 0) {
    std::unique_ptr<IdleMonitor> idle;
    if (monitor != nullptr) idle = std::make_unique<IdleMonitor>(*monitor, rows.rows);
    link_queries(queries, threads, idle.get());
    update_growth(queries);
    update_codes(threads, idle.get());
    if (monitor != nullptr) monitor->poll(rows.rows, rows.rows);
  }
  return first_id;
}

// With the first rows that make them enough; again where those did not stay.
void GraphIndex::learn_grid(RowsView to_come) {
  const bool bytes = options_.dtype == DType::kInt8 || options_.dtype == DType::kUInt8;
  if (!options_.small || bytes || rows_.size() + to_come.rows < kGridRows) return;
  if (rows_.grid() != nullptr && rows_.size() != 0) return;
  const auto lock = lock_.write();
  rows_.learn_grid(to_come, options_.build.seed);
}

// Queries from elsewhere: see graph/query_links.h. Searches go on meanwhile.
void GraphIndex::link_queries(RowsView queries, std::size_t threads, Monitor* monitor) {
  const std::size_t k = std::min(
      {kNearQuery * options_.build.ef_construction, kMostNearQuery, ids_.slots()});
  if (k < 2) return;
  threads = resolve_threads(threads);
  const std::size_t at_once = kListed / k;
  std::size_t stale = touched_.size();
  for (std::size_t begin = 0; begin < queries.rows; begin += at_once) {
    const RowsView some{queries.row(begin), std::min(at_once, queries.rows - begin),
                        queries.stride};
    const auto lists = graph::nearest_rows(rows_, some, k, threads, monitor);
    graph::link_lists(
        rows_, links_, lists, k, threads,
        [&](const std::function<void()>& write) {
          const auto lock = lock_.write();
          write();
          if (codec_ == nullptr) return;
          for (; stale < touched_.size(); ++stale) coded_.mark_stale(touched_[stale]);
        },
        touched_, monitor);
  }
  if (codec_ == nullptr) touched_.clear();
}

// The first rows of an index, where they are many or their neighbours are given
// (`near`, if not empty): false if that is not so, or if all-pairs search does not
// serve.
bool GraphIndex::link_at_once(RowsView rows, const std::int64_t* ids,
                              graph::KnnGraph near, std::size_t threads,
                              Monitor* monitor) {
  const std::size_t n = rows.rows;
  const bool serves =
      options_.metric == Metric::kL2 || options_.metric == Metric::kCosine;
  // The lists take several times the memory of a small index.
  const bool wanted =
      near.k != 0 || (serves && !options_.small && ids_.slots() == 0 && n >= kAtOnce);
  if (!wanted || n == 0) return false;
  const auto undo = [&] {
    const auto lock = lock_.write();
    rows_.truncate(0);
    links_.resize(0);
  };
  graph::Builder builder(rows_, links_, options_.build);
  std::vector<std::uint32_t> entries, heads;
  try {
    {
      const auto lock = lock_.write();
      rows_.append(rows.row(0), rows.stride, n);
      rows_.refine_centre();
    }
    graph::LevelOptions options;
    options.k = std::max(options_.build.degree, options_.build.ef_construction * 5 / 8);
    options.seed = options_.build.seed;
    options.threads = resolve_threads(threads);
    ShareMonitor searching(monitor, 0, 0.7, n);
    const std::vector<graph::Level> levels =
        graph::find_levels(rows_, options, std::move(near), &searching);
    if (levels.empty()) {
      undo();
      return false;
    }
    {
      const auto lock = lock_.write();
      rows_.refine_layout(listed_pairs(levels[0].near));
      // Not before: the search takes the most memory.
      links_.resize(n);
    }
    ShareMonitor choosing(monitor, 0.7, 1, n);
    builder.choose_links_from(levels, threads, &choosing);
    entries =
        graph::choose_entries(rows_, levels, graph::entries_of(n), options.threads);
    heads = graph::choose_heads(rows_, levels, kRoots, options.threads, entries);
  } catch (...) {
    undo();
    throw;
  }
  const auto lock = lock_.write();
  builder.add_reverse_links(threads);
  ids_.append(n, ids);
  entries_ = std::move(entries);
  heads_ = std::move(heads);
  refined_at_ = n;
  return true;
}

// The heads of what was linked at once. Of those of before, which may be such, the
// first half stays as the index grows, and others come from all rows.
storage::CodedLinks GraphIndex::choose_roots(const codec::LinkCodec& codec,
                                             std::size_t threads) {
  std::vector<std::uint32_t> slots = std::exchange(heads_, {});
  if (slots.empty()) {
    const std::byte* group = codec_ != nullptr ? roots_.record(0) : nullptr;
    for (; group != nullptr && slots.size() < kRoots / 2; group = roots_.next(group)) {
      const std::uint32_t* words = storage::CodedLinks::words(group);
      for (std::size_t lane = 0; lane < kernels::kLinkGroup; ++lane) {
        const std::uint32_t slot = words[lane] & storage::kSlotMask;
        if (slot < ids_.slots()) slots.push_back(slot);
      }
    }
    graph::spread_drawn(rows_, ids_.slots(), options_.build.seed, kRoots, threads,
                        slots);
  }
  return graph::code_roots(rows_, codec, slots);
}

// Learns a codec where one is due, then codes the links that lack a code. Searches go
// on meanwhile: they score links without a code as plain rows.
void GraphIndex::update_codes(std::size_t threads, Monitor* monitor) {
  const std::size_t count = ids_.slots();
  const bool coded = options_.codes && has_codes(options_.metric) &&
                     options_.dim >= kCodedDim && count >= kCodedRows;
  if (!coded) return;
  const bool due = learned_at_ < kLearntEnough &&
                   (learned_at_ == 0 || count >= kLearnAgain * learned_at_);
  if (due) {
    auto codec = graph::learn_link_codec(rows_, links_, count, options_.build.seed,
                                         resolve_threads(threads));
    if (monitor != nullptr) monitor->poll(0, 1);
    if (codec != nullptr) {
      storage::CodedLinks roots = choose_roots(*codec, resolve_threads(threads));
      const auto lock = lock_.write();
      if (options_.narrow) rows_.narrow(linked_pairs(count));
      coded_ = storage::CodedLinks(codec->parts());
      coded_.resize(count);
      codec_ = std::move(codec);
      roots_ = std::move(roots);
      roots_at_ = count;
      touched_.resize(count);
      std::iota(touched_.begin(), touched_.end(), 0u);
    }
    learned_at_ = count;
  }
  if (codec_ == nullptr) return;
  if (count >= 2 * roots_at_) {
    storage::CodedLinks roots = choose_roots(*codec_, resolve_threads(threads));
    const auto lock = lock_.write();
    roots_ = std::move(roots);
    roots_at_ = count;
  }
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  while (!touched_.empty() && touched_.back() >= count) touched_.pop_back();
  graph::code_links(
      rows_, links_, coded_, *codec_, touched_, threads,
      [&](const std::function<void()>& write) {
        const auto lock = lock_.write();
        write();
      },
      monitor);
  touched_.clear();
}

// Searching bounds-checks every link that it follows; building relies on them, so those
// of a file are checked before the first change: slots within the rows, and tree edges
// that make one tree of all rows, at most degree / 2 a node.
void GraphIndex::check_links() const {
  const std::size_t count = ids_.slots();
  const auto fail = [](const char* what) {
    throw FormatError(std::string("section 'graph.links' ") + what);
  };
  if (count == 0) return;
  std::vector<char> met(count);
  std::vector<std::uint32_t> queue = {0};
  met[0] = 1;
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const std::uint32_t* block = links_.block(queue[head]);
    std::size_t trees = 0;
    const std::size_t used = links_.count(queue[head]);
    for (std::size_t i = used; i < links_.degree(); ++i) {
      if (block[i] != storage::kNoEdge) fail("has an unused word before a used one");
    }
    for (std::size_t i = 0; i < used; ++i) {
      const std::uint32_t slot = block[i] & storage::kSlotMask;
      if (slot >= count) fail("names a slot beyond the rows");
      if ((block[i] & storage::kTreeEdge) == 0) continue;
      if (++trees > links_.degree() / 2) fail("has a node with too many tree edges");
      if (met[slot] != 0) fail("has two tree edges into one node");
      met[slot] = 1;
      queue.push_back(slot);
    }
  }
  if (queue.size() != count) fail("has a node without a tree edge into it");
}

// Everything that is chosen from the data, each time that the data has doubled. The
// first `count` rows are linked.
void GraphIndex::refine(std::size_t count) {
  rows_.refine_centre();
  rows_.refine_layout(count >= kFirstRefinement ? linked_pairs(count)
                                                : nearest_pairs());
  entries_.clear();
  graph::spread_drawn(rows_, count, options_.build.seed, graph::entries_of(count), 1,
                      entries_);
  refined_at_ = rows_.size();
}

// Some rows, each with its nearest neighbour.
std::vector<std::uint32_t> GraphIndex::listed_pairs(const graph::KnnGraph& near) const {
  std::vector<std::uint32_t> pairs;
  const std::size_t n = rows_.size();
  const std::size_t step = std::max<std::size_t>(1, n / kLayoutSample);
  for (std::size_t slot = 0; slot < n; slot += step) {
    for (const std::uint32_t other : near.list(slot)) {
      if (other == kNoSlot || other == slot) continue;
      pairs.push_back(static_cast<std::uint32_t>(slot));
      pairs.push_back(other);
      break;
    }
  }
  return pairs;
}

// Some of the first `count` rows, each with its nearest neighbour.
std::vector<std::uint32_t> GraphIndex::linked_pairs(std::size_t count) const {
  std::vector<std::uint32_t> pairs;
  const std::size_t step = std::max<std::size_t>(1, count / kLayoutSample);
  for (std::size_t slot = 0; slot < count; slot += step) {
    // A node's own links come first, nearest first.
    const std::uint32_t link = links_.block(slot)[0];
    if (link == storage::kNoEdge) continue;
    pairs.push_back(static_cast<std::uint32_t>(slot));
    pairs.push_back(link & storage::kSlotMask);
  }
  return pairs;
}

// Some rows, each with the nearest of the others, by a scan: for rows not yet linked.
std::vector<std::uint32_t> GraphIndex::nearest_pairs() const {
  std::vector<std::uint32_t> pairs;
  codec::RowCodec::Query query;
  std::vector<std::uint32_t> slots(rows_.size());
  std::iota(slots.begin(), slots.end(), 0u);
  std::vector<float> keys(slots.size());
  const std::size_t step = std::max<std::size_t>(1, slots.size() / kLayoutSample);
  for (std::size_t slot = 0; slot < slots.size(); slot += step) {
    query.set_item(rows_, slot);
    query.score(slots.data(), slots.size(), keys.data());
    keys[slot] = std::numeric_limits<float>::infinity();
    const auto nearest = std::min_element(keys.begin(), keys.end()) - keys.begin();
    pairs.push_back(static_cast<std::uint32_t>(slot));
    pairs.push_back(static_cast<std::uint32_t>(nearest));
  }
  return pairs;
}

void GraphIndex::get(const std::int64_t* ids, std::size_t count, std::byte* out) const {
  const auto lock = lock_.read();
  const std::size_t bytes = row_bytes(options_.dtype, options_.dim);
  for (std::size_t i = 0; i < count; ++i) {
    rows_.decode(ids_.slot_of(ids[i]), out + i * bytes);
  }
}

std::vector<std::int64_t> GraphIndex::neighbours(std::int64_t id) const {
  const auto lock = lock_.read();
  const std::uint32_t* block = links_.block(ids_.slot_of(id));
  std::vector<std::int64_t> result;
  for (std::size_t i = 0; i < links_.degree(); ++i) {
    const std::uint32_t slot = block[i] & storage::kSlotMask;
    if (slot < ids_.slots()) result.push_back(ids_.id_of(slot));
  }
  return result;
}

GraphStats GraphIndex::stats(bool walk) const {
  const auto lock = lock_.read();
  const std::size_t count = ids_.slots();
  GraphStats stats;
  stats.rows_bytes = rows_.memory_bytes();
  stats.links_bytes = links_.words().held_bytes();
  if (codec_ != nullptr) {
    stats.codes_bytes =
        coded_.memory_bytes() + roots_.memory_bytes() + codec_->memory_bytes();
    stats.code_parts = codec_->parts();
    stats.code_error = codec_->expected_error();
  }
  stats.ids_bytes = ids_.memory_bytes();
  stats.split_rows = rows_.layout() == codec::RowCodec::Layout::kSplit;
  stats.narrow_rows = rows_.layout() == codec::RowCodec::Layout::kFixed;
  stats.centred = rows_.centred();
  if (const codec::RowGrid* grid = rows_.grid()) {
    stats.byte_rows = true;
    stats.turned_rows = grid->turned();
    if (walk) stats.byte_error = rows_.rounding_share(linked_pairs(count));
    for (std::size_t slot = 0; slot < count && walk; ++slot) {
      stats.wide_rows += rows_.exponent(slot) != 0 ? 1 : 0;
    }
  }
  stats.growth = growth_;
  if (count == 0 || !walk) return stats;
  std::vector<char> met(count);
  std::vector<std::uint32_t> queue = {0};
  met[0] = 1;
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const std::uint32_t* block = links_.block(queue[head]);
    std::size_t links = 0;
    for (std::size_t i = 0; i < links_.degree(); ++i) {
      const std::uint32_t slot = block[i] & storage::kSlotMask;
      if (slot >= count) continue;
      ++links;
      if (met[slot] != 0) continue;
      met[slot] = 1;
      queue.push_back(slot);
    }
    stats.links += links;
    stats.max_links = std::max(stats.max_links, links);
  }
  stats.reachable = queue.size();
  return stats;
}

bool GraphIndex::contains(std::int64_t id) const {
  const auto lock = lock_.read();
  return ids_.contains(id);
}

std::vector<std::int64_t> GraphIndex::ids() const {
  const auto lock = lock_.read();
  std::vector<std::int64_t> result(ids_.slots());
  ids_.copy_ids(result.data());
  return result;
}

storage::SlotSet GraphIndex::slot_set(std::span<const std::int64_t> ids) const {
  const auto lock = lock_.read();
  return ids_.slots_of(ids, ids_.slots());
}

void GraphIndex::save_to(storage::FileWriter& file) const {
  file.keep(lock_.read());
  const std::size_t count = ids_.slots();
  file.number("graph.count", count);
  file.number("graph.degree", options_.build.degree);
  file.number("graph.ef_construction", options_.build.ef_construction);
  file.real("graph.alpha", options_.build.alpha);
  file.number("graph.seed", options_.build.seed);
  file.number("graph.refined_at", refined_at_);
  file.number("graph.next_id", static_cast<std::uint64_t>(ids_.next_id()));
  file.real("graph.growth", growth_);
  file.number("graph.growth_at", growth_at_);
  file.number("graph.entries", entries_.size());
  file.add("graph.entry_slots", std::as_bytes(std::span(entries_)));
  file.add("graph.links", links_.words().bytes().first(count * links_.block_bytes()));
  file.number("graph.codes", options_.codes ? 1 : 0);
  file.number("graph.narrow", options_.narrow ? 1 : 0);
  file.number("graph.small", options_.small ? 1 : 0);
  file.number("graph.learned_at", learned_at_);
  file.number("graph.coded", codec_ != nullptr ? 1 : 0);
  if (codec_ != nullptr) {
    codec_->save_to(file);
    coded_.save_to(file, "graph.coded_links");
    roots_.save_to(file, "graph.roots");
    file.number("graph.roots_at", roots_at_);
  }
  file.add("graph.ids", ids_.ids().bytes());
  rows_.save_to(file, count);
}

std::unique_ptr<GraphIndex> GraphIndex::load_from(const storage::FileReader& file) {
  GraphOptions options;
  options.build.degree = static_cast<std::size_t>(file.number("graph.degree", 4, 256));
  options.build.ef_construction =
      static_cast<std::size_t>(file.number("graph.ef_construction", 1, 1u << 20));
  options.build.alpha = static_cast<float>(file.real("graph.alpha", 1.0, 2.0));
  options.build.seed = file.number("graph.seed");
  file.require(options.build.degree % 2 == 0, "graph.degree", "is odd");
  const auto count =
      static_cast<std::size_t>(file.number("graph.count", 0, storage::kMaxSlots - 1));
  codec::RowCodec rows = codec::RowCodec::load_from(file, count);
  options.dim = rows.dim();
  options.metric = rows.metric();
  options.dtype = rows.dtype();
  // Files from before link codes have none of these.
  options.codes = !file.has("graph.codes") || file.number("graph.codes", 0, 1) == 1;
  options.narrow = file.has("graph.narrow") && file.number("graph.narrow", 0, 1) == 1;
  options.small = file.has("graph.small") && file.number("graph.small", 0, 1) == 1;
  file.require(!options.small || (options.metric != Metric::kPoincare &&
                                  options.dim <= kernels::kMaxDim8),
               "graph.small", "does not fit the metric or the dimension");
  file.require(options.small || rows.grid() == nullptr, "graph.small",
               "is 0, and there is a grid");
  auto index = std::make_unique<GraphIndex>(options);
  index->rows_ = std::move(rows);
  if (file.has("graph.coded") && file.number("graph.coded", 0, 1) == 1) {
    file.require(options.codes && has_codes(options.metric), "graph.coded",
                 "does not fit the options");
    index->codec_ = std::make_unique<codec::LinkCodec>(
        codec::LinkCodec::load_from(file, options.dim));
    file.require(index->codec_->products() == (options.metric == Metric::kInnerProduct),
                 "codes.products", "does not fit the metric");
    const std::size_t parts = index->codec_->parts();
    index->coded_ =
        storage::CodedLinks::load_from(file, "graph.coded_links", count, parts);
    index->roots_ = storage::CodedLinks::load_from(file, "graph.roots", 1, parts);
    index->roots_at_ =
        static_cast<std::size_t>(file.number("graph.roots_at", 0, storage::kMaxSlots));
  }
  if (file.has("graph.growth")) {
    index->growth_ = file.real("graph.growth", 0.0, kMostGrowth);
    index->growth_at_ =
        static_cast<std::size_t>(file.number("graph.growth_at", 0, storage::kMaxSlots));
  }
  if (file.has("graph.learned_at")) {
    index->learned_at_ = static_cast<std::size_t>(
        file.number("graph.learned_at", 0, storage::kMaxSlots));
  }
  index->links_.words() =
      file.array<std::uint32_t>("graph.links", count * options.build.degree);
  const auto entry_count =
      static_cast<std::size_t>(file.number("graph.entries", 0, 1u << 16));
  const auto entries = file.array<std::uint32_t>("graph.entry_slots", entry_count);
  index->entries_.assign(entries.data(), entries.data() + entry_count);
  for (const std::uint32_t slot : index->entries_) {
    file.require(slot < count, "graph.entry_slots", "names a slot beyond the rows");
  }
  file.require(count == 0 || entry_count != 0, "graph.entry_slots", "is empty");
  index->refined_at_ =
      static_cast<std::size_t>(file.number("graph.refined_at", 0, storage::kMaxSlots));
  const bool given = file.section_bytes("graph.ids") != 0;
  index->ids_ = storage::IdMap::restore(
      count,
      static_cast<std::int64_t>(
          file.number("graph.next_id", 0, std::numeric_limits<std::int64_t>::max())),
      file.array<std::int64_t>("graph.ids", given ? count : 0));
  file.require(index->ids_.size() == count, "graph.ids", "lacks the ids of some rows");
  index->links_trusted_ = false;
  return index;
}

}  // namespace annx::index
