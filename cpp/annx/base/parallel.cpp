// SPDX-License-Identifier: Apache-2.0
#include "annx/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace annx {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(50);

thread_local bool inside_parallel = false;

// One parallel_for under way. Workers hold it by shared_ptr, so a worker that wakes
// late finds no range left and lets go.
struct Job {
  std::size_t n = 0;
  std::size_t grain = 1;
  const RangeFn* fn = nullptr;
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> done{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable idle;
  std::size_t running = 0;   // workers inside fn, guarded by mutex
  std::size_t tickets = 0;   // workers that may still join, guarded by mutex
  std::size_t joined = 0;    // worker numbers given out, guarded by mutex
  std::exception_ptr error;  // guarded by mutex

  bool step(std::size_t worker) {
    if (stop.load(std::memory_order_relaxed)) return false;
    const std::size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
    if (begin >= n) return false;
    const std::size_t end = std::min(n, begin + grain);
    (*fn)(begin, end, worker);
    done.fetch_add(end - begin, std::memory_order_relaxed);
    return true;
  }

  void fail() {
    const std::lock_guard lock(mutex);
    if (!error) error = std::current_exception();
    stop.store(true, std::memory_order_relaxed);
  }
};

class Pool {
 public:
  void submit(const std::shared_ptr<Job>& job, std::size_t helpers) {
    {
      const std::lock_guard lock(mutex_);
      while (threads_.size() < helpers) threads_.emplace_back([this] { work(); });
      jobs_.push_back(job);
    }
    wake_.notify_all();
  }

  void retire(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex_);
    std::erase(jobs_, job);
  }

 private:
  std::shared_ptr<Job> pick(std::size_t& worker) {
    for (const std::shared_ptr<Job>& job : jobs_) {
      const std::lock_guard lock(job->mutex);
      if (job->tickets == 0) continue;
      --job->tickets;
      ++job->running;
      worker = ++job->joined;
      return job;
    }
    return nullptr;
  }

  void work() {
    inside_parallel = true;
    std::unique_lock lock(mutex_);
    for (;;) {
      std::size_t worker = 0;
      std::shared_ptr<Job> job = pick(worker);
      if (!job) {
        wake_.wait(lock);
        continue;
      }
      lock.unlock();
      try {
        while (job->step(worker)) {
        }
      } catch (...) {
        job->fail();
      }
      {
        const std::lock_guard job_lock(job->mutex);
        --job->running;
      }
      job->idle.notify_all();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Job>> jobs_;
  std::vector<std::thread> threads_;
};

// Never destroyed: joining threads while the interpreter tears libraries down can hang.
// After a fork the child starts with a new, empty pool; the parent's threads do not
// exist there, and its pool object is left alone.
std::atomic<Pool*> the_pool{nullptr};
std::mutex pool_mutex;

Pool& pool() {
  if (Pool* existing = the_pool.load(std::memory_order_acquire)) return *existing;
  const std::lock_guard lock(pool_mutex);
  if (the_pool.load(std::memory_order_relaxed) == nullptr) {
#if !defined(_WIN32)
    static const int registered =
        pthread_atfork([] { pool_mutex.lock(); }, [] { pool_mutex.unlock(); },
                       [] {
                         the_pool.store(nullptr, std::memory_order_release);
                         inside_parallel = false;
                         pool_mutex.unlock();
                       });
    (void)registered;
#endif
    the_pool.store(new Pool(), std::memory_order_release);
  }
  return *the_pool.load(std::memory_order_relaxed);
}

// Runs ranges on the calling thread, polling the monitor between them.
void run_here(Job& job, Monitor* monitor) {
  auto last = Clock::now();
  while (job.step(0)) {
    if (monitor == nullptr) continue;
    const auto now = Clock::now();
    if (now - last < kPollInterval) continue;
    last = now;
    monitor->poll(job.done.load(std::memory_order_relaxed), job.n);
  }
}

}  // namespace

std::size_t hardware_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

std::size_t resolve_threads(std::size_t threads) {
  return threads == 0 ? hardware_threads() : threads;
}

void parallel_for(std::size_t n, std::size_t threads, std::size_t grain,
                  const RangeFn& fn, Monitor* monitor) {
  if (n == 0) return;
  grain = std::max<std::size_t>(grain, 1);
  const std::size_t ranges = (n + grain - 1) / grain;
  threads = std::min(std::max<std::size_t>(threads, 1), ranges);
  if (threads == 1 || inside_parallel) {
    Job job;
    job.n = n;
    job.grain = grain;
    job.fn = &fn;
    run_here(job, monitor);
    return;
  }
  auto job = std::make_shared<Job>();
  job->n = n;
  job->grain = grain;
  job->fn = &fn;
  job->tickets = threads - 1;
  pool().submit(job, threads - 1);
  inside_parallel = true;
  try {
    run_here(*job, monitor);
  } catch (...) {
    job->fail();
  }
  inside_parallel = false;
  pool().retire(job);
  std::unique_lock lock(job->mutex);
  job->tickets = 0;
  while (job->running != 0) {
    if (monitor == nullptr || job->error) {
      job->idle.wait(lock);
      continue;
    }
    job->idle.wait_for(lock, kPollInterval);
    if (job->running == 0) break;
    lock.unlock();
    try {
      monitor->poll(job->done.load(std::memory_order_relaxed), job->n);
    } catch (...) {
      job->fail();
    }
    lock.lock();
  }
  // Taken out of the job: a worker may be the last to let go of that, and an exception
  // that holds Python objects must not die on a thread of the pool.
  if (job->error) std::rethrow_exception(std::exchange(job->error, nullptr));
}

}  // namespace annx
