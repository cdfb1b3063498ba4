// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/kmeans.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/base/types.h"
#include "annx/codec/centroid_blocks.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Sums over all rows are taken in parts of this many, the parts in order, so that they
// do not depend on the number of threads.
constexpr std::size_t kPart = 4096;
// Streams of random numbers: the sample, then two for every restart.
constexpr std::uint64_t kSampleStream = 0;
constexpr std::uint64_t kRestartStream = 1;

// Counts the iterations of all restarts as one long task.
class Steps final : public Monitor {
  using Clock = std::chrono::steady_clock;

 public:
  Steps(Monitor* to, std::size_t total) : to_(to), total_(total) {}
  void poll(std::size_t done, std::size_t) override {
    last_ = Clock::now();
    if (to_ != nullptr) to_->poll(std::min(total_, before_ + done), total_);
  }
  // Loops shorter than the interval of parallel_for do not poll by themselves.
  void finish(std::size_t step) {
    before_ += step;
    if (Clock::now() - last_ >= std::chrono::milliseconds(50)) poll(0, 0);
  }
  void skip_to(std::size_t done) { before_ = done; }

 private:
  Monitor* to_;
  std::size_t total_;
  std::size_t before_ = 0;
  Clock::time_point last_ = Clock::now();
};

double sum_of(const std::vector<float>& values) {
  double total = 0.0;
  for (std::size_t begin = 0; begin < values.size(); begin += kPart) {
    double part = 0.0;
    const std::size_t end = std::min(values.size(), begin + kPart);
    for (std::size_t i = begin; i < end; ++i) part += values[i];
    total += part;
  }
  return total;
}

void copy_row(MatrixView<float> rows, std::size_t from, float* centroids,
              std::size_t to) {
  std::memcpy(centroids + to * rows.cols, rows.row(from), rows.cols * sizeof(float));
}

void start_random(MatrixView<float> rows, std::size_t k, std::uint64_t seed,
                  std::uint64_t stream, float* centroids) {
  const auto drawn = draw_distinct(rows.rows, k, seed, stream);
  for (std::size_t c = 0; c < k; ++c) copy_row(rows, drawn[c], centroids, c);
}

void start_plus_plus(MatrixView<float> rows, std::size_t k, std::uint64_t seed,
                     std::uint64_t stream, std::size_t threads, float* centroids,
                     Steps& steps) {
  const auto distances = kernels::active().float_rows[kernels::kOpL2][0];
  const Random random(seed, stream);
  const std::size_t n = rows.rows;
  const std::size_t parts = (n + kPart - 1) / kPart;
  std::vector<float> least(n, std::numeric_limits<float>::infinity());
  std::vector<double> part_sum(parts);
  std::vector<char> taken(n);
  std::size_t chosen = random.below(0, n);
  for (std::size_t c = 0;; ++c) {
    copy_row(rows, chosen, centroids, c);
    taken[chosen] = 1;
    if (c + 1 == k) return;
    const float* center = centroids + c * rows.cols;
    parallel_for(
        n, threads, kPart,
        [&](std::size_t begin, std::size_t end, std::size_t) {
          float fresh[64];
          double part = 0.0;
          for (std::size_t i = begin; i < end; i += 64) {
            const std::size_t count = std::min<std::size_t>(64, end - i);
            distances(center, reinterpret_cast<const std::byte*>(rows.row(i)),
                      rows.stride * sizeof(float), count, rows.cols, fresh);
            for (std::size_t j = 0; j < count; ++j) {
              least[i + j] = std::min(least[i + j], fresh[j]);
              part += least[i + j];
            }
          }
          part_sum[begin / kPart] = part;
        },
        &steps);
    steps.finish(0);
    const double total = std::accumulate(part_sum.begin(), part_sum.end(), 0.0);
    if (!(total > 0.0)) {
      // Every row equals a centroid already: any row not yet taken does.
      chosen = static_cast<std::size_t>(std::find(taken.begin(), taken.end(), 0) -
                                        taken.begin());
      continue;
    }
    const double target = random.unit(c + 1) * total;
    double before = 0.0;
    std::size_t part = 0;
    while (part + 1 < parts && before + part_sum[part] <= target) {
      before += part_sum[part++];
    }
    // Rounding may leave the target beyond the last weight: then the last row with any.
    chosen = n;
    double within = 0.0;
    const std::size_t end = std::min(n, (part + 1) * kPart);
    for (std::size_t i = part * kPart; i < end; ++i) {
      if (!(least[i] > 0.0f)) continue;
      chosen = i;
      within += least[i];
      if (before + within > target) break;
    }
    if (chosen == n) {
      for (std::size_t i = 0; i < n; ++i) {
        if (least[i] > 0.0f) chosen = i;
      }
    }
  }
}

