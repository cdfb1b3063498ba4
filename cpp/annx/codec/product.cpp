// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/codec/centroid_blocks.h"
#include "annx/codec/kmeans.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

// Streams of random numbers: the sample, and the seeds of the segments.
constexpr std::uint64_t kSampleStream = 0;
constexpr std::uint64_t kSeedStream = 1;
// So many rows are coded together, in strips of so many dimensions (or one segment, if
// it is longer): a strip of panels stays in the second-level cache.
constexpr std::size_t kEncodeRows = 256;
constexpr std::size_t kStripDims = 64;

std::string of(std::size_t n) { return std::to_string(n); }

// Passes the progress of one segment's training on as a part of the whole.
class Segments final : public Monitor {
 public:
  Segments(Monitor* to, std::size_t count) : to_(to), count_(count) {}
  void next() { ++segment_; }
  void poll(std::size_t done, std::size_t total) override {
    if (to_ != nullptr) to_->poll(segment_ * total + done, count_ * total);
  }

 private:
  Monitor* to_;
  std::size_t count_;
  std::size_t segment_ = 0;
};

float finish_cosine(float term, float square) {
  return square > 0.0f ? 1.0f + term / std::sqrt(square) : 1.0f;
}

std::size_t code_at8(const std::uint8_t* code, std::size_t l) { return code[l]; }
std::size_t code_at4(const std::uint8_t* code, std::size_t l) {
  return l % 2 == 0 ? code[l / 2] & 15u : code[l / 2] >> 4;
}

}  // namespace

ProductQuantizer::ProductQuantizer(const ProductOptions& options) : options_(options) {
  if (options.dim == 0) throw InvalidArgument("dim is 0; it must be at least 1");
  if (options.n_segments == 0 || options.n_segments > options.dim) {
    throw InvalidArgument("n_segments is " + of(options.n_segments) +
                          "; it must be from 1 to dim, " + of(options.dim));
  }
  if (options.n_bits != 4 && options.n_bits != 8) {
    throw InvalidArgument("n_bits is " + of(options.n_bits) + "; it must be 4 or 8");
  }
  if (options.metric != Metric::kL2 && options.metric != Metric::kInnerProduct &&
      options.metric != Metric::kCosine) {
    throw InvalidArgument("metric is '" + std::string(name_of(options.metric)) +
                          "'; product quantization knows 'l2', 'ip' and 'cosine'");
  }
  if (options.sample_limit != 0 && options.sample_limit < n_centroids()) {
    throw InvalidArgument("sample_limit is " + of(options.sample_limit) +
                          "; it must be 0 or at least " + of(n_centroids()));
  }
  starts_.resize(options.n_segments + 1);
  for (std::size_t l = 0; l < options.n_segments; ++l) {
    starts_[l + 1] = starts_[l] + options.dim / options.n_segments +
                     (l < options.dim % options.n_segments ? 1 : 0);
  }
}
ProductQuantizer::ProductQuantizer(ProductQuantizer&&) noexcept = default;
ProductQuantizer& ProductQuantizer::operator=(ProductQuantizer&&) noexcept = default;
ProductQuantizer::~ProductQuantizer() = default;

void ProductQuantizer::require_trained() const {
  if (!trained()) {
    throw NotTrained("ProductQuantizer is not trained; call train() first");
  }
}

void ProductQuantizer::require_dim(MatrixView<float> rows, const char* argument) const {
  if (rows.cols != options_.dim) {
    throw InvalidArgument(std::string(argument) + " has " + of(rows.cols) +
                          " columns; it must have " + of(options_.dim));
  }
}

MatrixView<float> ProductQuantizer::codebook(std::size_t segment) const {
  const std::size_t length = starts_[segment + 1] - starts_[segment];
  return {codebooks_.data() + starts_[segment] * n_centroids(), n_centroids(), length,
          length};
}

std::size_t ProductQuantizer::memory_bytes() const {
  // The codebooks, and the same twice again packed for encoding.
  return codebooks_.held_bytes() + 2 * options_.dim * n_centroids() * sizeof(float);
}

void ProductQuantizer::prepare(storage::Array<float> codebooks) {
  codebooks_ = std::move(codebooks);
  blocks_.clear();
  squares_.assign(table_size(), 0.0f);
  const auto dots = kernels::active().float_rows[kernels::kOpDot][0];
  for (std::size_t l = 0; l < options_.n_segments; ++l) {
    const MatrixView<float> book = codebook(l);
    for (std::size_t c = 0; c < book.rows; ++c) {
      dots(book.row(c), reinterpret_cast<const std::byte*>(book.row(c)), 0, 1,
           book.cols, &squares_[l * n_centroids() + c]);
    }
    blocks_.push_back(std::make_unique<CentroidBlocks>(book));
  }
}

