// SPDX-License-Identifier: Apache-2.0
// Training, coding, changes and files of IvfIndex; ivf_search.cpp searches.
#include "annx/index/ivf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/groups.h"
#include "annx/index/ivf_scratch.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using codec::PieceCodec;
using storage::CodeLists;

constexpr std::uint32_t kNoPlace = 0xFFFFFFFFu;
// Bytes of float32 rows made at a time where rows have to be converted.
constexpr std::size_t kPortionBytes = std::size_t{16} << 20;
// Rows whose residuals train the codes.
constexpr std::size_t kCodeSample = 16384;
constexpr std::size_t kMaxLists = std::size_t{1} << 24;

std::string of(std::size_t n) { return std::to_string(n); }

IvfOptions checked(const IvfOptions& options) {
  const auto refuse = [](const std::string& what) { throw InvalidArgument(what); };
  if (options.dim == 0) refuse("dim is 0; it must be at least 1");
  const bool flat = options.codec == IvfCodec::kFlat;
  const bool bits =
      options.metric == Metric::kHamming || options.metric == Metric::kJaccard;
  if (bits != (options.dtype == DType::kBits)) {
    refuse("metric is '" + std::string(name_of(options.metric)) + "', which " +
           std::string(name_of(options.dtype)) + " vectors do not have");
  }
  if (!flat && (bits || options.metric == Metric::kL1)) {
    refuse("metric is '" + std::string(name_of(options.metric)) +
           "'; codes know 'l2', 'ip' and 'cosine'");
  }
  if (options.metric == Metric::kPoincare || (flat && options.spill >= 0)) {
    refuse(options.spill >= 0 ? "spill is given; lists of codec 'flat' have no seconds"
                              : "metric is 'poincare'; IVFIndex does not know it");
  }
  if (!(options.spill < 1e6)) {
    refuse("spill is " + std::to_string(options.spill) + "; it must be below 1e6");
  }
  if (flat && !options.keep_rows) refuse("storage is 'codes'; codec 'flat' has none");
  if (options.grid_bits != 0) {
    const bool turned = options.grid == codec::GridCodec::Kind::kRabitq;
    if (options.grid_bits < 2 || options.grid_bits > 8 || options.keep_rows ||
        (turned && options.codec != IvfCodec::kRabitq)) {
      refuse("bits is " + of(options.grid_bits) +
             "; codes of 2 to 8 bits are kept in place of vectors" +
             (turned ? ", and rotated ones by codec 'rabitq' only" : ""));
    }
  }
  if (options.storage != options.dtype &&
      (options.dtype != DType::kFloat32 || !search::is_float(options.storage))) {
    refuse("storage is '" + std::string(name_of(options.storage)) + "'; rows of " +
           std::string(name_of(options.dtype)) + " cannot be kept as that");
  }
  if (options.n_lists > kMaxLists) {
    refuse("n_lists is " + of(options.n_lists) + "; it must be at most " +
           of(kMaxLists));
  }
  if (options.rotate && options.codec != IvfCodec::kProduct) {
    refuse("rotation is given; codec 'pq4' alone has the choice");
  }
  if (options.codec == IvfCodec::kProduct &&
      (options.n_segments == 0 || options.n_segments > options.dim)) {
    refuse("n_segments is " + of(options.n_segments) + "; it must be from 1 to dim, " +
           of(options.dim));
  }
  return options;
}

// 2 sqrt(rows), unless lists would have fewer than 39 rows: blocks of 32 would be
// mostly empty.
std::size_t lists_for(std::size_t rows) {
  const double root = std::sqrt(static_cast<double>(rows));
  const auto wanted = static_cast<std::size_t>(std::lround(2 * root));
  return std::max<std::size_t>(1, std::min(wanted, rows / 39));
}

void scale_to_one(float* x, std::size_t dim) {
  const double square = square_of(x, dim);
  const double factor = square > 0 ? 1 / std::sqrt(square) : 0.0;
  for (std::size_t k = 0; k < dim; ++k) x[k] = static_cast<float>(x[k] * factor);
}

}  // namespace

IvfIndex::IvfIndex(const IvfOptions& options) : options_(checked(options)) {}
IvfIndex::~IvfIndex() = default;

bool IvfIndex::trained() const {
  const auto lock = lock_.read();
  return trained_ != nullptr;
}

std::size_t IvfIndex::n_lists() const {
  const auto lock = lock_.read();
  return trained_ == nullptr ? 0 : trained_->lists.lists();
}

std::size_t IvfIndex::size() const {
  const auto lock = lock_.read();
  return ids_.size();
}