// Gives every empty cell the point farthest from its own centroid, from cells of two
// points and more; by distance, then row. Returns the positions moved.
std::vector<std::uint32_t> fill_empty(Cells& cells, std::size_t k) {
  std::vector<std::size_t> count(k);
  for (const std::uint32_t c : cells.cell) ++count[c];
  std::vector<std::uint32_t> moved;
  if (std::find(count.begin(), count.end(), 0u) == count.end()) return moved;
  std::vector<std::uint32_t> heap(cells.cell.size());
  std::iota(heap.begin(), heap.end(), 0u);
  const auto nearer = [&](std::uint32_t a, std::uint32_t b) {
    return cells.distance[a] < cells.distance[b] ||
           (cells.distance[a] == cells.distance[b] && cells.order[a] > cells.order[b]);
  };
  std::make_heap(heap.begin(), heap.end(), nearer);
  for (std::size_t c = 0; c < k; ++c) {
    while (count[c] == 0) {
      if (heap.empty()) return moved;
      std::pop_heap(heap.begin(), heap.end(), nearer);
      const std::uint32_t p = heap.back();
      heap.pop_back();
      // Fewer distinct points than centroids: the rest stay where they are.
      if (!(cells.distance[p] > 0.0f)) return moved;
      if (count[cells.cell[p]] < 2) continue;
      --count[cells.cell[p]];
      count[c] = 1;
      cells.cell[p] = static_cast<std::uint32_t>(c);
      moved.push_back(p);
    }
  }
  return moved;
}

// The sum and the number of the rows in every cell, in float64.
class CellSums {
 public:
  CellSums(std::size_t k, std::size_t dim) : dim_(dim), sum_(k * dim), count_(k) {}