void ProductQuantizer::train(MatrixView<float> rows, std::size_t threads,
                             Monitor* monitor) {
  require_dim(rows, "vectors");
  const std::size_t k = n_centroids();
  if (rows.rows < k) {
    throw InvalidArgument("vectors has " + of(rows.rows) + " rows; training " +
                          of(options_.n_bits) + "-bit codes needs at least " + of(k));
  }
  check_rows(rows, "vectors");
  std::vector<float> copy;
  if (options_.sample_limit != 0 && options_.sample_limit < rows.rows) {
    auto drawn =
        draw_distinct(rows.rows, options_.sample_limit, options_.seed, kSampleStream);
    std::sort(drawn.begin(), drawn.end());
    copy.resize(drawn.size() * rows.cols);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      std::memcpy(copy.data() + i * rows.cols, rows.row(drawn[i]),
                  rows.cols * sizeof(float));
    }
    rows = {copy.data(), drawn.size(), rows.cols, rows.cols};
  }
  if (options_.metric == Metric::kCosine) {
    if (copy.empty()) copy.resize(rows.rows * rows.cols);
    normalize_rows(rows, copy.data(), threads);
    rows = {copy.data(), rows.rows, rows.cols, rows.cols};
  }
  const Random seeds(options_.seed, kSeedStream);
  Segments progress(monitor, options_.n_segments);
  storage::Array<float> codebooks(k * options_.dim);
  for (std::size_t l = 0; l < options_.n_segments; ++l) {
    const KMeansResult result = kmeans(
        {rows.data + starts_[l], rows.rows, starts_[l + 1] - starts_[l], rows.stride},
        {.n_clusters = k,
         .n_iterations = options_.n_iterations,
         .seed = seeds.bits(l),
         .threads = threads},
        &progress);
    std::copy_n(result.centroids.data(), result.centroids.size(),
                codebooks.mutable_data() + k * starts_[l]);
    progress.next();
  }
  prepare(std::move(codebooks));
}

// Segments are screened in strips: whole vector registers of elements are turned into
// lanes at a time, whatever the length of a segment.
void ProductQuantizer::encode_block(MatrixView<float> rows, std::uint8_t* codes) const {
  const auto& table = kernels::active();
  const std::size_t wide = table.tile.rows;
  const std::size_t bytes = code_bytes();
  const std::size_t panels = (rows.rows + wide - 1) / wide;
  std::vector<float> lanes, centre;
  std::vector<std::uint32_t> ids(panels * wide), doubtful;
  for (std::size_t l = 0; l < options_.n_segments;) {
    const std::size_t first = l;
    do {
      const auto mean = blocks_[l++]->mean();
      if (l == first + 1) centre.clear();
      centre.insert(centre.end(), mean.begin(), mean.end());
    } while (l < options_.n_segments && starts_[l + 1] - starts_[first] <= kStripDims);
    const std::size_t strip = centre.size();
    lanes.resize(panels * wide * strip);
    table.pack_lanes(rows.data + starts_[first], rows.stride, nullptr, rows.rows, strip,
                     centre.data(), lanes.data());
    for (std::size_t segment = first; segment < l; ++segment) {
      const CentroidBlocks& blocks = *blocks_[segment];
      const kernels::LaneScreen screen = blocks.screen();
      const float* from = lanes.data() + (starts_[segment] - starts_[first]) * wide;
      doubtful.clear();
      for (std::size_t at = 0; at < rows.rows; at += wide) {
        std::uint32_t doubt =
            table.nearest_lanes(from + at * strip, screen, ids.data() + at, nullptr);
        for (std::size_t i = at; doubt != 0; ++i, doubt >>= 1) {
          if ((doubt & 1u) != 0 && i < rows.rows) {
            doubtful.push_back(static_cast<std::uint32_t>(i));
          }
        }
      }
      blocks.look_again(
          {rows.data + starts_[segment], rows.rows, screen.dim, rows.stride}, doubtful,
          ids.data());
      if (options_.n_bits == 8) {
        std::uint8_t* out = codes + segment;
        for (std::size_t i = 0; i < rows.rows; ++i) {
          out[i * bytes] = static_cast<std::uint8_t>(ids[i]);
        }
        continue;
      }
      std::uint8_t* out = codes + segment / 2;
      if (segment % 2 == 0) {
        for (std::size_t i = 0; i < rows.rows; ++i) {
          out[i * bytes] = static_cast<std::uint8_t>(ids[i]);
        }
      } else {
        for (std::size_t i = 0; i < rows.rows; ++i) {
          out[i * bytes] = static_cast<std::uint8_t>(out[i * bytes] | ids[i] << 4);
        }
      }
    }
  }
}

