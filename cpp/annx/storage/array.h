// SPDX-License-Identifier: Apache-2.0
// A growable array of plain values that either owns aligned memory or borrows it from a
// mapped or loaded file, which it then keeps alive. Reading is the same either way; the
// first change to a borrowed array copies it. Everything that an index persists lives
// in these, so loading is borrowing and saving is writing `bytes()`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "annx/base/aligned_buffer.h"

namespace annx::storage {

template <class T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Array() = default;
  explicit Array(std::size_t count) { resize(count); }

  // Borrows `view`; `owner` keeps the bytes alive. `mapped`: they are a file's pages.
  static Array borrow(std::span<const T> view, std::shared_ptr<const void> owner,
                      bool mapped) {
    Array array;
    array.view_ = view.data();
    array.size_ = view.size();
    array.capacity_ = view.size();
    array.owner_ = std::move(owner);
    array.mapped_ = mapped;
    return array;
  }

  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  void swap(Array& other) noexcept {
    std::swap(buffer_, other.buffer_);
    std::swap(view_, other.view_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(owner_, other.owner_);
    std::swap(mapped_, other.mapped_);
  }

  const T* data() const { return view_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool borrowed() const { return owner_ != nullptr; }
  const T& operator[](std::size_t i) const { return view_[i]; }
  std::span<const T> span() const { return {view_, size_}; }
  std::span<const std::byte> bytes() const { return std::as_bytes(span()); }
  // Bytes of memory that there is room for without another copy.
  std::size_t capacity_bytes() const { return borrowed() ? 0 : capacity_ * sizeof(T); }
  // Bytes of memory held: also those of a file that was read, not of a mapped one.
  std::size_t held_bytes() const {
    return borrowed() && mapped_ ? 0 : capacity_ * sizeof(T);
  }

  // Pointer for writing; copies a borrowed array first.
  T* mutable_data() {
    if (borrowed()) reallocate(size_);
    return reinterpret_cast<T*>(buffer_.data());
  }

  // New elements are zero. Growing by push or repeated resize costs amortised O(1).
  void resize(std::size_t count) {
    if (count > capacity_) {
      reallocate(std::max(count, capacity_ + capacity_ / 2));
    } else if (count < size_ && !borrowed()) {
      std::memset(static_cast<void*>(mutable_data() + count), 0,
                  (size_ - count) * sizeof(T));
    } else if (count > size_ && borrowed()) {
      reallocate(count);
    }
    size_ = count;
  }

  // Room for exactly `count` elements, so that a bulk add does not over-allocate.
  void reserve(std::size_t count) {
    if (count > capacity_) reallocate(count);
  }

  void push_back(const T& value) {
    const T copy = value;
    resize(size_ + 1);
    mutable_data()[size_ - 1] = copy;
  }

 private:
  void reallocate(std::size_t capacity) {
    if (capacity > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
      throw std::bad_alloc();
    }
    AlignedBuffer fresh(capacity * sizeof(T));
    if (size_ != 0) std::memcpy(fresh.data(), view_, size_ * sizeof(T));
    buffer_ = std::move(fresh);
    owner_.reset();
    view_ = reinterpret_cast<const T*>(buffer_.data());
    capacity_ = capacity;
  }

  AlignedBuffer buffer_;
  const T* view_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::shared_ptr<const void> owner_;
  bool mapped_ = false;
};

}  // namespace annx::storage