void IvfIndex::require_trained() const {
  if (trained_ == nullptr) {
    throw NotTrained("IVFIndex is not trained; call train() first");
  }
}

// A row as centroids and codes see it.
void IvfIndex::widen(const std::byte* row, DType dtype, float* out) const {
  const std::size_t dim = options_.dim;
  if (dtype == DType::kFloat32) {
    std::memcpy(out, row, dim * sizeof(float));
  } else if (dtype == DType::kBits) {
    for (std::size_t k = 0; k < dim; ++k) {
      out[k] = static_cast<float>(static_cast<unsigned>(row[k / 8]) >> (k % 8) & 1u);
    }
  } else {
    kernels::active().widen[static_cast<std::size_t>(dtype)](row, dim, out);
  }
  if (options_.metric == Metric::kCosine || options_.metric == Metric::kJaccard) {
    scale_to_one(out, dim);
  }
}

// A row of `dtype` as it is kept.
void IvfIndex::stored(const std::byte* row, DType dtype, std::byte* out) const {
  if (dtype == options_.storage) {
    std::memcpy(out, row, row_stride());
  } else {
    kernels::active().narrow[static_cast<std::size_t>(options_.storage)](
        reinterpret_cast<const float*>(row), options_.dim, out);
  }
}

void IvfIndex::train(RowsView rows, std::size_t threads, Monitor* monitor) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  const std::size_t dim = options_.dim;
  const std::size_t lists =
      options_.n_lists == 0 ? lists_for(rows.rows) : options_.n_lists;
  const std::size_t least = flat() ? lists : std::max<std::size_t>(lists, 16);
  if (rows.rows < least || rows.rows == 0) {
    throw InvalidArgument("vectors has " + of(rows.rows) + " rows; training " +
                          of(lists) + " lists" + (flat() ? "" : " of 4-bit codes") +
                          " needs at least " + of(least));
  }
  // The sample, as float32.
  std::size_t count = rows.rows;
  std::vector<std::uint32_t> drawn;
  if (options_.sample_limit != 0 && options_.sample_limit * lists < count) {
    count = options_.sample_limit * lists;
    drawn = codec::draw_distinct(rows.rows, count, options_.seed, 0);
    std::sort(drawn.begin(), drawn.end());
  }
  std::vector<float> sample(count * dim);
  parallel_for(count, resolve_threads(threads), 1024,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) {
                   widen(rows.row(drawn.empty() ? i : drawn[i]), options_.dtype,
                         sample.data() + i * dim);
                 }
               });
  std::vector<float> mean(dim);
  if (options_.metric != Metric::kInnerProduct) {
    std::vector<double> sums(dim);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t k = 0; k < dim; ++k) sums[k] += sample[i * dim + k];
    }
    for (std::size_t k = 0; k < dim; ++k) {
      mean[k] = static_cast<float>(sums[k] / static_cast<double>(count));
    }
  }
  codec::KMeans coarse({.n_clusters = lists,
                        .n_iterations = options_.n_iterations,
                        .seed = options_.seed});
  coarse.train({sample.data(), count, dim, dim}, {}, threads, monitor);
  if (monitor != nullptr) monitor->poll(count, count);
  auto fresh = std::make_unique<Trained>(
      Trained{.coarse = std::move(coarse),
              .mean = std::move(mean),
              .products = options_.metric == Metric::kInnerProduct,
              .copies = options_.spill >= 0 && lists > 1 ? 2u : 1u});
  if (!flat()) train_codes(*fresh, sample, threads, monitor);
  fresh->lists = CodeLists(lists, fresh->codec ? fresh->codec->payload_bytes()
                                               : row_block().payload_bytes());
  fresh->pack();

  const auto lock = lock_.write();
  const std::size_t held = ids_.slots();
  if (held != 0 && !options_.keep_rows) {
    throw InvalidArgument(
        "the index holds codes without rows, which cannot be coded anew; train before "
        "adding");
  }
  std::vector<std::uint32_t> places(held * fresh->copies);
  std::vector<std::byte> moved;
  if (flat() && held != 0) {
    locate();
    moved.resize(held * row_stride());
    for (std::size_t i = 0; i < held; ++i) {
      std::memcpy(moved.data() + i * row_stride(),
                  row_of(static_cast<std::uint32_t>(i)), row_stride());
    }
  }
  code(*fresh, {flat() ? moved.data() : rows_.data(), held, row_stride()},
       options_.storage, nullptr, 0, held == 0 ? nullptr : &places, nullptr, threads,
       monitor);
  trained_ = std::move(fresh);
  places_ = std::move(places);
  version_.fetch_add(1, std::memory_order_release);
}