void ProductQuantizer::encode(MatrixView<float> rows, std::uint8_t* codes,
                              std::size_t threads, Monitor* monitor) const {
  require_trained();
  require_dim(rows, "vectors");
  check_rows(rows, "vectors");
  const std::size_t bytes = code_bytes();
  const bool cosine = options_.metric == Metric::kCosine;
  parallel_for(
      rows.rows, resolve_threads(threads), kEncodeRows,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        const std::size_t count = end - begin;
        MatrixView<float> part{rows.row(begin), count, rows.cols, rows.stride};
        std::vector<float> unit;
        if (cosine) {
          unit.resize(count * rows.cols);
          normalize_rows(part, unit.data(), 1);
          part = {unit.data(), count, rows.cols, rows.cols};
        }
        encode_block(part, codes + begin * bytes);
      },
      monitor);
}

void ProductQuantizer::check_codes(const std::uint8_t* codes, std::size_t count) const {
  if (options_.n_bits == 8 || options_.n_segments % 2 == 0) return;
  const std::size_t bytes = code_bytes();
  for (std::size_t i = 0; i < count; ++i) {
    if (codes[(i + 1) * bytes - 1] < 16) continue;
    throw InvalidArgument("codes[" + of(i) + "] has bits set after its last segment");
  }
}

void ProductQuantizer::decode(const std::uint8_t* codes, std::size_t count, float* out,
                              std::size_t threads) const {
  require_trained();
  check_codes(codes, count);
  const std::size_t bytes = code_bytes();
  const auto at = options_.n_bits == 8 ? code_at8 : code_at4;
  parallel_for(count, resolve_threads(threads), 1024,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t l = 0; l < options_.n_segments; ++l) {
                   const MatrixView<float> book = codebook(l);
                   for (std::size_t i = begin; i < end; ++i) {
                     std::copy_n(book.row(at(codes + i * bytes, l)), book.cols,
                                 out + i * options_.dim + starts_[l]);
                   }
                 }
               });
}

void ProductQuantizer::symmetric_tables(float* tables) const {
  require_trained();
  const std::size_t k = n_centroids();
  const bool l2 = options_.metric == Metric::kL2;
  const auto op =
      kernels::active().float_rows[l2 ? kernels::kOpL2 : kernels::kOpDot][0];
  for (std::size_t l = 0; l < options_.n_segments; ++l) {
    const MatrixView<float> book = codebook(l);
    for (std::size_t a = 0; a < k; ++a) {
      float* row = tables + (l * k + a) * k;
      op(book.row(a), reinterpret_cast<const std::byte*>(book.data),
         book.stride * sizeof(float), k, book.cols, row);
      for (std::size_t b = 0; b < k && !l2; ++b) row[b] = -row[b];
    }
  }
}

void ProductQuantizer::asymmetric_tables(MatrixView<float> queries, float* tables,
                                         std::size_t threads) const {
  require_trained();
  require_dim(queries, "queries");
  const std::size_t k = n_centroids();
  const bool l2 = options_.metric == Metric::kL2;
  const auto op =
      kernels::active().float_rows[l2 ? kernels::kOpL2 : kernels::kOpDot][0];
  parallel_for(
      queries.rows, resolve_threads(threads), 4,
      [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<float> unit(queries.cols);
        for (std::size_t i = begin; i < end; ++i) {
          const float* query = queries.row(i);
          if (options_.metric == Metric::kCosine) {
            normalize_rows({query, 1, queries.cols, queries.cols}, unit.data(), 1);
            query = unit.data();
          }
          float* table = tables + i * table_size();
          for (std::size_t l = 0; l < options_.n_segments; ++l) {
            const MatrixView<float> book = codebook(l);
            op(query + starts_[l], reinterpret_cast<const std::byte*>(book.data),
               book.stride * sizeof(float), k, book.cols, table + l * k);
          }
          for (std::size_t j = 0; j < table_size() && !l2; ++j) {
            table[j] = -table[j];
          }
        }
      });
}

// out[i] = sum over segments, in order, of terms(l, code of segment l); four codes at a
// time, because one sum alone would wait for every addition.
template <class Terms>
void ProductQuantizer::sum_terms(const std::uint8_t* codes, std::size_t count,
                                 const Terms& terms, float* out) const {
  const std::size_t bytes = code_bytes();
  const std::size_t segments = options_.n_segments;
  const auto run = [&](const auto& at) {
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
      const std::uint8_t* code = codes + i * bytes;
      float sums[4] = {};
      for (std::size_t l = 0; l < segments; ++l) {
        for (std::size_t j = 0; j < 4; ++j)
          sums[j] += terms(l, at(code + j * bytes, l));
      }
      std::copy_n(sums, 4, out + i);
    }
    for (; i < count; ++i) {
      float sum = 0.0f;
      for (std::size_t l = 0; l < segments; ++l) {
        sum += terms(l, at(codes + i * bytes, l));
      }
      out[i] = sum;
    }
  };
  if (options_.n_bits == 8) {
    run([](const std::uint8_t* code, std::size_t l) { return code_at8(code, l); });
  } else {
    run([](const std::uint8_t* code, std::size_t l) { return code_at4(code, l); });
  }
}

