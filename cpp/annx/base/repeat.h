// SPDX-License-Identifier: Apache-2.0
// Processor seconds of a call, repeated here so that nothing but the call is timed.
#pragma once

#include <cstddef>
#include <ctime>

namespace annx {

// Mean over `times` calls, at least one; all threads of the process count.
template <class Call>
double seconds_of(std::size_t times, Call&& call) {
  if (times == 0) times = 1;
  const std::clock_t start = std::clock();
  for (std::size_t i = 0; i < times; ++i) call();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC /
         static_cast<double>(times);
}

}  // namespace annx
