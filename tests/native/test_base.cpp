// SPDX-License-Identifier: Apache-2.0
// base/: memory, threads, random numbers, names.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "annx/base/aligned_buffer.h"
#include "annx/base/error.h"
#include "annx/base/parallel.h"
#include "annx/base/random.h"
#include "annx/base/types.h"
#include "check.h"

namespace annx {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;

ANNX_TEST(aligned_buffer_is_aligned_zero_and_writable_to_its_last_byte) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{64},
                                  std::size_t{65}, kHuge - 1, kHuge, 3 * kHuge + 7}) {
    AlignedBuffer buffer(bytes);
    CHECK_EQ(buffer.size(), bytes);
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    for (std::size_t i = 0; i < bytes; i += 61) CHECK(buffer.data()[i] == std::byte{0});
    std::memset(buffer.data(), 0xA5, bytes);
    CHECK(buffer.data()[bytes - 1] == std::byte{0xA5});
  }
}

ANNX_TEST(aligned_buffer_of_nothing_has_no_memory) {
  const AlignedBuffer buffer(0);
  CHECK(buffer.data() == nullptr);
  CHECK_EQ(buffer.size(), 0u);
}

ANNX_TEST(aligned_buffer_moves_without_copying) {
  for (const std::size_t bytes : {std::size_t{100}, 2 * kHuge}) {
    AlignedBuffer first(bytes);
    const std::byte* memory = first.data();
    AlignedBuffer second(std::move(first));
    CHECK(second.data() == memory);
    AlignedBuffer third(10);
    third = std::move(second);
    CHECK(third.data() == memory);
    CHECK_EQ(third.size(), bytes);
  }
}

ANNX_TEST(aligned_buffer_shrinks_and_keeps_what_is_left) {
  for (const std::size_t bytes : {std::size_t{100}, kHuge, 3 * kHuge + 7}) {
    for (const std::size_t left : {std::size_t{0}, std::size_t{1}, bytes / 2, bytes}) {
      AlignedBuffer buffer(bytes);
      const std::byte* memory = buffer.data();
      std::memset(buffer.data(), 0x5A, bytes);
      buffer.shrink(left);
      CHECK(buffer.data() == memory);
      CHECK_EQ(buffer.size(), left);
      for (std::size_t i = 0; i < left; ++i) {
        CHECK(buffer.data()[i] == std::byte{0x5A});
      }
      // What is left over is freed as it was made.
      AlignedBuffer other(std::move(buffer));
      other.shrink(left / 2);
      CHECK_EQ(other.size(), left / 2);
    }
  }
  AlignedBuffer nothing;
  nothing.shrink(0);
  CHECK(nothing.data() == nullptr);
}

ANNX_TEST(aligned_buffer_too_large_throws) {
  CHECK_THROWS(AlignedBuffer(SIZE_MAX), std::bad_alloc);
  CHECK_THROWS(AlignedBuffer(SIZE_MAX - 100), std::bad_alloc);
  CHECK_THROWS(AlignedBuffer(SIZE_MAX / 2), std::bad_alloc);
}

// Every item is visited once, whatever the number of threads and the grain.
ANNX_TEST(parallel_for_covers_each_item_once) {
  for (const std::size_t threads : {1u, 2u, 5u}) {
    for (const std::size_t n : {0u, 1u, 7u, 1000u}) {
      for (const std::size_t grain : {0u, 1u, 3u, 64u, 5000u}) {
        std::vector<std::atomic<int>> seen(n);
        std::atomic<bool> in_bounds{true};
        parallel_for(n, threads, grain,
                     [&](std::size_t begin, std::size_t end, std::size_t worker) {
                       const std::size_t most = grain == 0 ? 1 : grain;
                       if (worker >= threads || end - begin > most || end > n) {
                         in_bounds = false;
                       }
                       for (std::size_t i = begin; i < end; ++i) ++seen[i];
                     });
        CHECK(in_bounds.load());
        for (const auto& count : seen) CHECK_EQ(count.load(), 1);
      }
    }
  }
}