  // Afresh, each cell's rows in order.
  void take(MatrixView<float> rows, const std::uint32_t* cell, std::size_t threads) {
    const std::size_t k = count_.size();
    if (threads == 1) {
      // The same additions in the same order, cell by cell, without the lists.
      std::fill(sum_.begin(), sum_.end(), 0.0);
      std::fill(count_.begin(), count_.end(), 0);
      for (std::size_t i = 0; i < rows.rows; ++i) {
        add(cell[i], rows.row(i), 1.0);
        ++count_[cell[i]];
      }
      return;
    }
    std::vector<std::size_t> start(k + 1);
    for (std::size_t i = 0; i < rows.rows; ++i) ++start[cell[i] + 1];
    std::partial_sum(start.begin(), start.end(), start.begin());
    std::vector<std::uint32_t> members(rows.rows);
    std::vector<std::size_t> next(start.begin(), start.end() - 1);
    for (std::size_t i = 0; i < rows.rows; ++i) {
      members[next[cell[i]]++] = static_cast<std::uint32_t>(i);
    }
    parallel_for(k, threads, 4, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t c = begin; c < end; ++c) {
        double* sum = sum_.data() + c * dim_;
        std::fill_n(sum, dim_, 0.0);
        count_[c] = start[c + 1] - start[c];
        for (std::size_t m = start[c]; m < start[c + 1]; ++m) {
          add(c, rows.row(members[m]), 1.0);
        }
      }
    });
  }

  // One row leaves a cell for another.
  void shift(const float* row, std::uint32_t from, std::uint32_t to) {
    add(from, row, -1.0);
    add(to, row, 1.0);
    --count_[from];
    ++count_[to];
  }

  // The mean of every cell (spherical: its direction), or `old` where there is none.
  void means(const float* old, bool spherical, float* out) const {
    for (std::size_t c = 0; c < count_.size(); ++c) {
      const double* sum = sum_.data() + c * dim_;
      auto divisor = static_cast<double>(count_[c]);
      if (spherical) {
        double square = 0.0;
        for (std::size_t j = 0; j < dim_; ++j) square += sum[j] * sum[j];
        divisor = count_[c] == 0 ? 0.0 : std::sqrt(square);
      }
      for (std::size_t j = 0; j < dim_; ++j) {
        out[c * dim_ + j] = count_[c] != 0 && divisor > 0.0
                                ? static_cast<float>(sum[j] / divisor)
                                : old[c * dim_ + j];
      }
    }
  }

 private:
  void add(std::size_t c, const float* row, double sign) {
    double* sum = sum_.data() + c * dim_;
    for (std::size_t j = 0; j < dim_; ++j) sum[j] += sign * row[j];
  }

  std::size_t dim_;
  std::vector<double> sum_;
  std::vector<std::size_t> count_;
};

struct Run {
  storage::Array<float> centroids;
  std::vector<double> objectives;
};

// Sorting the points pays as long as many of them still change their cells.
bool worth_sorting(std::size_t iteration) {
  return iteration < 3 || (iteration & (iteration - 1)) == 0;
}

Run lloyd(MatrixView<float> rows, const KMeansOptions& options, std::size_t restart,
          Steps& steps) {
  const std::size_t k = options.n_clusters;
  const std::size_t dim = rows.cols;
  const std::uint64_t stream = kRestartStream + restart;
  Run run;
  run.centroids.resize(k * dim);
  float* centroids = run.centroids.mutable_data();
  const MatrixView<float> view{centroids, k, dim, dim};
  switch (options.start) {
    case KMeansStart::kRandom:
      start_random(rows, k, options.seed, stream, centroids);
      break;
    case KMeansStart::kPlusPlus:
      start_plus_plus(rows, k, options.seed, stream, options.threads, centroids, steps);
      break;
    case KMeansStart::kGiven:
      for (std::size_t c = 0; c < k; ++c) copy_row(options.centroids, c, centroids, c);
      if (options.spherical) normalize_rows(view, centroids, options.threads);
      break;
  }
  if (options.spherical) {
    // A zero vector has no direction. As a centroid it would draw vectors that lie
    // opposite each other, and the objective could rise once it moved: any direction
    // is a better start, so it takes the first axis.
    for (std::size_t c = 0; c < k; ++c) {
      float* centroid = centroids + c * dim;
      if (std::all_of(centroid, centroid + dim, [](float x) { return x == 0; })) {
        centroid[0] = 1.0f;
      }
    }
  }
  CentroidBlocks blocks(view);
  Cells cells(rows);
  CellSums sums(k, dim);
  std::vector<std::uint32_t> summed;  // [position] the cell that the sums hold it in
  std::vector<double> moves(k);
  std::vector<float> next(k * dim);
  for (std::size_t iteration = 0;; ++iteration) {
    std::size_t changed = blocks.improve(cells, moves, options.threads, &steps);
    steps.finish(rows.rows);
    run.objectives.push_back(sum_of(cells.distance));
    if (iteration == options.n_iterations) break;
    const auto filled = fill_empty(cells, k);
    if (!filled.empty()) blocks.forget(cells, filled);
    changed += filled.size();
    if (changed == 0) break;
    if (iteration != 0 && options.tolerance > 0.0) {
      const double before = run.objectives[iteration - 1];
      if (before - run.objectives[iteration] <= options.tolerance * before) break;
    }
    if (changed > rows.rows / 8) {
      sums.take({cells.row(0), rows.rows, dim, dim}, cells.cell.data(),
                options.threads);
    } else {
      for (std::size_t p = 0; p < rows.rows; ++p) {
        if (summed[p] == cells.cell[p]) continue;
        sums.shift(cells.row(p), summed[p], cells.cell[p]);
      }
    }
    sums.means(centroids, options.spherical, next.data());
    for (std::size_t c = 0; c < k; ++c) {
      double square = 0.0;
      for (std::size_t j = 0; j < dim; ++j) {
        const double d =
            static_cast<double>(next[c * dim + j]) - centroids[c * dim + j];
        square += d * d;
      }
      moves[c] = std::sqrt(square);
    }
    std::copy(next.begin(), next.end(), centroids);
    blocks.repack();
    if (worth_sorting(iteration)) blocks.sort(cells);
    summed = cells.cell;
  }
  return run;
}

