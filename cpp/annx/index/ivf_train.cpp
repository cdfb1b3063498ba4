// SPDX-License-Identifier: Apache-2.0
// Training of IvfIndex, and how rows come into lists.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "annx/base/error.h"
#include "annx/base/groups.h"
#include "annx/index/ivf_scratch.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"

namespace annx::index {
namespace {

using codec::PieceCodec;
using storage::CodeLists;

// Bytes of float32 rows made at a time where rows have to be converted.
constexpr std::size_t kPortionBytes = std::size_t{16} << 20;
// Rows whose residuals train the codes.
constexpr std::size_t kCodeSample = 16384;

// 2 sqrt(rows), unless lists would have fewer than 39 rows: blocks of 32 would be
// mostly empty.
std::size_t lists_for(std::size_t rows) {
  const double root = std::sqrt(static_cast<double>(rows));
  const auto wanted = static_cast<std::size_t>(std::lround(2 * root));
  return std::max<std::size_t>(1, std::min(wanted, rows / 39));
}

}  // namespace

void IvfIndex::train(RowsView rows, std::size_t threads, Monitor* monitor) {
  storage::check_rows(options_.dtype, rows, options_.dim, "vectors");
  const std::size_t dim = options_.dim;
  const std::size_t lists =
      options_.n_lists == 0 ? lists_for(rows.rows) : options_.n_lists;
  const bool bytes = options_.codec == IvfCodec::kBytes;
  const std::size_t levels = flat() ? 1 : bytes ? 256 : 16;
  const std::size_t least = std::max(lists, levels);
  if (rows.rows < least) {
    const std::string codes = flat()  ? ""
                              : bytes ? " of 8-bit codes"
                                      : " of 4-bit codes";
    throw InvalidArgument("vectors has " + std::to_string(rows.rows) +
                          " rows; training " + std::to_string(lists) + " lists" +
                          codes + " needs at least " + std::to_string(least));
  }
  // The sample, as float32.
  std::size_t count = rows.rows;
  std::vector<std::uint32_t> drawn;
  if (options_.sample_limit != 0 && options_.sample_limit * lists < count) {
    count = options_.sample_limit * lists;
    drawn = codec::draw_distinct(rows.rows, count, options_.seed, 0);
    std::sort(drawn.begin(), drawn.end());
  }
  std::vector<float> sample(count * dim);
  parallel_for(count, resolve_threads(threads), 1024,
               [&](std::size_t begin, std::size_t end, std::size_t) {
                 for (std::size_t i = begin; i < end; ++i) {
                   widen(rows.row(drawn.empty() ? i : drawn[i]), options_.dtype,
                         sample.data() + i * dim);
                 }
               });
  std::vector<float> mean(dim);
  if (options_.metric != Metric::kInnerProduct) {
    std::vector<double> sums(dim);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t k = 0; k < dim; ++k) sums[k] += sample[i * dim + k];
    }
    for (std::size_t k = 0; k < dim; ++k) {
      mean[k] = static_cast<float>(sums[k] / static_cast<double>(count));
    }
  }
  codec::KMeans coarse({.n_clusters = lists,
                        .n_iterations = options_.n_iterations,
                        .seed = options_.seed});
  coarse.train({sample.data(), count, dim, dim}, {}, threads, monitor);
  if (monitor != nullptr) monitor->poll(count, count);
  auto fresh = std::make_unique<Trained>(
      Trained{.coarse = std::move(coarse),
              .mean = std::move(mean),
              .products = options_.metric == Metric::kInnerProduct,
              .copies = options_.spill >= 0 && lists > 1 ? 2u : 1u});
  if (!flat()) train_codes(*fresh, sample, threads, monitor);
  fresh->lists = CodeLists(lists, fresh->codec ? fresh->codec->payload_bytes()
                                               : row_block().payload_bytes());
  fresh->pack();

  const auto lock = lock_.write();
  const std::size_t held = ids_.slots();
  if (held != 0 && !options_.keep_rows) {
    throw InvalidArgument(
        "the index holds codes without rows, which cannot be coded anew; train before "
        "adding");
  }
  std::vector<std::uint32_t> places(held * fresh->copies);
  std::vector<std::byte> moved;
  if (flat() && held != 0) {
    locate();
    moved.resize(held * row_stride());
    for (std::size_t i = 0; i < held; ++i) {
      std::memcpy(moved.data() + i * row_stride(),
                  row_of(static_cast<std::uint32_t>(i)), row_stride());
    }
  }
  code(*fresh, {flat() ? moved.data() : rows_.data(), held, row_stride()},
       options_.storage, nullptr, 0, held == 0 ? nullptr : &places, nullptr, threads,
       monitor);
  trained_ = std::move(fresh);
  places_ = std::move(places);
  version_.fetch_add(1, std::memory_order_release);
}