// Codes learn from what is left of an even part of the sample.
void IvfIndex::train_codes(Trained& to, const std::vector<float>& sample,
                           std::size_t threads, Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const std::size_t count = sample.size() / dim;
  const std::size_t part = std::min(count, kCodeSample);
  std::vector<float> residuals(part * dim);
  for (std::size_t i = 0; i < part; ++i) {
    std::copy_n(sample.data() + i * count / part * dim, dim,
                residuals.data() + i * dim);
  }
  std::vector<std::int64_t> cells(part);
  std::vector<float> distances(part);
  to.coarse.assign({residuals.data(), part, dim, dim}, cells.data(), distances.data(),
                   threads, monitor);
  for (std::size_t i = 0; i < part; ++i) {
    const float* centroid =
        to.coarse.centroids().row(static_cast<std::size_t>(cells[i]));
    for (std::size_t k = 0; k < dim; ++k) residuals[i * dim + k] -= centroid[k];
  }
  const MatrixView<float> view{residuals.data(), part, dim, dim};
  to.codec.emplace(
      view, to.mean,
      PieceCodec::Options{.kind = static_cast<PieceCodec::Kind>(options_.codec),
                          .segments = options_.n_segments,
                          .rotate = options_.rotate,
                          .products = to.products,
                          .seed = options_.seed},
      threads, monitor);
  if (options_.grid_bits != 0) to.grid.emplace(view, grid_options());
}

codec::GridCodec::Options IvfIndex::grid_options() const {
  return {.kind = options_.grid,
          .bits = options_.grid_bits,
          .products = options_.metric == Metric::kInnerProduct};
}

std::size_t IvfIndex::slot_bytes() const {
  if (options_.grid_bits != 0) return trained_ ? trained_->grid->row_bytes() : 0;
  return rows_apart() ? row_stride() : 0;
}