void check_options(MatrixView<float> rows, const KMeansOptions& o) {
  if (o.n_clusters == 0)
    throw InvalidArgument("n_clusters is 0; it must be at least 1");
  if (o.n_restarts == 0)
    throw InvalidArgument("n_restarts is 0; it must be at least 1");
  if (!(o.tolerance >= 0.0)) {
    throw InvalidArgument("tolerance is " + std::to_string(o.tolerance) +
                          "; it must be at least 0");
  }
  if (rows.cols == 0)
    throw InvalidArgument("vectors have dimension 0; need at least 1");
  if (rows.rows >= kNoSlot) {
    throw InvalidArgument("vectors has " + std::to_string(rows.rows) +
                          " rows; at most 2^32 - 2 can be trained on at once");
  }
  if (rows.rows < o.n_clusters) {
    throw InvalidArgument("vectors has " + std::to_string(rows.rows) +
                          " rows; n_clusters is " + std::to_string(o.n_clusters) +
                          " and needs at least as many");
  }
  if (o.sample_limit != 0 && o.sample_limit < o.n_clusters) {
    throw InvalidArgument("sample_limit is " + std::to_string(o.sample_limit) +
                          "; it must be 0 or at least n_clusters, " +
                          std::to_string(o.n_clusters));
  }
  if (o.start == KMeansStart::kGiven) {
    if (o.centroids.rows != o.n_clusters || o.centroids.cols != rows.cols) {
      throw InvalidArgument(
          "the starting centroids have shape (" + std::to_string(o.centroids.rows) +
          ", " + std::to_string(o.centroids.cols) + "); they must have (" +
          std::to_string(o.n_clusters) + ", " + std::to_string(rows.cols) + ")");
    }
    check_rows(o.centroids, "start");
  }
  check_rows(rows, "vectors");
}

}  // namespace

void check_rows(MatrixView<float> rows, const char* argument) {
  // A distance is at most (2 max |x|)^2, and scores stay below twice that.
  constexpr float kMost = std::numeric_limits<float>::max() / 16.0f;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const float* row = rows.row(i);
    float sums[8] = {};
    std::size_t j = 0;
    for (; j + 8 <= rows.cols; j += 8) {
      for (std::size_t l = 0; l < 8; ++l) sums[l] += row[j + l] * row[j + l];
    }
    for (; j < rows.cols; ++j) sums[0] += row[j] * row[j];
    float square = 0.0f;
    for (const float s : sums) square += s;
    if (square < kMost) continue;
    for (j = 0; j < rows.cols; ++j) {
      if (std::isfinite(row[j])) continue;
      throw InvalidArgument(std::string(argument) + "[" + std::to_string(i) + ", " +
                            std::to_string(j) + "] is " + std::to_string(row[j]) +
                            "; every value must be finite");
    }
    throw InvalidArgument(std::string(argument) + "[" + std::to_string(i) +
                          "] is too long: its squared length overflows float32");
  }
}

