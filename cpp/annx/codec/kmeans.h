// SPDX-License-Identifier: Apache-2.0
// k-means: k centroids c that make sum_x min_c |x - c|^2 small (Lloyd, "Least squares
// quantization in PCM", 1982; k-means++ start: Arthur and Vassilvitskii, 2007;
// spherical: Dhillon and Modha, 2001).
//
// One iteration assigns every point to its nearest centroid (exactly, see
// centroid_blocks.h; ties to the lower id) and moves every centroid to the mean of its
// cell, summed in float64 in order of rows. Neither step can raise the objective beyond
// the rounding of a centroid to float32. A cell left empty takes over the point
// farthest from its own centroid, which lowers it further. The result depends on the
// data, the options and the seed alone: not on the number of threads, nor on the
// instruction set.
//
// Cost of one iteration: O(n k d) at worst, less as the centroids come to rest.
// Memory beside the rows: a copy of those trained on and at most 268 bytes each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

enum class KMeansStart : std::uint8_t {
  kRandom = 0,    // k distinct rows
  kPlusPlus = 1,  // each next row drawn in proportion to its squared distance
  kGiven = 2,     // KMeansOptions::start
};

struct KMeansOptions {
  std::size_t n_clusters = 0;
  std::size_t n_iterations = 25;
  std::size_t n_restarts = 1;    // the run with the lowest objective is kept
  std::size_t sample_limit = 0;  // train on at most so many rows; 0: on all
  KMeansStart start = KMeansStart::kRandom;
  MatrixView<float> centroids = {};  // for kGiven; borrowed during the call
  bool spherical = false;            // rows and centroids are scaled to length 1
  double tolerance = 0.0;  // stop once an iteration gains less than this share
  std::uint64_t seed = 0;
  std::size_t threads = 0;  // 0: all cores
};

struct KMeansResult {
  storage::Array<float> centroids;  // [n_clusters][dim]
  // Before the first movement of the centroids, and after each: the objective on the
  // rows trained on. The last is that of `centroids`.
  std::vector<double> objectives;
  std::size_t restart = 0;    // which run was kept
  std::size_t n_trained = 0;  // rows trained on
};

// Throws InvalidArgument where there are fewer rows than clusters, an option is out of
// range, or a row holds a value that is not finite or too large to square.
KMeansResult kmeans(MatrixView<float> rows, const KMeansOptions& options,
                    Monitor* monitor = nullptr);

class CentroidBlocks;

// Trained centroids, to assign with and to keep. Assigning is thread-safe.
class KMeans {
 public:
  // The options are checked by train(); their `centroids` are not kept.
  explicit KMeans(const KMeansOptions& options);
  KMeans(KMeans&&) noexcept;
  KMeans& operator=(KMeans&&) noexcept;
  ~KMeans();

  // Replaces what was learnt before; if it throws, nothing has changed. `start` is for
  // KMeansStart::kGiven and empty otherwise.
  void train(MatrixView<float> rows, MatrixView<float> start, std::size_t threads,
             Monitor* monitor);

  // Nearest centroid and squared distance to it, of each row; of the rows scaled to
  // length 1 where spherical. Throws NotTrained, InvalidArgument.
  void assign(MatrixView<float> rows, std::int64_t* ids, float* distances,
              std::size_t threads, Monitor* monitor) const;

  bool trained() const { return blocks_ != nullptr; }
  const KMeansOptions& options() const { return options_; }
  std::size_t dim() const { return dim_; }
  MatrixView<float> centroids() const;
  const std::vector<double>& objectives() const { return objectives_; }
  std::size_t restart() const { return restart_; }
  std::size_t n_trained() const { return n_trained_; }

  void save_to(storage::FileWriter& writer) const;
  static KMeans load_from(const storage::FileReader& reader);

 private:
  KMeansOptions options_;
  std::size_t dim_ = 0;
  storage::Array<float> centroids_;
  std::vector<double> objectives_;
  std::size_t restart_ = 0;
  std::size_t n_trained_ = 0;
  std::unique_ptr<CentroidBlocks> blocks_;
};

// One movement of the centroids: out[c] = mean of the rows with cell[i] == c, or
// centroids[c] where there is none. For tests of single steps, and used by kmeans().
void move_centroids(MatrixView<float> rows, const std::uint32_t* cell,
                    MatrixView<float> centroids, bool spherical, std::size_t threads,
                    float* out);

// Throws InvalidArgument naming the first row that is not finite or whose squared
// length could overflow in a distance.
void check_rows(MatrixView<float> rows, const char* argument);

// Rows scaled to length 1 (zero rows stay): `out` may be the rows themselves.
void normalize_rows(MatrixView<float> rows, float* out, std::size_t threads);

// `count` of the numbers [0, n), distinct, in the order drawn: the first steps of a
// Fisher-Yates shuffle with Random(seed, stream).
std::vector<std::uint32_t> draw_distinct(std::size_t n, std::size_t count,
                                         std::uint64_t seed, std::uint64_t stream);

}  // namespace annx::codec