// Codes learn from what is left of an even part of the sample.
void IvfIndex::train_codes(Trained& to, const std::vector<float>& sample,
                           std::size_t threads, Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const std::size_t count = sample.size() / dim;
  const std::size_t part = std::min(count, kCodeSample);
  std::vector<float> residuals(part * dim);
  for (std::size_t i = 0; i < part; ++i) {
    std::copy_n(sample.data() + i * count / part * dim, dim,
                residuals.data() + i * dim);
  }
  std::vector<std::int64_t> cells(part);
  std::vector<float> distances(part);
  to.coarse.assign({residuals.data(), part, dim, dim}, cells.data(), distances.data(),
                   threads, monitor);
  for (std::size_t i = 0; i < part; ++i) {
    const float* from = origin(to, static_cast<std::size_t>(cells[i]));
    for (std::size_t k = 0; k < dim; ++k) residuals[i * dim + k] -= from[k];
  }
  const MatrixView<float> view{residuals.data(), part, dim, dim};
  to.codec.emplace(
      view, to.mean,
      PieceCodec::Options{.kind = static_cast<PieceCodec::Kind>(options_.codec),
                          .segments = options_.n_segments,
                          .turn = options_.turn,
                          .products = to.products,
                          .seed = options_.seed},
      threads, monitor);
  if (options_.grid_bits != 0) to.grid.emplace(view, grid_options());
}

codec::GridCodec::Options IvfIndex::grid_options() const {
  return {.kind = options_.grid,
          .bits = options_.grid_bits,
          .products = options_.metric == Metric::kInnerProduct};
}