// Worker numbers index scratch memory, so two ranges never run under one number at
// once.
ANNX_TEST(parallel_for_gives_each_running_thread_its_own_number) {
  constexpr std::size_t kThreads = 4;
  std::vector<std::atomic<int>> busy(kThreads);
  std::atomic<bool> clash{false};
  parallel_for(2000, kThreads, 1, [&](std::size_t, std::size_t, std::size_t worker) {
    if (busy[worker].fetch_add(1) != 0) clash = true;
    std::this_thread::yield();
    busy[worker].fetch_sub(1);
  });
  CHECK(!clash.load());
}

ANNX_TEST(parallel_for_rethrows_after_every_thread_stopped) {
  for (const std::size_t threads : {1u, 3u}) {
    std::atomic<int> running{0};
    bool caught = false;
    try {
      parallel_for(500, threads, 1, [&](std::size_t begin, std::size_t, std::size_t) {
        ++running;
        if (begin == 17) {
          --running;
          throw std::out_of_range("seventeen");
        }
        std::this_thread::yield();
        --running;
      });
    } catch (const std::out_of_range& error) {
      caught = std::string(error.what()) == "seventeen";
    }
    CHECK(caught);
    CHECK_EQ(running.load(), 0);
  }
}

ANNX_TEST(parallel_for_stops_early_after_an_exception) {
  std::atomic<std::size_t> calls{0};
  CHECK_THROWS(parallel_for(100000, 2, 1,
                            [&](std::size_t, std::size_t, std::size_t) {
                              ++calls;
                              throw std::runtime_error("at once");
                            }),
               std::runtime_error);
  CHECK(calls.load() <= 2);
}

ANNX_TEST(parallel_for_works_again_after_an_exception) {
  for (int round = 0; round < 20; ++round) {
    CHECK_THROWS(parallel_for(8, 2, 1,
                              [](std::size_t, std::size_t, std::size_t) {
                                throw std::runtime_error("again");
                              }),
                 std::runtime_error);
    std::atomic<std::size_t> sum{0};
    parallel_for(100, 2, 7, [&](std::size_t begin, std::size_t end, std::size_t) {
      sum += end - begin;
    });
    CHECK_EQ(sum.load(), 100u);
  }
}

ANNX_TEST(parallel_for_nested_runs_in_line) {
  std::atomic<std::size_t> sum{0};
  std::atomic<bool> same_thread{true};
  parallel_for(10, 2, 1, [&](std::size_t, std::size_t, std::size_t) {
    const auto outer = std::this_thread::get_id();
    parallel_for(10, 2, 1, [&](std::size_t, std::size_t, std::size_t worker) {
      if (worker != 0 || std::this_thread::get_id() != outer) same_thread = false;
      ++sum;
    });
  });
  CHECK_EQ(sum.load(), 100u);
  CHECK(same_thread.load());
}

// Several threads of the caller may each run their own loop on the one pool.
ANNX_TEST(parallel_for_serves_concurrent_callers) {
  std::vector<std::thread> callers;
  std::vector<std::size_t> sums(4, 0);
  for (std::size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 50; ++round) {
        std::atomic<std::size_t> sum{0};
        parallel_for(64, 3, 1, [&](std::size_t begin, std::size_t end, std::size_t) {
          sum += end - begin;
        });
        sums[c] += sum.load();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::size_t sum : sums) CHECK_EQ(sum, 64u * 50u);
}

struct Recorder final : Monitor {
  void poll(std::size_t done, std::size_t total) override {
    ++polls;
    on_caller = on_caller && std::this_thread::get_id() == caller;
    monotonic = monotonic && done >= last && done <= total;
    last = done;
    if (throw_at != 0 && polls >= throw_at) throw std::domain_error("stop");
  }
  std::thread::id caller = std::this_thread::get_id();
  std::size_t polls = 0;
  std::size_t last = 0;
  std::size_t throw_at = 0;
  bool on_caller = true;
  bool monotonic = true;
};