void normalize_rows(MatrixView<float> rows, float* out, std::size_t threads) {
  parallel_for(rows.rows, resolve_threads(threads), 256,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) {
                   const float* row = rows.row(i);
                   double square = 0.0;
                   for (std::size_t j = 0; j < rows.cols; ++j) {
                     square += static_cast<double>(row[j]) * row[j];
                   }
                   const double scale = square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
                   for (std::size_t j = 0; j < rows.cols; ++j) {
                     out[i * rows.cols + j] = static_cast<float>(row[j] * scale);
                   }
                 }
               });
}

std::vector<std::uint32_t> draw_distinct(std::size_t n, std::size_t count,
                                         std::uint64_t seed, std::uint64_t stream) {
  const Random random(seed, stream);
  std::vector<std::uint32_t> all(n);
  std::iota(all.begin(), all.end(), 0u);
  for (std::size_t i = 0; i < count; ++i) {
    std::swap(all[i], all[i + random.below(i, n - i)]);
  }
  all.resize(count);
  return all;
}

void move_centroids(MatrixView<float> rows, const std::uint32_t* cell,
                    MatrixView<float> centroids, bool spherical, std::size_t threads,
                    float* out) {
  CellSums sums(centroids.rows, rows.cols);
  sums.take(rows, cell, resolve_threads(threads));
  sums.means(centroids.data, spherical, out);
}

KMeansResult kmeans(MatrixView<float> rows, const KMeansOptions& options,
                    Monitor* monitor) {
  check_options(rows, options);
  KMeansOptions resolved = options;
  resolved.threads = resolve_threads(options.threads);
  const std::size_t dim = rows.cols;
  std::vector<float> copy;
  if (options.sample_limit != 0 && options.sample_limit < rows.rows) {
    auto drawn =
        draw_distinct(rows.rows, options.sample_limit, options.seed, kSampleStream);
    std::sort(drawn.begin(), drawn.end());
    copy.resize(drawn.size() * dim);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      copy_row(rows, drawn[i], copy.data(), i);
    }
    rows = {copy.data(), drawn.size(), dim, dim};
  }
  if (options.spherical) {
    if (copy.empty()) copy.resize(rows.rows * dim);
    normalize_rows(rows, copy.data(), resolved.threads);
    rows = {copy.data(), rows.rows, dim, dim};
  }
  // One unit of progress is one row of one iteration.
  const std::size_t run_steps = rows.rows * (options.n_iterations + 1);
  Steps steps(monitor, run_steps * options.n_restarts);
  KMeansResult result;
  result.n_trained = rows.rows;
  for (std::size_t restart = 0; restart < options.n_restarts; ++restart) {
    Run run = lloyd(rows, resolved, restart, steps);
    steps.skip_to(run_steps * (restart + 1));
    if (restart == 0 || run.objectives.back() < result.objectives.back()) {
      result.centroids = std::move(run.centroids);
      result.objectives = std::move(run.objectives);
      result.restart = restart;
    }
  }
  return result;
}

KMeans::KMeans(const KMeansOptions& options) : options_(options) {
  options_.centroids = {};
}
KMeans::KMeans(KMeans&&) noexcept = default;
KMeans& KMeans::operator=(KMeans&&) noexcept = default;
KMeans::~KMeans() = default;

void KMeans::train(MatrixView<float> rows, MatrixView<float> start, std::size_t threads,
                   Monitor* monitor) {
  KMeansOptions options = options_;
  options.centroids = start;
  options.threads = threads;
  KMeansResult result = kmeans(rows, options, monitor);
  auto blocks = std::make_unique<CentroidBlocks>(MatrixView<float>{
      result.centroids.data(), options.n_clusters, rows.cols, rows.cols});
  dim_ = rows.cols;
  centroids_ = std::move(result.centroids);
  objectives_ = std::move(result.objectives);
  restart_ = result.restart;
  n_trained_ = result.n_trained;
  blocks_ = std::move(blocks);
}

