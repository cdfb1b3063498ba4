// SPDX-License-Identifier: Apache-2.0
#include "annx/index/pq_flat.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include "annx/base/error.h"
#include "annx/search/topk.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Codes scanned at once: their distances stay in the first-level cache.
constexpr std::size_t kScanBlock = 1024;

void check_values(MatrixView<float> rows, const char* argument) {
  storage::check_rows(DType::kFloat32, bytes_of(rows), rows.cols, argument);
}

}  // namespace

PQFlatIndex::PQFlatIndex(const codec::ProductOptions& options) : pq_(options) {}

PQFlatIndex::PQFlatIndex(PQFlatIndex&& other) noexcept
    : pq_(std::move(other.pq_)),
      codes_(std::move(other.codes_)),
      rows_(std::move(other.rows_)),
      norms_(std::move(other.norms_)),
      ids_(std::move(other.ids_)),
      version_(other.version_.load()) {}

bool PQFlatIndex::trained() const {
  const std::shared_lock lock(mutex_);
  return pq_.trained();
}

std::size_t PQFlatIndex::size() const {
  const std::shared_lock lock(mutex_);
  return ids_.size();
}

void PQFlatIndex::train(MatrixView<float> rows, std::size_t threads, Monitor* monitor) {
  codec::ProductQuantizer fresh(options());
  fresh.train(rows, threads, monitor);
  const std::unique_lock lock(mutex_);
  const std::size_t count = ids_.slots();
  storage::Array<std::uint8_t> codes(count * fresh.code_bytes());
  fresh.encode({rows_.data(), count, options().dim, options().dim},
               codes.mutable_data(), threads, monitor);
  pq_ = std::move(fresh);
  codes_ = std::move(codes);
  version_.fetch_add(1, std::memory_order_release);
}

void PQFlatIndex::resize(std::size_t count) {
  codes_.resize(count * pq_.code_bytes());
  rows_.resize(count * options().dim);
  if (options().metric == Metric::kCosine) norms_.resize(count);
}

void PQFlatIndex::put(std::uint32_t slot, const float* row, const std::uint8_t* code) {
  const std::size_t dim = options().dim;
  std::copy_n(row, dim, rows_.mutable_data() + slot * dim);
  std::copy_n(code, pq_.code_bytes(), codes_.mutable_data() + slot * pq_.code_bytes());
  if (options().metric == Metric::kCosine) {
    search::row_norms(DType::kFloat32, bytes_of({row, 1, dim, dim}), dim,
                      norms_.mutable_data() + slot);
  }
}

void PQFlatIndex::add(MatrixView<float> rows, const std::int64_t* ids,
                      std::int64_t* out, std::size_t threads, Monitor* monitor) {
  check_values(rows, "vectors");
  const std::unique_lock lock(mutex_);
  ids_.check(rows.rows, ids);
  std::vector<std::uint8_t> codes(rows.rows * pq_.code_bytes());
  pq_.encode(rows, codes.data(), threads, monitor);
  const std::size_t before = ids_.slots();
  try {
    resize(before + rows.rows);
    ids_.append(rows.rows, ids);
  } catch (...) {
    resize(before);
    throw;
  }
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const auto slot = static_cast<std::uint32_t>(before + i);
    put(slot, rows.row(i), codes.data() + i * pq_.code_bytes());
    out[i] = ids_.id_of(slot);
  }
  version_.fetch_add(1, std::memory_order_release);
}

void PQFlatIndex::upsert(MatrixView<float> rows, const std::int64_t* ids) {
  check_values(rows, "vectors");
  const std::unique_lock lock(mutex_);
  const auto fresh = ids_.missing({ids, rows.rows});
  std::vector<std::uint8_t> codes(rows.rows * pq_.code_bytes());
  pq_.encode(rows, codes.data(), 1, nullptr);
  const std::size_t before = ids_.slots();
  try {
    resize(before + fresh.size());
    if (!fresh.empty()) ids_.append(fresh.size(), fresh.data());
  } catch (...) {
    resize(before);
    throw;
  }
  for (std::size_t i = 0; i < rows.rows; ++i) {
    put(ids_.slot_of(ids[i]), rows.row(i), codes.data() + i * pq_.code_bytes());
  }
  version_.fetch_add(1, std::memory_order_release);
}

void PQFlatIndex::remove(std::span<const std::int64_t> ids) {
  const std::unique_lock lock(mutex_);
  if (ids.empty()) return;
  const std::size_t dim = options().dim;
  const std::size_t bytes = pq_.code_bytes();
  std::uint8_t* codes = codes_.mutable_data();
  float* rows = rows_.mutable_data();
  float* norms = options().metric == Metric::kCosine ? norms_.mutable_data() : nullptr;
  ids_.remove_dense(ids, [&](std::size_t last, std::size_t slot) {
    std::copy_n(rows + last * dim, dim, rows + slot * dim);
    std::copy_n(codes + last * bytes, bytes, codes + slot * bytes);
    if (norms != nullptr) norms[slot] = norms[last];
  });
  resize(ids_.slots());
  version_.fetch_add(1, std::memory_order_release);
}

bool PQFlatIndex::contains(std::int64_t id) const {
  const std::shared_lock lock(mutex_);
  return ids_.contains(id);
}

void PQFlatIndex::get(std::span<const std::int64_t> ids, std::byte* out) const {
  const std::shared_lock lock(mutex_);
  const std::size_t dim = options().dim;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::memcpy(out + i * dim * sizeof(float),
                rows_.data() + ids_.slot_of(ids[i]) * dim, dim * sizeof(float));
  }
}

