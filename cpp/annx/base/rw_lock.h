// SPDX-License-Identifier: Apache-2.0
// Many readers or one writer, where waiting writers go first. The standard's shared
// mutex prefers readers on the common platforms, so a steady stream of searches would
// keep an `add` waiting for ever.
#pragma once

#include <mutex>
#include <shared_mutex>

namespace annx {

class RwLock {
 public:
  // A reader passes the gate before it takes its share; a writer holds the gate while
  // it waits, so readers that come later queue behind it.
  std::shared_lock<std::shared_mutex> read() {
    const std::lock_guard gate(gate_);
    return std::shared_lock(mutex_);
  }
  std::unique_lock<std::shared_mutex> write() {
    const std::lock_guard gate(gate_);
    return std::unique_lock(mutex_);
  }

 private:
  std::mutex gate_;
  std::shared_mutex mutex_;
};

}  // namespace annx
