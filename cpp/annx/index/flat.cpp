// SPDX-License-Identifier: Apache-2.0
#include "annx/index/flat.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "annx/base/error.h"
#include "annx/storage/check.h"

namespace annx::index {

FlatIndex::FlatIndex(std::size_t dim, Metric metric, DType dtype)
    : dim_(dim), metric_(metric), dtype_(dtype), stride_(row_bytes(dtype, dim)) {
  const bool bits = metric == Metric::kHamming || metric == Metric::kJaccard;
  if (bits != (dtype == DType::kBits) ||
      (metric == Metric::kPoincare && !search::is_float(dtype))) {
    throw InvalidArgument("metric is '" + std::string(name_of(metric)) + "', which " +
                          std::string(name_of(dtype)) + " vectors do not have");
  }
  if (dim == 0 || (search::is_byte(dtype) && dim > kernels::kMaxDim8) ||
      dim >= 1u << 24) {
    throw InvalidArgument("dim is " + std::to_string(dim) + ", out of range");
  }
}

FlatIndex::FlatIndex(FlatIndex&& other) noexcept
    : dim_(other.dim_),
      metric_(other.metric_),
      dtype_(other.dtype_),
      stride_(other.stride_),
      rows_(std::move(other.rows_)),
      norms_(std::move(other.norms_)),
      ids_(std::move(other.ids_)),
      version_(other.version_.load()) {}

std::size_t FlatIndex::size() const {
  const std::shared_lock lock(mutex_);
  return ids_.size();
}

void FlatIndex::put(std::uint32_t slot, RowsView rows, std::size_t first,
                    std::size_t count) {
  std::uint8_t* to = rows_.mutable_data() + slot * stride_;
  if (rows.stride == stride_) {
    std::memcpy(to, rows.row(first), count * stride_);
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(to + i * stride_, rows.row(first + i), stride_);
    }
  }
  if (search::keeps_norms(metric_)) {
    search::row_norms(metric_, dtype_, {rows.row(first), count, rows.stride}, dim_,
                      norms_.mutable_data() + slot);
  }
}

void FlatIndex::add(RowsView rows, const std::int64_t* ids, std::int64_t* out) {
  storage::check_rows(metric_, dtype_, rows, dim_, "vectors");
  const std::unique_lock lock(mutex_);
  ids_.check(rows.rows, ids);
  const std::size_t before = ids_.slots();
  const std::size_t after = before + rows.rows;
  if (after > std::numeric_limits<std::size_t>::max() / stride_) throw std::bad_alloc();
  if (rows.rows == 0) return;
  // Memory first, then changes that cannot fail.
  rows_.resize(after * stride_);
  try {
    if (search::keeps_norms(metric_)) norms_.resize(after);
    ids_.append(rows.rows, ids);
  } catch (...) {
    rows_.resize(before * stride_);
    if (search::keeps_norms(metric_)) norms_.resize(before);
    throw;
  }
  put(static_cast<std::uint32_t>(before), rows, 0, rows.rows);
  for (std::size_t i = 0; out != nullptr && i < rows.rows; ++i) {
    out[i] = ids_.id_of(static_cast<std::uint32_t>(before + i));
  }
  version_.fetch_add(1, std::memory_order_release);
}

void FlatIndex::upsert(RowsView rows, const std::int64_t* ids) {
  storage::check_rows(metric_, dtype_, rows, dim_, "vectors");
  const std::unique_lock lock(mutex_);
  const auto fresh = ids_.missing({ids, rows.rows});
  const std::size_t before = ids_.slots();
  const std::size_t after = before + fresh.size();
  rows_.resize(after * stride_);
  try {
    if (search::keeps_norms(metric_)) norms_.resize(after);
    if (!fresh.empty()) ids_.append(fresh.size(), fresh.data());
  } catch (...) {
    rows_.resize(before * stride_);
    if (search::keeps_norms(metric_)) norms_.resize(before);
    throw;
  }
  for (std::size_t i = 0; i < rows.rows; ++i) put(ids_.slot_of(ids[i]), rows, i, 1);
  version_.fetch_add(1, std::memory_order_release);
}

void FlatIndex::remove(std::span<const std::int64_t> ids) {
  const std::unique_lock lock(mutex_);
  if (ids.empty()) return;
  std::uint8_t* rows = rows_.mutable_data();
  float* norms = search::keeps_norms(metric_) ? norms_.mutable_data() : nullptr;
  ids_.remove_dense(ids, [&](std::size_t last, std::size_t slot) {
    std::memcpy(rows + slot * stride_, rows + last * stride_, stride_);
    if (norms != nullptr) norms[slot] = norms[last];
  });
  rows_.resize(ids_.slots() * stride_);
  if (norms != nullptr) norms_.resize(ids_.slots());
  version_.fetch_add(1, std::memory_order_release);
}

