// SPDX-License-Identifier: Apache-2.0
// Memory that searches work in, kept from call to call: as many objects as searches
// ever ran at once. Thread-safe. T may be incomplete until the pool is used.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace annx::index {

template <class T>
class ScratchPool {
 public:
  // An object of the pool, returned to it in the end.
  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool), object_(pool.take()) {}
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);  // there is room: see take()
      pool_.idle_.push_back(std::move(object_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    T& operator*() const { return *object_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<T> object_;
  };

 private:
  std::unique_ptr<T> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      idle_.reserve(made_ + 1);
      auto fresh = std::make_unique<T>();
      ++made_;
      return fresh;
    }
    auto object = std::move(idle_.back());
    idle_.pop_back();
    return object;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
  std::size_t made_ = 0;
};

}  // namespace annx::index