// Puts rows into their lists under the slots given, or `first` and on; `places` gets
// where, and `grid_rows` the longer codes by slot. Undoes what it did if it throws.
void IvfIndex::code(Trained& to, RowsView rows, DType dtype, const std::uint32_t* slots,
                    std::size_t first, std::vector<std::uint32_t>* places,
                    std::byte* grid_rows, std::size_t threads, Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const std::size_t lists = to.lists.lists();
  const bool direct = dtype == DType::kFloat32 && options_.metric != Metric::kCosine;
  const bool codes = to.codec.has_value();
  const RowBlock row_blocks = row_block();
  const std::uint32_t copies = to.copies;
  const std::size_t portion = direct
                                  ? std::size_t{1} << 20
                                  : std::max<std::size_t>(kPortionBytes / 4 / dim, 64);
  std::vector<std::uint32_t> cells(rows.rows * copies);  // [row][copy]
  {
    const std::size_t most = std::min(portion, rows.rows);
    std::vector<float> wide(direct ? 0 : most * dim);
    std::vector<std::int64_t> nearest(most);
    std::vector<float> distances(most);
    for (std::size_t at = 0; at < rows.rows; at += portion) {
      const std::size_t count = std::min(portion, rows.rows - at);
      MatrixView<float> view{reinterpret_cast<const float*>(rows.row(at)), count, dim,
                             rows.stride / sizeof(float)};
      if (!direct) {
        parallel_for(count, resolve_threads(threads), 256,
                     [&](std::size_t begin, std::size_t end, std::size_t) {
                       for (std::size_t i = begin; i < end; ++i) {
                         widen(rows.row(at + i), dtype, wide.data() + i * dim);
                       }
                     });
        view = {wide.data(), count, dim, dim};
      }
      to.coarse.assign(view, nearest.data(), distances.data(), threads, monitor);
      for (std::size_t i = 0; i < count; ++i) {
        cells[(at + i) * copies] = static_cast<std::uint32_t>(nearest[i]);
      }
    }
  }
  if (copies == 2) choose_second(to, rows, dtype, cells, threads, monitor);
  const auto [begins, order] = Groups(cells, lists);
  std::vector<std::size_t> before(lists);
  for (std::size_t l = 0; l < lists; ++l) before[l] = to.lists.size(l);
  std::vector<double> spreads(resolve_threads(threads));
  try {
    for (std::size_t l = 0; l < lists; ++l) {
      const std::size_t count = begins[l + 1] - begins[l];
      if (count != 0) to.lists.grow(l, count);
    }
    parallel_for(
        lists, resolve_threads(threads), 2,
        [&](std::size_t from, std::size_t until, std::size_t worker) {
          constexpr std::size_t kGroup = CodeLists::kBlock;
          std::vector<float> wide(dim), centre(dim),
              projected(codes ? kGroup * dim : 0);
          std::vector<std::byte> kept(codes ? 0 : row_stride());
          codec::GridCodec::Work work;
          const bool turned = options_.grid == codec::GridCodec::Kind::kRabitq;
          std::vector<float> plain(grid_rows != nullptr && !turned ? 2 * dim : 0);
          const float* pointers[kGroup];
          float squares[kGroup];
          std::byte* blocks[kGroup];
          std::uint32_t lanes[kGroup];
          const auto l2 = kernels::active().float_rows[kernels::kOpL2][0];
          for (std::size_t l = from; l < until; ++l) {
            if (begins[l] == begins[l + 1]) continue;
            const float* centroid = to.coarse.centroids().row(l);
            if (codes) to.codec->project(centroid, centre.data());
            for (std::size_t at = begins[l]; at < begins[l + 1]; at += kGroup) {
              const std::size_t count = std::min(kGroup, begins[l + 1] - at);
              for (std::size_t i = 0; i < count; ++i) {
                const std::uint32_t row = order[at + i] / copies;
                const std::uint32_t copy = order[at + i] % copies;
                const std::uint32_t place =
                    to.lists.place(l, before[l] + at - begins[l] + i);
                const auto slot = slots == nullptr
                                      ? static_cast<std::uint32_t>(first + row)
                                      : slots[row];
                to.lists.set_slot(place, slot * copies + copy);
                if (places != nullptr) (*places)[slot * copies + copy] = place;
                blocks[i] = to.lists.block_to_write(place / CodeLists::kBlock);
                lanes[i] = place % CodeLists::kBlock;
                if (!codes) {
                  stored(rows.row(row), dtype, kept.data());
                  row_blocks.put(kept.data(), blocks[i], lanes[i]);
                  continue;
                }
                widen(rows.row(row), dtype, wide.data());
                l2(centroid, reinterpret_cast<const std::byte*>(wide.data()), 0, 1, dim,
                   squares + i);
                pointers[i] = projected.data() + i * dim;
                to.codec->project(wide.data(), projected.data() + i * dim);
                if (grid_rows == nullptr || copy != 0) continue;
                std::byte* out = grid_rows + slot * to.grid->row_bytes();
                if (turned) {
                  to.grid->encode(centre.data(), pointers[i], work, out);
                  continue;
                }
                for (std::size_t k = 0; k < dim; ++k) {
                  plain[k] = centroid[k] - to.mean[k];
                  plain[dim + k] = wide[k] - to.mean[k];
                }
                to.grid->encode(plain.data(), plain.data() + dim, work, out);
              }
              if (!codes) continue;
              spreads[worker] = std::max(
                  spreads[worker], to.codec->encode(centre.data(), pointers, squares,
                                                    count, blocks, lanes));
            }
          }
        },
        monitor);
    // Short work is stopped here, if nowhere else.
    if (monitor != nullptr && rows.rows != 0) monitor->poll(rows.rows, rows.rows);
  } catch (...) {
    for (std::size_t l = 0; l < lists; ++l) {
      if (to.lists.size(l) > before[l]) to.lists.truncate(l, before[l]);
    }
    throw;
  }
  if (codes) to.codec->widen_spread(*std::max_element(spreads.begin(), spreads.end()));
}

void IvfIndex::check_room(std::size_t count) const {
  if (count <= storage::IdMap::kMaxSlots / trained_->copies) return;
  throw InvalidArgument("vectors: the index is full");
}

void IvfIndex::resize_rows(std::size_t count) {
  rows_.resize(count * slot_bytes());
  if (!rows_apart()) return;
  if (options_.metric == Metric::kCosine) norms_.resize(count);
}

void IvfIndex::keep(std::uint32_t slot, const std::byte* row) {
  if (!rows_apart()) return;
  std::byte* to = rows_.mutable_data() + slot * row_stride();
  stored(row, options_.dtype, to);
  if (options_.metric == Metric::kCosine) {
    search::row_norms(options_.storage, {to, 1, row_stride()}, options_.dim,
                      norms_.mutable_data() + slot);
  }
}

