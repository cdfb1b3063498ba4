// SPDX-License-Identifier: Apache-2.0
// What IvfIndex accepts, tells and writes to files. ivf_train.cpp learns and codes,
// ivf_change.cpp adds and removes, ivf_search.cpp searches.
#include "annx/index/ivf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/index/ivf_scratch.h"
#include "annx/kernels/dispatch.h"

namespace annx::index {
namespace {

using codec::PieceCodec;
using storage::CodeLists;

constexpr std::size_t kMaxLists = std::size_t{1} << 24;
// Dimensions of a rotation that is learnt: its matrix takes 64 MiB.
constexpr std::size_t kMaxLearnt = 4096;

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
      refuse("bits is " + std::to_string(options.grid_bits) +
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
    refuse("n_lists is " + std::to_string(options.n_lists) + "; it must be at most " +
           std::to_string(kMaxLists));
  }
  using Turn = PieceCodec::Turn;
  const bool product =
      options.codec == IvfCodec::kProduct || options.codec == IvfCodec::kBytes;
  if (options.turn != Turn::kNone && !product) {
    refuse("rotation is given; codecs 'pq4' and 'pq8' alone have the choice");
  }
  if (options.turn == Turn::kLearnt && options.dim > kMaxLearnt) {
    refuse("rotation is 'opq'; dim must be at most " + std::to_string(kMaxLearnt) +
           ", and is " + std::to_string(options.dim));
  }
  if (flat && !options.residual) {
    refuse("residual is false; lists of codec 'flat' hold no codes");
  }
  if (product && (options.n_segments == 0 || options.n_segments > options.dim)) {
    refuse("n_segments is " + std::to_string(options.n_segments) +
           "; it must be from 1 to dim, " + std::to_string(options.dim));
  }
  return options;
}

void scale_to_one(float* x, std::size_t dim) {
  const double square = square_of(x, dim);
  const double factor = square > 0 ? 1 / std::sqrt(square) : 0.0;
  for (std::size_t k = 0; k < dim; ++k) x[k] = static_cast<float>(x[k] * factor);
}

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

const float* IvfIndex::origin(const Trained& to, std::size_t list) const {
  return options_.residual ? to.coarse.centroids().row(list) : to.mean.data();
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

std::size_t IvfIndex::slot_bytes() const {
  if (options_.grid_bits != 0) return trained_ ? trained_->grid->row_bytes() : 0;
  return rows_apart() ? row_stride() : 0;
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
    const float* from = origin(*trained_, trained_->lists.list_of(place));
    for (std::size_t k = 0; k < dim; ++k) wide[k] += from[k];
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
  memory.rows += rows_.held_bytes() + norms_.held_bytes();
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
  if (options_.turn != PieceCodec::Turn::kNone) {
    writer.number("ivf.rotate", static_cast<std::uint64_t>(options_.turn));
  }
  if (!options_.residual) writer.number("ivf.whole", 1);
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
  options.codec = static_cast<IvfCodec>(reader.number("ivf.codec", 0, 3));
  if (reader.has("ivf.grid_bits")) {
    options.grid_bits = static_cast<std::size_t>(reader.number("ivf.grid_bits", 2, 8));
    options.grid = static_cast<codec::GridCodec::Kind>(reader.number("ivf.grid", 0, 1));
  }
  if (reader.has("ivf.spill")) options.spill = reader.real("ivf.spill", 0.0, 1e6);
  if (reader.has("ivf.rotate")) {
    options.turn = static_cast<PieceCodec::Turn>(reader.number("ivf.rotate", 1, 2));
  }
  options.residual = !reader.has("ivf.whole");
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
            codec.options().turn == options.turn &&
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
