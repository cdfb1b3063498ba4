// SPDX-License-Identifier: Apache-2.0
#include "annx/base/aligned_buffer.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace annx {

#if defined(__linux__)

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

// Fresh anonymous mappings are zero and touch no page until it is used, so a large
// reserve costs address space only.
AlignedBuffer::AlignedBuffer(std::size_t bytes) : size_(bytes), held_(bytes) {
  if (bytes == 0) return;
  if (bytes < kHugePage) {
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, rounded);
    return;
  }
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
  // Over-map by one huge page, then cut the ends off, to start on a huge-page boundary.
  const std::size_t wanted = whole_pages(bytes);
  void* raw = mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<std::byte*>(raw);
  const auto address = reinterpret_cast<std::uintptr_t>(raw);
  const std::size_t head = (kHugePage - address % kHugePage) % kHugePage;
  if (head != 0) munmap(start, head);
  if (head != kHugePage) munmap(start + head + wanted, kHugePage - head);
  data_ = start + head;
  madvise(data_, wanted, MADV_HUGEPAGE);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  if (held_ < kHugePage) {
    std::free(data_);
  } else {
    munmap(data_, whole_pages(held_));
  }
}

void AlignedBuffer::shrink(std::size_t bytes) {
  size_ = bytes;
  if (held_ < kHugePage) return;
  // One huge page stays at least: what tells a mapping from other memory.
  const std::size_t left = std::max(whole_pages(bytes), kHugePage);
  const std::size_t mapped = whole_pages(held_);
  if (left < mapped) munmap(data_ + left, mapped - left);
  held_ = left;
}

#else

AlignedBuffer::AlignedBuffer(std::size_t bytes) : size_(bytes), held_(bytes) {
  if (bytes == 0) return;
  data_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kAlignment}));
  std::memset(data_, 0, bytes);
}

void AlignedBuffer::shrink(std::size_t bytes) { size_ = bytes; }

AlignedBuffer::~AlignedBuffer() {
  ::operator delete(data_, std::align_val_t{kAlignment});
}

#endif

}  // namespace annx
