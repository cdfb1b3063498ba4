// SPDX-License-Identifier: Apache-2.0
// Move-only memory, 64-byte aligned and zeroed; from 2 MiB on it asks for huge pages,
// which cut the page-table walks of random row reads (a best effort, never required).
#pragma once

#include <cstddef>
#include <utility>

namespace annx {

class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;

  AlignedBuffer() = default;
  // Throws std::bad_alloc. The bytes are zero.
  explicit AlignedBuffer(std::size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        held_(std::exchange(other.held_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(held_, other.held_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  // Keeps the first `bytes`, at most size(). The rest goes back to the system where
  // buffers have pages of their own, and otherwise with the buffer.
  void shrink(std::size_t bytes);

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t held_ = 0;  // bytes, with what shrink() could not give back
};

}  // namespace annx