void nap(std::size_t, std::size_t, std::size_t) {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

ANNX_TEST(parallel_for_polls_its_monitor_on_the_calling_thread) {
  for (const std::size_t threads : {1u, 2u}) {
    Recorder monitor;
    parallel_for(100, threads, 1, &nap, &monitor);
    CHECK(monitor.polls > 0);
    CHECK(monitor.on_caller);
    CHECK(monitor.monotonic);
  }
}

ANNX_TEST(parallel_for_stops_when_its_monitor_throws) {
  for (const std::size_t threads : {1u, 2u}) {
    Recorder monitor;
    monitor.throw_at = 1;
    std::atomic<std::size_t> calls{0};
    CHECK_THROWS(parallel_for(
                     100000, threads, 1,
                     [&](std::size_t, std::size_t, std::size_t) {
                       ++calls;
                       nap(0, 0, 0);
                     },
                     &monitor),
                 std::domain_error);
    CHECK(calls.load() < 100000);
  }
}

#if (defined(__unix__) || defined(__APPLE__)) && !defined(__SANITIZE_THREAD__)
// The child has none of the parent's threads; it starts its own.
ANNX_TEST(parallel_for_works_in_a_forked_child) {
  std::atomic<std::size_t> warm{0};
  parallel_for(10, 2, 1, [&](std::size_t, std::size_t, std::size_t) { ++warm; });
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    std::atomic<std::size_t> sum{0};
    parallel_for(1000, 3, 1, [&](std::size_t begin, std::size_t end, std::size_t) {
      sum += end - begin;
    });
    _exit(sum.load() == 1000 ? 0 : 1);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  parallel_for(10, 2, 1, [&](std::size_t, std::size_t, std::size_t) { ++warm; });
  CHECK_EQ(warm.load(), 20u);
}

// A fork from inside a range: the child's only thread is that range's.
ANNX_TEST(parallel_for_works_in_a_child_forked_within) {
  std::atomic<bool> fine{true};
  parallel_for(2, 2, 1, [&](std::size_t begin, std::size_t, std::size_t) {
    if (begin != 0) return;
    const pid_t child = fork();
    if (child == 0) {
      std::atomic<std::size_t> sum{0};
      parallel_for(100, 2, 1,
                   [&](std::size_t a, std::size_t b, std::size_t) { sum += b - a; });
      _exit(sum.load() == 100 ? 0 : 1);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fine = false;
  });
  CHECK(fine.load());
}
#endif

ANNX_TEST(threads_resolve_to_at_least_one) {
  CHECK(hardware_threads() >= 1);
  CHECK_EQ(resolve_threads(0), hardware_threads());
  CHECK_EQ(resolve_threads(3), 3u);
}

ANNX_TEST(random_is_a_function_of_seed_stream_and_index) {
  const Random a(7, 3);
  const Random b(7, 3);
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    CHECK_EQ(a.bits(i), b.bits(i));
    seen.insert(a.bits(i));
    seen.insert(Random(7, 4).bits(i));
    seen.insert(Random(8, 3).bits(i));
  }
  CHECK_EQ(seen.size(), 3000u);
}

ANNX_TEST(random_stays_within_its_ranges) {
  const Random random(1);
  double sum = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double u = random.unit(i);
    CHECK(u >= 0.0 && u < 1.0);
    sum += u;
    for (const std::uint64_t n : {1u, 2u, 7u, 1000u}) CHECK(random.below(i, n) < n);
  }
  // The mean of 20,000 such draws has a standard deviation of 0.002.
  CHECK(sum / 20000 > 0.49 && sum / 20000 < 0.51);
}

ANNX_TEST(names_go_both_ways) {
  for (const char* name : {"l2", "ip", "cosine", "l1", "hamming", "jaccard"}) {
    CHECK_EQ(name_of(parse_metric(name)), name);
  }
  for (const char* name : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}) {
    CHECK_EQ(name_of(parse_dtype(name)), name);
  }
  CHECK_THROWS(parse_metric("L2"), InvalidArgument);
  CHECK_THROWS(parse_dtype(""), InvalidArgument);
}

ANNX_TEST(row_bytes_of_each_type) {
  CHECK_EQ(row_bytes(DType::kFloat32, 5), 20u);
  CHECK_EQ(row_bytes(DType::kFloat16, 5), 10u);
  CHECK_EQ(row_bytes(DType::kBFloat16, 5), 10u);
  CHECK_EQ(row_bytes(DType::kInt8, 5), 5u);
  CHECK_EQ(row_bytes(DType::kUInt8, 5), 5u);
  CHECK_EQ(row_bytes(DType::kBits, 8), 1u);
  CHECK_EQ(row_bytes(DType::kBits, 9), 2u);
}

}  // namespace
}  // namespace annx
