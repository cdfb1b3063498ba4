// SPDX-License-Identifier: Apache-2.0
// One loop construct on one small persistent pool. No OpenMP: two OpenMP runtimes in
// one process (annx beside another library) can deadlock or crash it.
#pragma once

#include <cstddef>
#include <functional>

namespace annx {

// Receives progress and may stop the work by throwing. Called only on the thread that
// called the long operation, never by a worker, at most about 20 times a second.
class Monitor {
 public:
  virtual ~Monitor() = default;
  virtual void poll(std::size_t done, std::size_t total) = 0;
};

// A reference to any callable (begin, end, worker); worker < threads. Non-owning.
using RangeFn = std::function<void(std::size_t, std::size_t, std::size_t)>;

// Cores that this process may use; at least 1.
std::size_t hardware_threads();

// `threads` as asked for by a caller: 0 means all cores.
std::size_t resolve_threads(std::size_t threads);

// Calls fn on disjoint ranges of at most `grain` items that cover [0, n), on at most
// `threads` threads, this one included. Which thread gets which range is not fixed.
// The first exception (fn's or monitor's) is rethrown here after every thread has
// stopped; ranges not begun by then are skipped. Calls from within fn run in line.
void parallel_for(std::size_t n, std::size_t threads, std::size_t grain,
                  const RangeFn& fn, Monitor* monitor = nullptr);

}  // namespace annx