std::size_t PQFlatIndex::ids(std::int64_t* out, std::size_t room) const {
  const std::shared_lock lock(mutex_);
  return ids_.copy_ids(out, room);
}

storage::SlotSet PQFlatIndex::slot_set(std::span<const std::int64_t> ids) const {
  const std::shared_lock lock(mutex_);
  return ids_.slots_of(ids, version());
}

search::RowSet PQFlatIndex::row_set() const {
  return search::stored_rows(options().metric, DType::kFloat32, options().dim,
                             rows_.bytes().data(), norms_.data(), ids_);
}

void PQFlatIndex::search(MatrixView<float> queries, std::size_t k, std::size_t rerank,
                         const storage::SlotSet* filter, std::size_t threads,
                         Monitor* monitor, std::int64_t* ids, float* distances) const {
  check_values(queries, "queries");
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  if (!pq_.trained()) {
    throw NotTrained("PQFlatIndex is not trained; call train() first");
  }
  const search::RowSet set = row_set();
  const std::size_t count = set.count;
  const std::size_t bytes = pq_.code_bytes();
  std::fill_n(ids, queries.rows * k, std::int64_t{-1});
  std::fill_n(distances, queries.rows * k, kInfinity);
  if (count == 0) return;
  // Never more than there are: k is the caller's and may be anything.
  const std::size_t wanted = std::min(k, count);
  const std::size_t shortlist = rerank == 0 || wanted > count / rerank
                                    ? (rerank == 0 ? wanted : count)
                                    : wanted * rerank;
  parallel_for(
      queries.rows, resolve_threads(threads), 1,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<float> table(pq_.table_size());
        std::vector<float> found(kScanBlock);
        for (std::size_t q = begin; q < end; ++q) {
          pq_.asymmetric_tables({queries.row(q), 1, queries.cols, queries.stride},
                                table.data(), 1);
          search::TopK<float> near(shortlist);
          for (std::size_t at = 0; at < count; at += kScanBlock) {
            const std::size_t part = std::min(kScanBlock, count - at);
            pq_.scan(table.data(), codes_.data() + at * bytes, part, found.data());
            for (std::size_t i = 0; i < part; ++i) {
              if (found[i] > near.limit()) continue;
              const auto slot = static_cast<std::uint32_t>(at + i);
              if (filter != nullptr && !filter->test(slot)) continue;
              // Ordered by id, as every answer is.
              near.push(found[i], ids_.id_of(slot));
            }
          }
          const auto* best = &near.sort();
          search::TopK<float> exact(wanted);
          if (rerank != 0) {
            const search::Canonical<float> canonical(
                set, reinterpret_cast<const std::byte*>(queries.row(q)));
            std::vector<std::uint32_t> slots(best->size());
            for (std::size_t i = 0; i < slots.size(); ++i) {
              slots[i] = ids_.slot_of((*best)[i].id);
            }
            constexpr std::size_t kBlock = search::Canonical<float>::kBlock;
            for (std::size_t at = 0; at < slots.size(); at += kBlock) {
              const std::size_t part = std::min(kBlock, slots.size() - at);
              canonical.some(slots.data() + at, part, found.data());
              for (std::size_t i = 0; i < part; ++i) {
                exact.push(found[i], (*best)[at + i].id);
              }
            }
            best = &exact.sort();
          }
          for (std::size_t i = 0; i < best->size(); ++i) {
            ids[q * k + i] = (*best)[i].id;
            distances[q * k + i] =
                rerank == 0 ? (*best)[i].key
                            : search::Canonical<float>::distance((*best)[i].key);
          }
        }
      },
      monitor);
}

search::Ragged PQFlatIndex::search_radius(MatrixView<float> queries, double radius,
                                          const storage::SlotSet* filter,
                                          std::size_t threads, Monitor* monitor) const {
  check_values(queries, "queries");
  const std::shared_lock lock(mutex_);
  if (filter != nullptr) filter->require(version());
  const search::FilteredRows rows(row_set(), filter);
  return search::search_within(rows.set(), bytes_of(queries), radius, threads, monitor);
}

PQFlatIndex::Memory PQFlatIndex::memory() const {
  const std::shared_lock lock(mutex_);
  return {codes_.held_bytes(), rows_.held_bytes() + norms_.held_bytes(),
          pq_.memory_bytes(), ids_.memory_bytes()};
}

void PQFlatIndex::save_to(storage::FileWriter& writer) const {
  // The writer borrows rows: the lock stays until it is done.
  writer.keep(std::shared_lock(mutex_));
  pq_.save_to(writer);
  writer.number("count", ids_.slots());
  writer.add("codes", codes_.bytes());
  writer.add("rows", rows_.bytes());
  if (options().metric == Metric::kCosine) writer.add("norms", norms_.bytes());
  ids_.save_to(writer);
}

PQFlatIndex PQFlatIndex::load_from(const storage::FileReader& reader) {
  auto pq = codec::ProductQuantizer::load_from(reader);
  PQFlatIndex index(pq.options());
  index.pq_ = std::move(pq);
  const std::size_t count = reader.number("count", 0, storage::IdMap::kMaxSlots);
  reader.require(count == 0 || index.pq_.trained(), "meta", "codes without codebooks");
  // dim is at most 2^24 and count below 2^32: no product overflows.
  index.codes_ = reader.array<std::uint8_t>("codes", count * index.pq_.code_bytes());
  index.rows_ = reader.array<float>("rows", count * index.options().dim);
  if (index.options().metric == Metric::kCosine) {
    index.norms_ = reader.array<float>("norms", count);
  }
  index.ids_ = storage::IdMap::load_from(reader, count);
  return index;
}

}  // namespace annx::index
