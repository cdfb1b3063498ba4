// SPDX-License-Identifier: Apache-2.0
// Adding to an IvfIndex, replacing and removing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/index/ivf_scratch.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using storage::CodeLists;

constexpr std::uint32_t kNoPlace = 0xFFFFFFFFu;

// Rounding to 16 bits may overflow what float32 held.
void check_narrow(DType storage, RowsView rows, std::size_t dim) {
  if (storage != DType::kFloat16) return;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const auto* row = reinterpret_cast<const float*>(rows.row(i));
    float most = 0;
    for (std::size_t k = 0; k < dim; ++k) most = std::max(most, std::abs(row[k]));
    if (most >= 65520.0f) {
      throw InvalidArgument("vectors[" + std::to_string(i) +
                            "] holds a value too large for float16");
    }
  }
}

}  // namespace

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
        throw FormatError("the lists of the index are damaged: slot " +
                          std::to_string(slot) + " is not there or has two codes");
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

}  // namespace annx::index