namespace {

// float32 to `dtype`; codes stand for fractions where integers were.
void store(DType dtype, const float* values, std::size_t dim, std::byte* out) {
  if (search::is_float(dtype)) {
    kernels::active().narrow[static_cast<std::size_t>(dtype)](values, dim, out);
    return;
  }
  for (std::size_t k = 0; k < dim; ++k) {
    const float low = dtype == DType::kInt8 ? -128.0f : 0.0f;
    const float value = std::clamp(std::round(values[k]), low, low + 255.0f);
    out[k] = static_cast<std::byte>(static_cast<int>(value) & 0xFF);
  }
}

// Rounding to 16 bits may overflow what float32 held.
void check_narrow(DType storage, RowsView rows, std::size_t dim) {
  if (storage != DType::kFloat16) return;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const auto* row = reinterpret_cast<const float*>(rows.row(i));
    float most = 0;
    for (std::size_t k = 0; k < dim; ++k) most = std::max(most, std::abs(row[k]));
    if (most >= 65520.0f) {
      throw InvalidArgument("vectors[" + of(i) +
                            "] holds a value too large for float16");
    }
  }
}

}  // namespace

void IvfIndex::add(RowsView rows, const std::int64_t* ids, std::int64_t* out,
                   std::size_t threads, Monitor* monitor) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  if (options_.storage != options_.dtype) {
    check_narrow(options_.storage, rows, options_.dim);
  }
  const auto lock = lock_.write();
  require_trained();
  ids_.check(rows.rows, ids);
  const std::size_t before = ids_.slots();
  const std::size_t copies = trained_->copies;
  check_room(before + rows.rows);
  const bool located = !places_.empty();
  try {
    resize_rows(before + rows.rows);
    if (located) places_.resize((before + rows.rows) * copies, kNoPlace);
    ids_.append(rows.rows, ids);
    code(*trained_, rows, options_.dtype, nullptr, before, located ? &places_ : nullptr,
         trained_->grid ? rows_.mutable_data() : nullptr, threads, monitor);
  } catch (...) {
    if (ids_.slots() > before) ids_.truncate(before);
    resize_rows(before);
    if (located) places_.resize(before * copies);
    throw;
  }
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const auto slot = static_cast<std::uint32_t>(before + i);
    keep(slot, rows.row(i));
    out[i] = ids_.id_of(slot);
  }
  version_.fetch_add(1, std::memory_order_release);
}

// Where the code of every slot is.
void IvfIndex::locate() const {
  const std::lock_guard guard(places_mutex_);
  const std::size_t count = ids_.slots() * trained_->copies;
  if (places_.size() == count) return;
  std::vector<std::uint32_t> places(count, kNoPlace);
  const CodeLists& lists = trained_->lists;
  for (std::size_t l = 0; l < lists.lists(); ++l) {
    for (std::size_t i = 0; i < lists.size(l); ++i) {
      const std::uint32_t place = lists.place(l, i);
      const std::uint32_t slot = lists.slot(place);
      if (slot >= count || places[slot] != kNoPlace) {
        throw FormatError("the lists of the index are damaged: slot " + of(slot) +
                          " is not there or has two codes");
      }
      places[slot] = place;
    }
  }
  places_ = std::move(places);
}

// Takes a code out of its list; the last one of the list moves into the gap.
void IvfIndex::unlink(std::uint32_t place) {
  constexpr std::uint32_t kBlock = CodeLists::kBlock;
  CodeLists& lists = trained_->lists;
  const std::size_t list = lists.list_of(place);
  const std::size_t last = lists.size(list) - 1;
  const std::uint32_t from = lists.place(list, last);
  if (from != place) {
    const std::uint32_t slot = lists.slot(from);
    std::byte* to = lists.block_to_write(place / kBlock);
    const std::byte* block = lists.block(from / kBlock);
    if (flat()) {
      row_block().copy(block, from % kBlock, to, place % kBlock);
    } else {
      trained_->codec->copy(block, from % kBlock, to, place % kBlock);
    }
    lists.set_slot(place, slot);
    places_[slot] = place;
  }
  lists.truncate(list, last);
}