void ProductQuantizer::scan(const float* table, const std::uint8_t* codes,
                            std::size_t count, float* out) const {
  const std::size_t k = n_centroids();
  sum_terms(
      codes, count, [&](std::size_t l, std::size_t c) { return table[l * k + c]; },
      out);
  if (options_.metric != Metric::kCosine) return;
  constexpr std::size_t kPart = 256;
  float squares[kPart];
  for (std::size_t begin = 0; begin < count; begin += kPart) {
    const std::size_t part = std::min(kPart, count - begin);
    sum_terms(
        codes + begin * code_bytes(), part,
        [&](std::size_t l, std::size_t c) { return squares_[l * k + c]; }, squares);
    for (std::size_t i = 0; i < part; ++i) {
      out[begin + i] = finish_cosine(out[begin + i], squares[i]);
    }
  }
}

void ProductQuantizer::asymmetric_distances(MatrixView<float> queries,
                                            const std::uint8_t* codes,
                                            std::size_t count, float* out,
                                            std::size_t threads) const {
  require_trained();
  require_dim(queries, "queries");
  check_rows(queries, "queries");
  check_codes(codes, count);
  parallel_for(queries.rows, resolve_threads(threads), 1,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 std::vector<float> table(table_size());
                 for (std::size_t i = begin; i < end; ++i) {
                   asymmetric_tables({queries.row(i), 1, queries.cols, queries.stride},
                                     table.data(), 1);
                   scan(table.data(), codes, count, out + i * count);
                 }
               });
}

void ProductQuantizer::symmetric_distances(const std::uint8_t* a, std::size_t a_count,
                                           const std::uint8_t* b, std::size_t b_count,
                                           float* out, std::size_t threads) const {
  require_trained();
  check_codes(a, a_count);
  check_codes(b, b_count);
  const std::size_t k = n_centroids();
  const std::size_t bytes = code_bytes();
  const auto at = options_.n_bits == 8 ? code_at8 : code_at4;
  std::vector<float> tables(table_size() * k);
  symmetric_tables(tables.data());
  parallel_for(a_count, resolve_threads(threads), 1,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 std::vector<float> table(table_size());
                 for (std::size_t i = begin; i < end; ++i) {
                   // The rows of the tables that code i chooses are an asymmetric
                   // table.
                   float square = 0.0f;
                   for (std::size_t l = 0; l < options_.n_segments; ++l) {
                     const std::size_t c = at(a + i * bytes, l);
                     std::copy_n(tables.data() + (l * k + c) * k, k,
                                 table.data() + l * k);
                     square += squares_[l * k + c];
                   }
                   if (options_.metric == Metric::kCosine && square > 0.0f) {
                     for (float& t : table) t /= std::sqrt(square);
                   }
                   scan(table.data(), b, b_count, out + i * b_count);
                 }
               });
}

void ProductQuantizer::save_to(storage::FileWriter& writer) const {
  writer.number("pq_trained", trained() ? 1 : 0);
  writer.number("pq_dim", options_.dim);
  writer.number("pq_segments", options_.n_segments);
  writer.number("pq_bits", options_.n_bits);
  writer.text("pq_metric", name_of(options_.metric));
  writer.number("pq_iterations", options_.n_iterations);
  writer.number("pq_sample_limit", options_.sample_limit);
  writer.number("pq_seed", options_.seed);
  if (trained()) writer.add("pq_codebooks", codebooks_.bytes());
}

ProductQuantizer ProductQuantizer::load_from(const storage::FileReader& reader) {
  constexpr std::uint64_t kMany = std::uint64_t{1} << 40;
  ProductOptions o;
  o.dim = reader.number("pq_dim", 1, std::uint64_t{1} << 24);
  o.n_segments = reader.number("pq_segments", 1, o.dim);
  o.n_bits = reader.number("pq_bits", 4, 8);
  o.n_iterations = reader.number("pq_iterations", 0, kMany);
  o.sample_limit = reader.number("pq_sample_limit", 0, kMany);
  o.seed = reader.number("pq_seed");
  try {
    o.metric = parse_metric(reader.text("pq_metric"));
    ProductQuantizer result(o);
    if (reader.number("pq_trained", 0, 1) == 0) return result;
    auto codebooks = reader.array<float>("pq_codebooks", o.dim * result.n_centroids());
    check_rows({codebooks.data(), result.n_centroids(), o.dim, o.dim}, "pq_codebooks");
    result.prepare(std::move(codebooks));
    return result;
  } catch (const InvalidArgument& e) {
    reader.fail("meta", e.what());
  }
}

}  // namespace annx::codec