// Puts rows into their lists under the slots given, or `first` and on; `places` gets
// where, and `grid_rows` the longer codes by slot. Undoes what it did if it throws.
void IvfIndex::code(Trained& to, RowsView rows, DType dtype, const std::uint32_t* slots,
                    std::size_t first, std::vector<std::uint32_t>* places,
                    std::byte* grid_rows, std::size_t threads, Monitor* monitor) const {
  const std::size_t dim = options_.dim;
  const std::size_t lists = to.lists.lists();
  const bool direct = dtype == DType::kFloat32 && options_.metric != Metric::kCosine;
  const bool codes = to.codec.has_value();
  const RowBlock row_blocks = row_block();
  const std::uint32_t copies = to.copies;
  const std::size_t portion = direct
                                  ? std::size_t{1} << 20
                                  : std::max<std::size_t>(kPortionBytes / 4 / dim, 64);
  std::vector<std::uint32_t> cells(rows.rows * copies);  // [row][copy]
  {
    const std::size_t most = std::min(portion, rows.rows);
    std::vector<float> wide(direct ? 0 : most * dim);
    std::vector<std::int64_t> nearest(most);
    std::vector<float> distances(most);
    for (std::size_t at = 0; at < rows.rows; at += portion) {
      const std::size_t count = std::min(portion, rows.rows - at);
      MatrixView<float> view{reinterpret_cast<const float*>(rows.row(at)), count, dim,
                             rows.stride / sizeof(float)};
      if (!direct) {
        parallel_for(count, resolve_threads(threads), 256,
                     [&](std::size_t begin, std::size_t end, std::size_t) {
                       for (std::size_t i = begin; i < end; ++i) {
                         widen(rows.row(at + i), dtype, wide.data() + i * dim);
                       }
                     });
        view = {wide.data(), count, dim, dim};
      }
      to.coarse.assign(view, nearest.data(), distances.data(), threads, monitor);
      for (std::size_t i = 0; i < count; ++i) {
        cells[(at + i) * copies] = static_cast<std::uint32_t>(nearest[i]);
      }
    }
  }
  if (copies == 2) choose_second(to, rows, dtype, cells, threads, monitor);
  const auto [begins, order] = Groups(cells, lists);
  std::vector<std::size_t> before(lists);
  for (std::size_t l = 0; l < lists; ++l) before[l] = to.lists.size(l);
  std::vector<double> spreads(resolve_threads(threads));
  try {
    for (std::size_t l = 0; l < lists; ++l) {
      const std::size_t count = begins[l + 1] - begins[l];
      if (count != 0) to.lists.grow(l, count);
    }
    parallel_for(
        lists, resolve_threads(threads), 2,
        [&](std::size_t from, std::size_t until, std::size_t worker) {
          constexpr std::size_t kGroup = CodeLists::kBlock;
          std::vector<float> wide(dim), centre(dim),
              projected(codes ? kGroup * dim : 0);
          std::vector<std::byte> kept(codes ? 0 : row_stride());
          codec::GridCodec::Work work;
          const bool turned = options_.grid == codec::GridCodec::Kind::kRabitq;
          std::vector<float> plain(grid_rows != nullptr && !turned ? 2 * dim : 0);
          const float* pointers[kGroup];
          float squares[kGroup];
          std::byte* blocks[kGroup];
          std::uint32_t lanes[kGroup];
          const auto l2 = kernels::active().float_rows[kernels::kOpL2][0];
          for (std::size_t l = from; l < until; ++l) {
            if (begins[l] == begins[l + 1]) continue;
            const float* centroid = origin(to, l);
            if (codes) to.codec->project(centroid, centre.data());
            for (std::size_t at = begins[l]; at < begins[l + 1]; at += kGroup) {
              const std::size_t count = std::min(kGroup, begins[l + 1] - at);
              for (std::size_t i = 0; i < count; ++i) {
                const std::uint32_t row = order[at + i] / copies;
                const std::uint32_t copy = order[at + i] % copies;
                const std::uint32_t place =
                    to.lists.place(l, before[l] + at - begins[l] + i);
                const auto slot = slots == nullptr
                                      ? static_cast<std::uint32_t>(first + row)
                                      : slots[row];
                to.lists.set_slot(place, slot * copies + copy);
                if (places != nullptr) (*places)[slot * copies + copy] = place;
                blocks[i] = to.lists.block_to_write(place / CodeLists::kBlock);
                lanes[i] = place % CodeLists::kBlock;
                if (!codes) {
                  stored(rows.row(row), dtype, kept.data());
                  row_blocks.put(kept.data(), blocks[i], lanes[i]);
                  continue;
                }
                widen(rows.row(row), dtype, wide.data());
                l2(centroid, reinterpret_cast<const std::byte*>(wide.data()), 0, 1, dim,
                   squares + i);
                pointers[i] = projected.data() + i * dim;
                to.codec->project(wide.data(), projected.data() + i * dim);
                if (grid_rows == nullptr || copy != 0) continue;
                std::byte* out = grid_rows + slot * to.grid->row_bytes();
                if (turned) {
                  to.grid->encode(centre.data(), pointers[i], work, out);
                  continue;
                }
                for (std::size_t k = 0; k < dim; ++k) {
                  plain[k] = centroid[k] - to.mean[k];
                  plain[dim + k] = wide[k] - to.mean[k];
                }
                to.grid->encode(plain.data(), plain.data() + dim, work, out);
              }
              if (!codes) continue;
              spreads[worker] = std::max(
                  spreads[worker], to.codec->encode(centre.data(), pointers, squares,
                                                    count, blocks, lanes));
            }
          }
        },
        monitor);
    // Short work is stopped here, if nowhere else.
    if (monitor != nullptr && rows.rows != 0) monitor->poll(rows.rows, rows.rows);
  } catch (...) {
    for (std::size_t l = 0; l < lists; ++l) {
      if (to.lists.size(l) > before[l]) to.lists.truncate(l, before[l]);
    }
    throw;
  }
  if (codes) to.codec->widen_spread(*std::max_element(spreads.begin(), spreads.end()));
}

}  // namespace annx::index