void IvfIndex::upsert(RowsView rows, const std::int64_t* ids) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  if (options_.storage != options_.dtype) {
    check_narrow(options_.storage, rows, options_.dim);
  }
  const auto lock = lock_.write();
  require_trained();
  const auto fresh = ids_.missing({ids, rows.rows});
  locate();
  const std::size_t before = ids_.slots();
  const std::size_t after = before + fresh.size();
  const std::uint32_t copies = trained_->copies;
  check_room(before + rows.rows);
  // Every code gets a slot of its own at first: those of ids that are held come after
  // all others, until their old codes are gone.
  std::vector<std::uint32_t> slots(rows.rows), replaced;
  std::size_t next = before;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const std::uint32_t slot = ids_.find(ids[i]);
    if (slot == kNoSlot) {
      slots[i] = static_cast<std::uint32_t>(next++);
    } else {
      slots[i] = static_cast<std::uint32_t>(after + replaced.size());
      replaced.push_back(slot);
    }
  }
  try {
    places_.resize((before + rows.rows) * copies, kNoPlace);
    resize_rows(before + rows.rows);
    if (!fresh.empty()) ids_.append(fresh.size(), fresh.data());
    code(*trained_, rows, options_.dtype, slots.data(), 0, &places_,
         trained_->grid ? rows_.mutable_data() : nullptr, 1, nullptr);
  } catch (...) {
    if (ids_.slots() > before) ids_.truncate(before);
    places_.resize(before * copies);
    resize_rows(before);
    throw;
  }
  for (std::size_t i = 0; i < replaced.size(); ++i) {
    for (std::uint32_t copy = 0; copy < copies; ++copy) {
      const std::uint32_t to = replaced[i] * copies + copy;
      unlink(places_[to]);
      const std::uint32_t place = places_[(after + i) * copies + copy];
      trained_->lists.set_slot(place, to);
      places_[to] = place;
    }
    if (!trained_->grid) continue;
    std::byte* codes = rows_.mutable_data();
    std::memcpy(codes + replaced[i] * slot_bytes(), codes + (after + i) * slot_bytes(),
                slot_bytes());
  }
  places_.resize(after * copies);
  resize_rows(after);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    keep(slots[i] < after ? slots[i] : replaced[slots[i] - after], rows.row(i));
  }
  version_.fetch_add(1, std::memory_order_release);
}

void IvfIndex::remove(std::span<const std::int64_t> ids) {
  const auto lock = lock_.write();
  if (ids.empty()) return;
  std::vector<std::uint32_t> slots(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) slots[i] = ids_.slot_of(ids[i]);
  std::vector<std::uint32_t> sorted = slots;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    throw InvalidArgument("ids holds an id more than once; ids must be unique");
  }
  locate();
  const std::uint32_t copies = trained_->copies;
  for (const std::uint32_t slot : slots) {
    for (std::uint32_t copy = 0; copy < copies; ++copy) {
      unlink(places_[slot * copies + copy]);
      places_[slot * copies + copy] = kNoPlace;
    }
  }
  const std::size_t stride = slot_bytes();
  std::byte* rows = stride != 0 ? rows_.mutable_data() : nullptr;
  float* norms = norms_.empty() ? nullptr : norms_.mutable_data();
  ids_.remove_dense(ids, [&](std::size_t last, std::size_t slot) {
    if (rows != nullptr) {
      std::memcpy(rows + slot * stride, rows + last * stride, stride);
    }
    if (norms != nullptr) norms[slot] = norms[last];
    for (std::uint32_t copy = 0; copy < copies; ++copy) {
      const std::size_t to = slot * copies + copy;
      places_[to] = places_[last * copies + copy];
      if (places_[to] == kNoPlace) continue;
      trained_->lists.set_slot(places_[to], static_cast<std::uint32_t>(to));
    }
  });
  places_.resize(ids_.slots() * copies);
  resize_rows(ids_.slots());
  version_.fetch_add(1, std::memory_order_release);
}

bool IvfIndex::contains(std::int64_t id) const {
  const auto lock = lock_.read();
  return ids_.contains(id);
}

// A row as it is kept; of a flat index once locate() was called.
const std::byte* IvfIndex::row_of(std::uint32_t slot) const {
  if (!flat()) return rows_.data() + slot * row_stride();
  const std::uint32_t place = places_[slot];
  return row_block().row(trained_->lists.block(place / CodeLists::kBlock),
                         place % CodeLists::kBlock);
}

