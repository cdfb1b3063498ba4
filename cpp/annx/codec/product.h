// SPDX-License-Identifier: Apache-2.0
// Product quantization: a vector is cut into L segments, and each is replaced by the
// nearest of K = 2^bits centroids of its own codebook, so that the whole codebook is
// C_1 x ... x C_L (Jegou, Douze and Schmid, "Product quantization for nearest neighbor
// search", 2011).
//
// Segments differ in length by one at most: the first d mod L of them have one more.
// Squared errors add up over segments, and so do squared distances:
//     symmetric   d(x, y)^2 ~ sum_l |c_l(x) - c_l(y)|^2         (both coded)
//     asymmetric  d(q, x)^2 ~ sum_l |q_l - c_l(x)|^2            (the query is not)
// Every term is a squared distance from a table; every table entry comes from the
// canonical kernel and terms are added in order of segments, so tables, codes and sums
// are the same on every instruction set. For "ip" the terms are -<q_l, c_l>. For
// "cosine" rows and queries are scaled to length 1 first, and a second table of |c_l|^2
// gives the length of the decoded vector: 1 - <q, x^> / (|q| |x^|).
//
// Codes: 8 bits, a byte a segment; 4 bits, two segments a byte, the first in the low
// half. Training O(n K d) an iteration, encoding O(K d) a vector, tables O(K d) a
// query, a distance O(L).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/base/types.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

class CentroidBlocks;

struct ProductOptions {
  std::size_t dim = 0;
  std::size_t n_segments = 0;
  std::size_t n_bits = 8;  // 4 or 8
  Metric metric = Metric::kL2;
  std::size_t n_iterations = 25;
  std::size_t sample_limit = 0;  // train on at most so many rows; 0: on all
  std::uint64_t seed = 0;
};

// Reading (encode, decode, tables, distances) is thread-safe; train() is not.
class ProductQuantizer {
 public:
  // Throws InvalidArgument.
  explicit ProductQuantizer(const ProductOptions& options);
  ProductQuantizer(ProductQuantizer&&) noexcept;
  ProductQuantizer& operator=(ProductQuantizer&&) noexcept;
  ~ProductQuantizer();

  const ProductOptions& options() const { return options_; }
  std::size_t n_centroids() const { return std::size_t{1} << options_.n_bits; }
  std::size_t code_bytes() const {
    return options_.n_bits == 8 ? options_.n_segments : (options_.n_segments + 1) / 2;
  }
  // Segment l holds the elements [starts()[l], starts()[l + 1]).
  const std::vector<std::size_t>& starts() const { return starts_; }
  bool trained() const { return !blocks_.empty(); }
  // [n_centroids][length of segment l].
  MatrixView<float> codebook(std::size_t segment) const;
  // Floats in a table: n_segments * n_centroids.
  std::size_t table_size() const { return options_.n_segments * n_centroids(); }
  std::size_t memory_bytes() const;

  // Throws InvalidArgument for fewer rows than centroids, another dimension, values
  // that are not finite; then nothing has changed.
  void train(MatrixView<float> rows, std::size_t threads, Monitor* monitor);

  void encode(MatrixView<float> rows, std::uint8_t* codes, std::size_t threads,
              Monitor* monitor) const;
  // Throws InvalidArgument where a code names no centroid (the unused half byte of an
  // odd number of 4-bit segments must be 0).
  void check_codes(const std::uint8_t* codes, std::size_t count) const;
  void decode(const std::uint8_t* codes, std::size_t count, float* out,
              std::size_t threads) const;

  // tables[l][a][b]: the term of centroids a and b of segment l.
  void symmetric_tables(float* tables) const;
  // tables[query][l][c]: the term of the query and centroid c of segment l.
  void asymmetric_tables(MatrixView<float> queries, float* tables,
                         std::size_t threads) const;

  // out[i][j]: distance of the decoded a_i and b_j, from symmetric tables.
  void symmetric_distances(const std::uint8_t* a, std::size_t a_count,
                           const std::uint8_t* b, std::size_t b_count, float* out,
                           std::size_t threads) const;
  // out[i][j]: distance of query i and the decoded code j.
  void asymmetric_distances(MatrixView<float> queries, const std::uint8_t* codes,
                            std::size_t count, float* out, std::size_t threads) const;
  // The same for `count` codes with one query's table.
  void scan(const float* table, const std::uint8_t* codes, std::size_t count,
            float* out) const;

  void save_to(storage::FileWriter& writer) const;
  static ProductQuantizer load_from(const storage::FileReader& reader);

 private:
  void require_trained() const;
  void require_dim(MatrixView<float> rows, const char* argument) const;
  void prepare(storage::Array<float> codebooks);
  void encode_block(MatrixView<float> rows, std::uint8_t* codes) const;
  template <class Terms>
  void sum_terms(const std::uint8_t* codes, std::size_t count, const Terms& terms,
                 float* out) const;

  ProductOptions options_;
  std::vector<std::size_t> starts_;
  storage::Array<float> codebooks_;  // segment after segment, [n_centroids][length]
  std::vector<float> squares_;       // [segment][centroid] |c|^2, for cosine
  std::vector<std::unique_ptr<CentroidBlocks>> blocks_;
};

}  // namespace annx::codec