MatrixView<float> KMeans::centroids() const {
  if (!trained()) throw NotTrained("KMeans is not trained; call train() first");
  return {centroids_.data(), options_.n_clusters, dim_, dim_};
}

void KMeans::assign(MatrixView<float> rows, std::int64_t* ids, float* distances,
                    std::size_t threads, Monitor* monitor) const {
  const MatrixView<float> known = centroids();
  if (rows.cols != known.cols) {
    throw InvalidArgument("vectors has " + std::to_string(rows.cols) +
                          " columns; it must have " + std::to_string(known.cols));
  }
  check_rows(rows, "vectors");
  std::vector<float> copy;
  if (options_.spherical) {
    copy.resize(rows.rows * rows.cols);
    normalize_rows(rows, copy.data(), threads);
    rows = {copy.data(), rows.rows, rows.cols, rows.cols};
  }
  std::vector<std::uint32_t> cells(rows.rows);
  blocks_->nearest(rows, cells.data(), distances, threads, monitor);
  std::copy(cells.begin(), cells.end(), ids);
}

void KMeans::save_to(storage::FileWriter& writer) const {
  writer.number("trained", trained() ? 1 : 0);
  writer.number("n_clusters", options_.n_clusters);
  writer.number("n_iterations", options_.n_iterations);
  writer.number("n_restarts", options_.n_restarts);
  writer.number("sample_limit", options_.sample_limit);
  writer.number("start", static_cast<std::uint64_t>(options_.start));
  writer.number("spherical", options_.spherical ? 1 : 0);
  writer.real("tolerance", options_.tolerance);
  writer.number("seed", options_.seed);
  if (!trained()) return;
  writer.number("dim", dim_);
  writer.number("restart", restart_);
  writer.number("n_trained", n_trained_);
  writer.number("n_objectives", objectives_.size());
  writer.add("centroids", centroids_.bytes());
  writer.add("objectives", std::as_bytes(std::span(objectives_)));
}

KMeans KMeans::load_from(const storage::FileReader& reader) {
  constexpr std::uint64_t kMany = std::uint64_t{1} << 40;
  KMeansOptions o;
  o.n_clusters = reader.number("n_clusters", 1, kNoSlot - 1);
  o.n_iterations = reader.number("n_iterations", 0, kMany);
  o.n_restarts = reader.number("n_restarts", 1, kMany);
  o.sample_limit = reader.number("sample_limit", 0, kMany);
  o.start = static_cast<KMeansStart>(reader.number("start", 0, 2));
  o.spherical = reader.number("spherical", 0, 1) != 0;
  o.tolerance = reader.real("tolerance", 0.0, std::numeric_limits<double>::max());
  o.seed = reader.number("seed");
  KMeans result(o);
  if (reader.number("trained", 0, 1) == 0) return result;
  result.dim_ = reader.number("dim", 1, std::uint64_t{1} << 24);
  result.restart_ = reader.number("restart", 0, o.n_restarts - 1);
  result.n_trained_ = reader.number("n_trained", o.n_clusters, kNoSlot);
  const auto n_objectives = reader.number("n_objectives", 1, o.n_iterations + 1);
  const auto objectives = reader.array<double>("objectives", n_objectives);
  result.objectives_.assign(objectives.data(), objectives.data() + objectives.size());
  result.centroids_ = reader.array<float>("centroids", o.n_clusters * result.dim_);
  const MatrixView<float> view{result.centroids_.data(), o.n_clusters, result.dim_,
                               result.dim_};
  // Scores are sums of products: a centroid that is not a number would win nothing and
  // lose nothing, so damage that slipped past the checksums is refused here.
  try {
    check_rows(view, "centroids");
  } catch (const InvalidArgument& e) {
    reader.fail("centroids", e.what());
  }
  result.blocks_ = std::make_unique<CentroidBlocks>(view);
  return result;
}

}  // namespace annx::codec