void IvfIndex::get(std::span<const std::int64_t> ids, std::byte* out) const {
  constexpr std::uint32_t kBlock = CodeLists::kBlock;
  const auto lock = lock_.read();
  const std::size_t dim = options_.dim;
  const std::size_t bytes = row_bytes(options_.dtype, dim);
  if (!rows_apart() && !ids.empty() && trained_ != nullptr) locate();
  std::vector<float> wide(dim);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint32_t slot = ids_.slot_of(ids[i]);
    std::byte* to = out + i * bytes;
    if (options_.keep_rows) {
      const std::byte* row = row_of(slot);
      if (options_.storage == options_.dtype) {
        std::memcpy(to, row, bytes);
      } else {
        kernels::active().widen[static_cast<std::size_t>(options_.storage)](
            row, dim, wide.data());
        std::memcpy(to, wide.data(), bytes);
      }
      continue;
    }
    const std::uint32_t place = places_[slot * trained_->copies];
    if (trained_->grid) {
      trained_->grid->decode(rows_.data() + slot * slot_bytes(), wide.data());
      if (options_.grid == codec::GridCodec::Kind::kRabitq) {
        trained_->codec->turn_back(wide.data());
      }
    } else {
      trained_->codec->decode(trained_->lists.block(place / kBlock), place % kBlock,
                              wide.data());
    }
    const float* centroid =
        trained_->coarse.centroids().row(trained_->lists.list_of(place));
    for (std::size_t k = 0; k < dim; ++k) wide[k] += centroid[k];
    store(options_.dtype, wide.data(), dim, to);
  }
}

std::size_t IvfIndex::ids(std::int64_t* out, std::size_t room) const {
  const auto lock = lock_.read();
  return ids_.copy_ids(out, room);
}

storage::SlotSet IvfIndex::slot_set(std::span<const std::int64_t> ids) const {
  const auto lock = lock_.read();
  return ids_.slots_of(ids, version());
}

std::vector<std::size_t> IvfIndex::list_sizes() const {
  const auto lock = lock_.read();
  std::vector<std::size_t> sizes;
  if (trained_ == nullptr) return sizes;
  for (std::size_t l = 0; l < trained_->lists.lists(); ++l) {
    sizes.push_back(trained_->lists.size(l));
  }
  return sizes;
}

std::vector<float> IvfIndex::centroids() const {
  const auto lock = lock_.read();
  std::vector<float> result;
  if (trained_ == nullptr) return result;
  const MatrixView<float> view = trained_->coarse.centroids();
  return {view.data, view.data + view.rows * view.cols};
}

IvfIndex::Memory IvfIndex::memory() const {
  const auto lock = lock_.read();
  Memory memory{};
  if (trained_ != nullptr) {
    const std::size_t lists = trained_->lists.memory_bytes();
    if (flat()) {
      memory.rows = lists;
    } else {
      memory.codes = lists + trained_->codec->memory_bytes();
    }
    if (trained_->grid) memory.codes += trained_->grid->memory_bytes();
    // The centroids, and the same three times again packed to assign and to search.
    memory.centroids =
        4 * trained_->coarse.centroids().rows * options_.dim * sizeof(float);
  }
  memory.rows += rows_.capacity_bytes() + norms_.capacity_bytes();
  const std::lock_guard guard(places_mutex_);
  memory.ids = ids_.memory_bytes() + places_.capacity() * sizeof(std::uint32_t);
  return memory;
}

void IvfIndex::save_to(storage::FileWriter& writer) const {
  // The writer borrows: the lock stays until it is done.
  writer.keep(lock_.read());
  writer.number("ivf.dim", options_.dim);
  writer.text("ivf.metric", name_of(options_.metric));
  writer.text("ivf.dtype", name_of(options_.dtype));
  writer.text("ivf.storage", name_of(options_.storage));
  writer.number("ivf.keep_rows", options_.keep_rows ? 1 : 0);
  writer.number("ivf.codec", static_cast<std::uint64_t>(options_.codec));
  if (options_.grid_bits != 0) {
    writer.number("ivf.grid_bits", options_.grid_bits);
    writer.number("ivf.grid", static_cast<std::uint64_t>(options_.grid));
  }
  if (options_.spill >= 0) writer.real("ivf.spill", options_.spill);
  if (options_.rotate) writer.number("ivf.rotate", 1);
  writer.number("ivf.n_segments", options_.n_segments);
  writer.number("ivf.n_lists", options_.n_lists);
  writer.number("ivf.n_probe", options_.n_probe);
  writer.number("ivf.n_iterations", options_.n_iterations);
  writer.number("ivf.sample_limit", options_.sample_limit);
  writer.number("ivf.seed", options_.seed);
  writer.number("ivf.trained", trained_ != nullptr ? 1 : 0);
  writer.number("ivf.count", ids_.slots());
  ids_.save_to(writer);
  if (trained_ == nullptr) return;
  trained_->coarse.save_to(writer);
  if (trained_->codec) {
    trained_->codec->save_to(writer);
  } else {
    writer.add("ivf.mean", std::as_bytes(std::span(trained_->mean)));
  }
  if (trained_->grid) trained_->grid->save_to(writer);
  trained_->lists.save_to(writer);
  if (slot_bytes() != 0) writer.add("ivf.rows", rows_.bytes());
  if (rows_apart() && options_.metric == Metric::kCosine)
    writer.add("ivf.norms", norms_.bytes());
}