bool FlatIndex::contains(std::int64_t id) const {
  const std::shared_lock lock(mutex_);
  return ids_.contains(id);
}

void FlatIndex::get(std::span<const std::int64_t> ids, std::byte* out) const {
  const std::shared_lock lock(mutex_);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::memcpy(out + i * stride_, rows_.data() + ids_.slot_of(ids[i]) * stride_,
                stride_);
  }
}

std::size_t FlatIndex::ids(std::int64_t* out, std::size_t room) const {
  const std::shared_lock lock(mutex_);
  return ids_.copy_ids(out, room);
}

storage::SlotSet FlatIndex::slot_set(std::span<const std::int64_t> ids) const {
  const std::shared_lock lock(mutex_);
  return ids_.slots_of(ids, version());
}

search::RowSet FlatIndex::row_set() const {
  return search::stored_rows(metric_, dtype_, dim_, rows_.bytes().data(), norms_.data(),
                             ids_);
}

// Runs `run` on the rows under the shared lock.
template <class Search>
auto FlatIndex::over(const storage::SlotSet* filter, Search&& run) const {
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  return run(search::FilteredRows(row_set(), filter).set());
}

void FlatIndex::search(RowsView queries, std::size_t k, const storage::SlotSet* filter,
                       std::size_t threads, Monitor* monitor, std::int64_t* ids,
                       float* distances) const {
  storage::check_rows(metric_, search::query_dtype(dtype_), queries, dim_, "queries");
  over(filter, [&](const search::RowSet& set) {
    search::search_topk(set, queries, k, threads, monitor, ids, distances);
  });
}

search::Ragged FlatIndex::search_radius(RowsView queries, double radius,
                                        const storage::SlotSet* filter,
                                        std::size_t threads, Monitor* monitor) const {
  storage::check_rows(metric_, search::query_dtype(dtype_), queries, dim_, "queries");
  return over(filter, [&](const search::RowSet& set) {
    return search::search_within(set, queries, radius, threads, monitor);
  });
}

std::vector<std::int64_t> FlatIndex::count_radius(RowsView queries, double radius,
                                                  const storage::SlotSet* filter,
                                                  std::size_t threads,
                                                  Monitor* monitor) const {
  storage::check_rows(metric_, search::query_dtype(dtype_), queries, dim_, "queries");
  return over(filter, [&](const search::RowSet& set) {
    return search::count_within(set, queries, radius, threads, monitor);
  });
}

FlatIndex::Memory FlatIndex::memory() const {
  const std::shared_lock lock(mutex_);
  return {rows_.held_bytes(), norms_.held_bytes(), ids_.memory_bytes()};
}

void FlatIndex::save_to(storage::FileWriter& writer) const {
  // The writer borrows rows: the lock stays until it is done.
  writer.keep(std::shared_lock(mutex_));
  writer.number("dim", dim_);
  writer.text("metric", name_of(metric_));
  writer.text("dtype", name_of(dtype_));
  writer.number("count", ids_.slots());
  writer.add("rows", rows_.bytes());
  if (search::keeps_norms(metric_)) writer.add("norms", norms_.bytes());
  ids_.save_to(writer);
}

FlatIndex FlatIndex::load_from(const storage::FileReader& reader) {
  const auto parsed = [&](const char* entry, auto parse) {
    try {
      return parse(reader.text(entry));
    } catch (const InvalidArgument& error) {
      reader.fail("meta", error.what());
    }
  };
  const Metric metric =
      parsed("metric", [](const std::string& t) { return parse_any_metric(t); });
  const DType dtype =
      parsed("dtype", [](const std::string& t) { return parse_dtype(t); });
  const std::size_t dim = reader.number("dim", 1, (1u << 24) - 1);
  const std::size_t count = reader.number("count", 0, storage::IdMap::kMaxSlots);
  std::optional<FlatIndex> index;
  try {
    index.emplace(dim, metric, dtype);
  } catch (const InvalidArgument& error) {
    reader.fail("meta", error.what());
  }
  // dim is below 2^24 and count below 2^32: no product overflows.
  index->rows_ = reader.array<std::uint8_t>("rows", count * index->stride_);
  if (search::keeps_norms(metric)) index->norms_ = reader.array<float>("norms", count);
  index->ids_ = storage::IdMap::load_from(reader, count);
  return std::move(*index);
}

}  // namespace annx::index