std::unique_ptr<IvfIndex> IvfIndex::load_from(const storage::FileReader& reader) {
  IvfOptions options;
  // Names and options that are refused throw InvalidArgument, which loading reports as
  // a fault of the file.
  options.dim = static_cast<std::size_t>(reader.number("ivf.dim", 1, (1u << 24) - 1));
  options.metric = parse_metric(reader.text("ivf.metric"));
  options.dtype = parse_dtype(reader.text("ivf.dtype"));
  options.storage = parse_dtype(reader.text("ivf.storage"));
  options.keep_rows = reader.number("ivf.keep_rows", 0, 1) == 1;
  options.codec = static_cast<IvfCodec>(reader.number("ivf.codec", 0, 2));
  if (reader.has("ivf.grid_bits")) {
    options.grid_bits = static_cast<std::size_t>(reader.number("ivf.grid_bits", 2, 8));
    options.grid = static_cast<codec::GridCodec::Kind>(reader.number("ivf.grid", 0, 1));
  }
  if (reader.has("ivf.spill")) options.spill = reader.real("ivf.spill", 0.0, 1e6);
  options.rotate = reader.has("ivf.rotate");
  options.n_segments =
      static_cast<std::size_t>(reader.number("ivf.n_segments", 0, options.dim));
  options.n_lists =
      static_cast<std::size_t>(reader.number("ivf.n_lists", 0, kMaxLists));
  options.n_probe =
      static_cast<std::size_t>(reader.number("ivf.n_probe", 1, kMaxLists));
  options.n_iterations =
      static_cast<std::size_t>(reader.number("ivf.n_iterations", 0, 1u << 31));
  options.sample_limit =
      static_cast<std::size_t>(reader.number("ivf.sample_limit", 0, 1u << 31));
  options.seed = reader.number("ivf.seed");
  auto index = std::make_unique<IvfIndex>(options);
  const auto count = static_cast<std::size_t>(
      reader.number("ivf.count", 0, storage::IdMap::kMaxSlots));
  const bool has_lists = reader.number("ivf.trained", 0, 1) == 1;
  reader.require(has_lists || count == 0, "meta", "vectors without centroids");
  index->ids_ = storage::IdMap::load_from(reader, count);
  if (!has_lists) return index;
  auto coarse = codec::KMeans::load_from(reader);
  reader.require(coarse.trained() && coarse.dim() == options.dim, "centroids",
                 "are not of the index's dimension");
  auto trained = std::make_unique<Trained>(
      Trained{.coarse = std::move(coarse),
              .mean = {},
              .products = options.metric == Metric::kInnerProduct});
  trained->copies =
      options.spill >= 0 && trained->coarse.centroids().rows > 1 ? 2u : 1u;
  reader.require(count <= storage::IdMap::kMaxSlots / trained->copies, "ivf.count",
                 "is too large for second lists");
  std::size_t payload = index->row_block().payload_bytes();
  if (index->flat()) {
    trained->mean = reader.finite("ivf.mean", options.dim);
  } else {
    const PieceCodec& codec =
        trained->codec.emplace(PieceCodec::load_from(reader, options.dim));
    reader.require(
        codec.options().kind == static_cast<PieceCodec::Kind>(options.codec) &&
            codec.options().products == trained->products &&
            codec.options().rotate == options.rotate &&
            (options.codec == IvfCodec::kRabitq ||
             codec.options().segments == options.n_segments),
        "meta", "codes do not fit the options");
    trained->mean.assign(codec.mean().begin(), codec.mean().end());
    payload = codec.payload_bytes();
  }
  if (options.grid_bits != 0) {
    trained->grid =
        codec::GridCodec::load_from(reader, options.dim, index->grid_options());
  }
  trained->lists = CodeLists::load_from(reader, trained->coarse.centroids().rows,
                                        payload, count * trained->copies);
  index->trained_ = std::move(trained);
  index->trained_->pack();
  if (index->slot_bytes() == 0) return index;
  // dim is below 2^24 and count below 2^32: no product overflows.
  index->rows_ = reader.array<std::byte>("ivf.rows", count * index->slot_bytes());
  if (index->rows_apart() && options.metric == Metric::kCosine) {
    index->norms_ = reader.array<float>("ivf.norms", count);
  }
  return index;
}

}  // namespace annx::index
