// SPDX-License-Identifier: Apache-2.0
#include "annx/codec/row_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "annx/base/ball.h"
#include "annx/base/error.h"
#include "annx/base/prefetch.h"
#include "annx/base/square.h"
#include "annx/kernels/dispatch.h"

namespace annx::codec {
namespace {

constexpr std::size_t kCentreSample = 4096;
// A dimension is centred when its mean is this many standard deviations from zero.
// Inner products between rows (not differences) feel every offset, so they take any.
constexpr double kCentreRatio = 4.0;
constexpr double kCentreRatioForDot = 0.1;
// Traversal by bfloat16 is good enough while half of the near pairs are judged within
// this share of their true distance.
constexpr double kLayoutTolerance = 0.01;
// The same for fixed point in place of float32.
constexpr double kNarrowTolerance = 0.001;
// The same later on, told from rounded rows, which is less sure.
constexpr double kRoundedTolerance = 4 * kNarrowTolerance;
constexpr float kMostFixed = 32767.0f;

// Rows that a cache line can hold must not straddle two.
std::size_t aligned_stride(std::size_t bytes) {
  if (bytes > 32) return (bytes + 63) / 64 * 64;
  return std::bit_ceil(std::max<std::size_t>(bytes, 16));
}

// The mean to a sixteenth of the spread, as a multiple of a power of two: rows near it
// then lose nothing when it is subtracted.
float rounded_centre(double mean, double spread) {
  if (spread == 0) return static_cast<float>(mean);
  const double grid = std::exp2(std::floor(std::log2(spread / 16)));
  return static_cast<float>(std::round(mean / grid) * grid);
}

double median(std::vector<double>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The step of a row in fixed point.
float fixed_step(const float* x, std::size_t dim) {
  float most = 0;
  for (std::size_t i = 0; i < dim; ++i) most = std::max(most, std::abs(x[i]));
  const auto bits = std::bit_cast<std::uint32_t>(most / kMostFixed);
  const auto two = std::bit_cast<float>((bits + 0x7FFFFFu) & ~0x7FFFFFu);
  bool whole = true;
  for (std::size_t i = 0; i < dim && whole; ++i) {
    whole = x[i] / two == std::nearbyint(x[i] / two);
  }
  if (whole) return two;
  // Up to 9 digits: what is left of the mantissa, 15 bits, becomes zero.
  return std::bit_cast<float>((bits + 0x7FFFu) & ~0x7FFFu);
}
// x / step to the nearest whole number; a step of 0 is that of a row of zeros. Damaged
// rows may hold NaN, which becomes some number.
float fixed_number(float x, float step) {
  if (step == 0) return 0;
  return std::max(-kMostFixed, std::min(std::nearbyint(x / step), kMostFixed));
}

float norm_of(const float* x, std::size_t dim) {
  return static_cast<float>(std::sqrt(square_of(x, dim)));
}

}  // namespace

RowCodec::RowCodec(std::size_t dim, Metric metric, DType dtype)
    : dim_(dim),
      metric_(metric),
      dtype_(dtype),
      layout_(dtype != DType::kFloat32      ? Layout::kNative
              : metric == Metric::kPoincare ? Layout::kWhole
                                            : Layout::kSplit) {
  if (is_byte() && dim > kernels::kMaxDim8) {
    throw InvalidArgument("dim is " + std::to_string(dim) +
                          "; 8-bit rows may have at most " +
                          std::to_string(kernels::kMaxDim8));
  }
  set_layout(layout_);
}

// Sets the strides of a layout; the rows themselves are moved by refine_layout.
void RowCodec::set_layout(Layout layout) {
  layout_ = layout;
  low_stride_ = 0;
  if (is_byte()) {
    padded_dim_ = (dim_ + 15) / 16 * 16;
    stride_ = aligned_stride(padded_dim_);
    traversal_type_ = static_cast<std::size_t>(dtype_);
    return;
  }
  if (layout == Layout::kGrid) {
    // Rows at multiples of 32 bytes touch no more cache lines than at those of 64.
    padded_dim_ = (dim_ + 31) / 32 * 32;
    stride_ = padded_dim_;
    traversal_type_ = static_cast<std::size_t>(DType::kInt8);
    return;
  }
  padded_dim_ = (dim_ + 7) / 8 * 8;
  if (layout == Layout::kSplit) {
    traversal_type_ = static_cast<std::size_t>(DType::kBFloat16);
    low_stride_ = dim_ * 2;
  } else {
    traversal_type_ = static_cast<std::size_t>(dtype_);
  }
  if (layout == Layout::kFixed) {
    // Padding to 32 as on a grid.
    stride_ = (kernels::kFixedHead + padded_dim_ * 2 + 31) / 32 * 32;
    return;
  }
  const bool wide = layout == Layout::kWhole;
  stride_ = aligned_stride(padded_dim_ * (wide ? 4 : 2));
}

void RowCodec::reserve(std::size_t count) {
  high_.reserve(count * stride_);
  low_.reserve(count * low_stride_);
  if (keeps_scale()) scale_.reserve(count);
  if (!exponents_.empty()) exponents_.reserve(count);
}

void RowCodec::append(const std::byte* rows, std::size_t stride, std::size_t count) {
  const std::size_t before = size_;
  try {
    high_.resize((before + count) * stride_);
    low_.resize((before + count) * low_stride_);
    if (keeps_scale()) scale_.resize(before + count);
    if (!exponents_.empty()) exponents_.resize(before + count);
  } catch (...) {
    truncate(before);
    throw;
  }
  size_ = before + count;
  std::vector<float> row(dim_);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t slot = before + i;
    const std::byte* source = rows + i * stride;
    if (own_basis()) {
      kernels::active().widen[static_cast<std::size_t>(dtype_)](source, dim_,
                                                                row.data());
      if (metric_ == Metric::kPoincare) {
        scale_.mutable_data()[slot] =
            static_cast<float>(1 / ball_gap(row.data(), dim_));
      } else if (keeps_scale()) {
        const float norm = norm_of(row.data(), dim_);
        scale_.mutable_data()[slot] = norm;
        // Division, so that a row that is already of length 1 stays as it is.
        for (float& x : row) x = norm > 0 ? x / norm : 0.0f;
      }
      encode_float32(row.data(), slot);
      continue;
    }
    std::memcpy(high_.mutable_data() + slot * stride_, source, row_bytes(dtype_, dim_));
    if (keeps_scale()) {
      scale_.mutable_data()[slot] = native_scale(slot, row);
    }
  }
}

// Of a row kept as it came: 1/length for cosine, 1 / (1 - |row|^2) for Poincare,
// <row, centre> for the inner product.
float RowCodec::native_scale(std::size_t slot, std::vector<float>& row) const {
  widen(slot, row.data());
  if (metric_ == Metric::kPoincare) {
    return static_cast<float>(1 / ball_gap(row.data(), dim_));
  }
  if (metric_ == Metric::kCosine) {
    const float norm = norm_of(row.data(), dim_);
    return norm > 0 ? 1.0f / norm : 0.0f;
  }
  double sum = 0;
  for (std::size_t i = 0; i < dim_ && !centre_.empty(); ++i) {
    sum += static_cast<double>(row[i]) * centre_[i];
  }
  return static_cast<float>(sum);
}

void RowCodec::truncate(std::size_t count) {
  high_.resize(count * stride_);
  low_.resize(count * low_stride_);
  if (keeps_scale()) scale_.resize(count);
  if (!exponents_.empty()) exponents_.resize(count);
  size_ = count;
}

// The row in the codec's own basis (unit length for cosine); it is centred in place.
void RowCodec::encode_float32(float* row, std::size_t slot) {
  if (layout_ == Layout::kGrid) return encode_on_grid(row, slot);
  for (std::size_t i = 0; i < dim_ && !centre_.empty(); ++i) row[i] -= centre_[i];
  std::byte* high = high_.mutable_data() + slot * stride_;
  if (layout_ == Layout::kFixed) {
    const float step = fixed_step(row, dim_);
    std::memcpy(high, &step, sizeof(step));
    auto* numbers = reinterpret_cast<std::int16_t*>(high + kernels::kFixedHead);
    for (std::size_t i = 0; i < dim_; ++i) {
      numbers[i] = static_cast<std::int16_t>(fixed_number(row[i], step));
    }
    return;
  }
  if (layout_ == Layout::kWhole) {
    std::memcpy(high, row, dim_ * 4);
    return;
  }
  std::byte* low = low_.mutable_data() + slot * low_stride_;
  for (std::size_t i = 0; i < dim_; ++i) {
    // Rounding half away from zero keeps the difference within 16 bits.
    const auto bits = std::bit_cast<std::uint32_t>(row[i]);
    const auto top = static_cast<std::uint16_t>((bits + 0x8000u) >> 16);
    const auto rest = static_cast<std::uint16_t>(bits);
    std::memcpy(high + 2 * i, &top, 2);
    std::memcpy(low + 2 * i, &rest, 2);
  }
}

void RowCodec::encode_on_grid(float* row, std::size_t slot) {
  const bool zero = metric_ == Metric::kCosine && scale_[slot] == 0;
  grid_->place(row);
  const std::uint8_t e = zero ? std::uint8_t{0} : grid_->exponent(row);
  const std::uint8_t kept = zero ? kZeroRow : e;
  // Most indexes never have a row off the grid.
  if (kept != 0 && exponents_.empty()) exponents_.resize(size_);
  if (!exponents_.empty()) exponents_.mutable_data()[slot] = kept;
  grid_->encode(row, e,
                reinterpret_cast<std::int8_t*>(high_.mutable_data() + slot * stride_));
}

// As it was encoded, in the codec's own basis.
void RowCodec::decode_centred(std::size_t slot, float* out) const {
  const std::byte* high = high_.data() + slot * stride_;
  if (layout_ == Layout::kGrid) {
    grid_->decode(reinterpret_cast<const std::int8_t*>(high), exponent(slot), out);
    return;
  }
  if (layout_ == Layout::kWhole) {
    std::memcpy(out, high, dim_ * 4);
    return;
  }
  if (layout_ == Layout::kFixed) return widen(slot, out);
  kernels::active().join_halves(high, low_.data() + slot * low_stride_, dim_, out);
}

void RowCodec::decode_float32(std::size_t slot, float* out) const {
  decode_centred(slot, out);
  if (centre_.empty()) return;
  for (std::size_t i = 0; i < dim_; ++i) out[i] += centre_[i];
}

// What traversal sees of a row, as float32.
void RowCodec::widen(std::size_t slot, float* out) const {
  const std::byte* row = high_.data() + slot * stride_;
  if (layout_ != Layout::kFixed) {
    kernels::active().widen[traversal_type_](row, dim_, out);
    return;
  }
  const float step = step_of(slot);
  const auto* numbers =
      reinterpret_cast<const std::int16_t*>(row + kernels::kFixedHead);
  for (std::size_t i = 0; i < dim_; ++i) out[i] = step * static_cast<float>(numbers[i]);
}

// Of the row's numbers, on a grid or in fixed point.
float RowCodec::step_of(std::size_t slot) const {
  if (layout_ == Layout::kGrid) return grid_->step(exponent(slot));
  float step;
  std::memcpy(&step, high_.data() + slot * stride_, sizeof(step));
  return step;
}

void RowCodec::decode(std::size_t slot, std::byte* out) const {
  if (!own_basis()) {
    std::memcpy(out, high_.data() + slot * stride_, row_bytes(dtype_, dim_));
    return;
  }
  std::vector<float> row(dim_);
  decode_float32(slot, row.data());
  if (metric_ == Metric::kCosine) {
    for (float& x : row) x *= scale_[slot];
  }
  kernels::active().narrow[static_cast<std::size_t>(dtype_)](row.data(), dim_, out);
}

void RowCodec::vector(std::size_t slot, float* out) const {
  if (own_basis()) {
    decode_float32(slot, out);
    return;
  }
  widen(slot, out);
  if (metric_ == Metric::kCosine) {
    for (std::size_t i = 0; i < dim_; ++i) out[i] *= scale_[slot];
  }
}

void RowCodec::refine_centre() {
  const bool float32 = dtype_ == DType::kFloat32;
  const bool dot = metric_ == Metric::kInnerProduct;
  if ((!float32 && !dot) || size_ == 0 || metric_ == Metric::kPoincare ||
      layout_ == Layout::kGrid) {
    return;
  }
  const std::size_t step = std::max<std::size_t>(1, size_ / kCentreSample);
  std::vector<double> sum(dim_), square(dim_);
  std::vector<float> row(dim_);
  std::size_t count = 0;
  for (std::size_t slot = 0; slot < size_; slot += step, ++count) {
    float32 ? decode_float32(slot, row.data()) : widen(slot, row.data());
    for (std::size_t i = 0; i < dim_; ++i) {
      sum[i] += row[i];
      square[i] += static_cast<double>(row[i]) * row[i];
    }
  }
  bool changed = false;
  bool any = false;
  storage::Array<float> centre(padded_dim_);
  float* values = centre.mutable_data();
  for (std::size_t i = 0; i < dim_; ++i) {
    const double mean = sum[i] / static_cast<double>(count);
    const double spread =
        std::sqrt(std::max(0.0, square[i] / static_cast<double>(count) - mean * mean));
    if (std::abs(mean) > (dot ? kCentreRatioForDot : kCentreRatio) * spread) {
      values[i] = rounded_centre(mean, spread);
    }
    const float now = centre_.empty() ? 0.0f : centre_[i];
    // Moving a centre by much less than the spread gains nothing.
    if (std::abs(values[i] - now) >
        (dot ? 0.1 : 1.0) * spread + 1e-3 * std::abs(mean)) {
      changed = true;
    } else {
      values[i] = now;
    }
    any = any || values[i] != 0;
  }
  if (!changed) return;
  if (!any) centre = storage::Array<float>();
  if (!float32) {
    centre_ = std::move(centre);
    for (std::size_t slot = 0; slot < size_; ++slot) {
      scale_.mutable_data()[slot] = native_scale(slot, row);
    }
    return;
  }
  for (std::size_t slot = 0; slot < size_; ++slot) {
    decode_float32(slot, row.data());
    centre_.swap(centre);
    encode_float32(row.data(), slot);
    centre_.swap(centre);
  }
  centre_.swap(centre);
}

// Half of the pairs' distances are off by less than this share of them, as traversal
// sees rows or, with `fixed`, as it would in fixed point.
double RowCodec::median_error(const std::vector<std::uint32_t>& pairs,
                              bool fixed) const {
  std::vector<double> errors;
  std::vector<float> a(dim_), b(dim_);
  const auto distance = [&] {
    double total = 0;
    for (std::size_t j = 0; j < dim_; ++j) {
      const double d = static_cast<double>(a[j]) - b[j];
      total += metric_ == Metric::kL1 ? std::abs(d) : d * d;
    }
    return total;
  };
  const auto round = [&](std::size_t slot, std::vector<float>& row) {
    if (!fixed) return widen(slot, row.data());
    const float step = fixed_step(row.data(), dim_);
    for (float& x : row) x = step * fixed_number(x, step);
  };
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    decode_centred(pairs[i], a.data());
    decode_centred(pairs[i + 1], b.data());
    const double exact = distance();
    if (!(exact > 0)) continue;
    round(pairs[i], a);
    round(pairs[i + 1], b);
    const double error = std::abs(distance() - exact) / exact;
    if (error >= 0) errors.push_back(error);
  }
  return median(errors);
}

// Lays all rows out anew. New rows first: if memory runs out, nothing has changed.
void RowCodec::relay(Layout layout) {
  RowCodec other(dim_, metric_, dtype_);
  other.set_layout(layout);
  other.high_.resize(high_.size() / stride_ * other.stride_);
  std::vector<float> row(dim_);
  for (std::size_t slot = 0; slot < size_; ++slot) {
    decode_centred(slot, row.data());
    other.encode_float32(row.data(), slot);
  }
  set_layout(layout);
  high_ = std::move(other.high_);
  low_ = storage::Array<std::byte>();
}

// Rows that are rounded stay so; those that come from now on will not be.
bool RowCodec::refine_layout(const std::vector<std::uint32_t>& pairs) {
  const bool coarse =
      layout_ == Layout::kSplit   ? median_error(pairs, false) > kLayoutTolerance
      : layout_ == Layout::kFixed ? rounding_share(pairs) > kRoundedTolerance
                                  : false;
  if (coarse) relay(Layout::kWhole);
  return coarse;
}

bool RowCodec::narrow(const std::vector<std::uint32_t>& pairs) {
  if (layout_ != Layout::kSplit || median_error(pairs, true) > kNarrowTolerance) {
    return false;
  }
  relay(Layout::kFixed);
  return true;
}

double RowCodec::rounding_share(const std::vector<std::uint32_t>& pairs) const {
  std::vector<double> shares;
  std::vector<float> a(dim_), b(dim_);
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    decode_centred(pairs[i], a.data());
    decode_centred(pairs[i + 1], b.data());
    double square = 0;
    for (std::size_t k = 0; k < dim_; ++k) {
      const double d = static_cast<double>(a[k]) - static_cast<double>(b[k]);
      square += d * d;
    }
    const auto own = static_cast<double>(step_of(pairs[i]));
    const auto far = static_cast<double>(step_of(pairs[i + 1]));
    // Two uniform errors a coordinate, of which the one along the difference counts.
    const double error = std::sqrt((own * own + far * far) / 12);
    shares.push_back(square > 0 ? std::min(1.0, 2 * error / std::sqrt(square)) : 1.0);
  }
  return median(shares);
}

void RowCodec::learn_grid(RowsView to_come, std::uint64_t seed) {
  const std::size_t bytes = row_bytes(dtype_, dim_);
  std::vector<std::byte> given(size_ * bytes);
  for (std::size_t slot = 0; slot < size_; ++slot) {
    decode(slot, given.data() + slot * bytes);
  }
  const auto get = [&](std::size_t i, float* out) {
    const std::byte* row =
        i < size_ ? given.data() + i * bytes : to_come.row(i - size_);
    kernels::active().widen[static_cast<std::size_t>(dtype_)](row, dim_, out);
    if (metric_ != Metric::kCosine) return;
    const float norm = norm_of(out, dim_);
    for (std::size_t k = 0; k < dim_; ++k) out[k] = norm > 0 ? out[k] / norm : 0.0f;
  };
  RowCodec other(dim_, metric_, dtype_);
  // Sums of absolute differences are not the same in another basis.
  other.grid_ = std::make_unique<RowGrid>(dim_, size_ + to_come.rows, get,
                                          metric_ != Metric::kL1, seed);
  other.set_layout(Layout::kGrid);
  other.reserve(size_ + to_come.rows);
  other.append(given.data(), bytes, size_);
  *this = std::move(other);
}

// --- queries
// --------------------------------------------------------------------------

void RowCodec::Query::set(const RowCodec& codec, const std::byte* query) {
  codec_ = &codec;
  query_ = query;
  item_ = false;
  const std::size_t dim = codec.dim_;
  const Metric metric = codec.metric_;
  op_ = metric == Metric::kL1                                  ? kernels::kOpL1
        : metric == Metric::kL2 || metric == Metric::kPoincare ? kernels::kOpL2
                                                               : kernels::kOpDot;
  row_.resize(dim);
  if (metric == Metric::kCosine) {
    unit_.resize(dim);
    codec.is_byte()
        ? kernels::active().widen[codec.traversal_type_](query, dim, unit_.data())
        : static_cast<void>(std::memcpy(unit_.data(), query, dim * 4));
    const float norm = norm_of(unit_.data(), dim);
    query_norm_ = norm;
    // The pointer and the local norm let the compiler divide several at once.
    float* const unit = unit_.data();
    if (norm > 0) {
      for (std::size_t i = 0; i < dim; ++i) unit[i] /= norm;
    } else {
      std::fill_n(unit, dim, 0.0f);
    }
  }
  if (codec.is_byte()) {
    bytes_.assign(codec.padded_dim_, std::byte{0});
    std::memcpy(bytes_.data(), query, dim);
    return;
  }
  if (codec.layout_ == Layout::kGrid) return set_on_grid();
  if (metric == Metric::kPoincare) {
    weight_ = 1 / ball_gap(reinterpret_cast<const float*>(query), dim);
  }
  const bool centred = codec.dtype_ == DType::kFloat32 && !codec.centre_.empty();
  // Far from the origin all directions are alike, and only differences from the centre
  // keep the digits that tell them apart.
  if (metric == Metric::kCosine && centred) op_ = kernels::kOpL2;
  traversal_.assign(codec.padded_dim_, 0.0f);
  std::memcpy(
      traversal_.data(),
      metric == Metric::kCosine ? unit_.data() : reinterpret_cast<const float*>(query),
      dim * 4);
  // <q, x - c> orders rows as <q, x> does; only differences need a centred query.
  if (op_ != kernels::kOpDot && centred) {
    for (std::size_t i = 0; i < dim; ++i) traversal_[i] -= codec.centre_[i];
  }
}

void RowCodec::Query::set_item(const RowCodec& codec, std::size_t slot) {
  codec_ = &codec;
  query_ = nullptr;
  item_ = true;
  const bool ball = codec.metric_ == Metric::kPoincare;
  const bool scaled = codec.keeps_scale() && !codec.own_basis() && !ball;
  if (ball) weight_ = codec.scale_[slot];
  op_ = codec.metric_ == Metric::kL1                       ? kernels::kOpL1
        : scaled || codec.metric_ == Metric::kInnerProduct ? kernels::kOpDot
                                                           : kernels::kOpL2;
  if (scaled) query_norm_ = codec.scale_[slot];
  if (codec.layout_ == Layout::kGrid) {
    item_slot_ = slot;
    for (Coded& coded : coded_) coded.made = false;
    return;
  }
  if (codec.is_byte()) {
    bytes_.assign(codec.padded_dim_, std::byte{0});
    std::memcpy(bytes_.data(), codec.high_.data() + slot * codec.stride_, codec.dim_);
    return;
  }
  traversal_.assign(codec.padded_dim_, 0.0f);
  codec.widen(slot, traversal_.data());
}

void RowCodec::Query::score(const std::uint32_t* slots, std::size_t count,
                            float* out) const {
  const RowCodec& codec = *codec_;
  if (codec.layout_ == Layout::kGrid) return score_on_grid(slots, count, out);
  const kernels::KernelTable& table = kernels::active();
  if (codec.is_byte()) {
    integer_keys_.resize(std::max(integer_keys_.size(), count));
    const std::size_t type = codec.dtype_ == DType::kInt8 ? 0 : 1;
    table.byte_gather[op_][type](bytes_.data(), codec.high_.data(), codec.stride_,
                                 slots, count, codec.dim_, integer_keys_.data());
    for (std::size_t i = 0; i < count; ++i) {
      out[i] = static_cast<float>(integer_keys_[i]);
    }
  } else {
    const kernels::FloatGather gather =
        codec.layout_ == Layout::kFixed
            ? table.fixed_gather[op_]
            : table.float_gather[op_][codec.traversal_type_];
    gather(traversal_.data(), codec.high_.data(), codec.stride_, slots, count,
           codec.padded_dim_, out);
  }
  for (std::size_t i = 0; i < count && codec.metric_ == Metric::kPoincare; ++i) {
    out[i] = ball_key(out[i], weight_, codec.scale_[slots[i]]);
  }
  if (op_ != kernels::kOpDot) return;
  const bool native = !codec.own_basis();
  if (native && codec.metric_ == Metric::kCosine) {
    // 1 - cosine between rows; for a query its length changes no order.
    const float factor = item_ ? query_norm_ : 1.0f;
    const float base = item_ ? 1.0f : 0.0f;
    for (std::size_t i = 0; i < count; ++i) {
      out[i] = base - out[i] * factor * codec.scale_[slots[i]];
    }
  } else if (native && item_) {
    // -<x - c, y - c> but for the constant |c|^2.
    for (std::size_t i = 0; i < count; ++i) {
      out[i] = query_norm_ + codec.scale_[slots[i]] - out[i];
    }
  } else {
    for (std::size_t i = 0; i < count; ++i) out[i] = -out[i];
  }
}

std::span<const std::byte> RowCodec::Query::bytes_of(std::uint32_t slot) const {
  return {codec_->high_.data() + slot * codec_->stride_, codec_->stride_};
}

void RowCodec::Query::prefetch_exact(std::uint32_t slot) const {
  const std::span<const std::byte> high = bytes_of(slot);
  prefetch_run(high.data(), high.size());
  prefetch_run(codec_->low_.data() + slot * codec_->low_stride_, codec_->low_stride_);
}

const float* RowCodec::Query::vector(float& gain) {
  gain = 1;
  const RowCodec& codec = *codec_;
  if (codec.metric_ == Metric::kCosine) {
    // With both of length 1, -<q, y> is |q - y|^2 / 2 but for a constant; the keys of
    // 8-bit rows are of the query as it came.
    if (op_ == kernels::kOpDot) gain = codec.is_byte() ? query_norm_ / 2 : 0.5f;
    return unit_.data();
  }
  if (!codec.is_byte()) return reinterpret_cast<const float*>(query_);
  kernels::active().widen[codec.traversal_type_](query_, codec.dim_, row_.data());
  return row_.data();
}

float RowCodec::Query::zero_key() const {
  const RowCodec& codec = *codec_;
  if (codec.metric_ == Metric::kInnerProduct) {
    return -std::numeric_limits<float>::infinity();
  }
  if (op_ != kernels::kOpDot) return 0;
  return codec.is_byte() ? -query_norm_ : -1.0f;
}

float RowCodec::Query::key_error(float key) const {
  constexpr float kSingle = 1e-6f;
  // Half of what rounding to bfloat16 can change an element by, which is 2^-9 of it:
  // errors of many elements partly cancel.
  constexpr float kRounding = 0x1.0p-10f;
  const RowCodec& codec = *codec_;
  if (codec.layout_ == Layout::kGrid) {
    // What is rounded is the query, by up to half a step a coordinate: three standard
    // deviations.
    constexpr float kDeviations = 3 / 3.46f;
    const float step = kDeviations * codec.grid_->step(0);
    if (op_ == kernels::kOpL1) {
      return step * std::sqrt(static_cast<float>(codec.dim_));
    }
    const Coded& own = coded(0);
    if (op_ != kernels::kOpL2 || own.beyond_factor != 0) {
      return std::numeric_limits<float>::infinity();
    }
    return 2 * step * std::sqrt(std::max(key, 0.0f));
  }
  if (codec.layout_ != Layout::kSplit) return kSingle * std::abs(key);
  if (op_ == kernels::kOpDot && codec.metric_ == Metric::kCosine) return kRounding;
  if (op_ != kernels::kOpL2) return std::numeric_limits<float>::infinity();
  // |x| <= |q| + |q - x|, all from the centre.
  const float distance = std::sqrt(std::max(key, 0.0f));
  float square;
  kernels::active().float_rows[kernels::kOpDot][0](
      traversal_.data(), reinterpret_cast<const std::byte*>(traversal_.data()), 0, 1,
      codec.dim_, &square);
  const float error = kRounding * (std::sqrt(square) + distance);
  return 2 * distance * error + error * error;
}

bool RowCodec::Query::keys_are_exact() const {
  const RowCodec& codec = *codec_;
  return codec.metric_ == Metric::kL2 && codec.layout_ != Layout::kSplit &&
         codec.layout_ != Layout::kGrid && !codec.is_byte() && codec.centre_.empty();
}

double RowCodec::Query::exact(std::uint32_t slot) {
  const RowCodec& codec = *codec_;
  if (codec.layout_ == Layout::kGrid) return exact_on_grid(slot);
  const kernels::KernelTable& table = kernels::active();
  const std::size_t dim = codec.dim_;
  const auto canonical = [&](kernels::Op op, const float* query) {
    // Kernels give the same bits for rows of every type (of fixed-point ones l2 alone),
    // so only rows that are split, centred or still to be scaled are put together
    // first.
    const bool float32 = codec.dtype_ == DType::kFloat32;
    const bool fixed = codec.layout_ == Layout::kFixed;
    const bool as_kept = float32 ? codec.layout_ != Layout::kSplit &&
                                       codec.centre_.empty() &&
                                       (!fixed || op == kernels::kOpL2)
                                 : codec.metric_ != Metric::kCosine;
    const auto* row = reinterpret_cast<const std::byte*>(row_.data());
    if (as_kept) {
      row = codec.high_.data() + slot * codec.stride_;
    } else {
      codec.vector(slot, row_.data());
    }
    const kernels::FloatRows rows =
        as_kept && fixed ? table.fixed_rows[op]
                         : table.float_rows[op][as_kept ? codec.traversal_type_ : 0];
    float value;
    rows(query, row, 0, 1, dim, &value);
    return static_cast<double>(value);
  };
  if (codec.metric_ == Metric::kCosine) {
    if (query_norm_ == 0 || codec.scale_[slot] == 0) return 1.0;
    // Half the squared distance of the directions is 1 - cosine and cancels nothing.
    return 0.5 * canonical(kernels::kOpL2, unit_.data());
  }
  double distance;
  if (codec.is_byte()) {
    std::int32_t integer;
    const std::size_t type = codec.dtype_ == DType::kInt8 ? 0 : 1;
    table.byte_rows[op_][type](query_, codec.high_.data() + slot * codec.stride_,
                               codec.stride_, 1, dim, &integer);
    distance = integer;
  } else {
    distance = canonical(op_, reinterpret_cast<const float*>(query_));
  }
  if (codec.metric_ == Metric::kPoincare) {
    return ball_distance(
        ball_key(static_cast<float>(distance), weight_, codec.scale_[slot]));
  }
  return codec.metric_ == Metric::kInnerProduct ? -distance : distance;
}

// --- persistence
// ----------------------------------------------------------------------

std::size_t RowCodec::memory_bytes() const {
  return high_.held_bytes() + low_.held_bytes() + scale_.held_bytes() +
         centre_.held_bytes() + exponents_.held_bytes() +
         (grid_ != nullptr ? grid_->memory_bytes() : 0);
}

void RowCodec::save_to(storage::FileWriter& file, std::size_t count) const {
  file.number("rows.dim", dim_);
  file.number("rows.metric", static_cast<std::uint64_t>(metric_));
  file.number("rows.dtype", static_cast<std::uint64_t>(dtype_));
  file.number("rows.layout", static_cast<std::uint64_t>(layout_));
  file.number("rows.centred", centre_.empty() ? 0 : 1);
  file.add("rows.high", high_.bytes().first(count * stride_));
  file.add("rows.low", low_.bytes().first(count * low_stride_));
  const std::size_t scales = keeps_scale() ? count : 0;
  file.add("rows.scale", scale_.bytes().first(scales * sizeof(float)));
  file.add("rows.centre", centre_.bytes());
  if (grid_ == nullptr) return;
  grid_->save_to(file);
  file.number("grid.wide", exponents_.empty() ? 0 : 1);
  file.add("grid.exponents", exponents_.bytes().first(exponents_.empty() ? 0 : count));
}

RowCodec RowCodec::load_from(const storage::FileReader& file, std::size_t count) {
  const auto metric = static_cast<Metric>(file.number("rows.metric", 0, kMetrics - 1));
  const auto dtype = static_cast<DType>(file.number("rows.dtype", 0, 4));
  const bool byte = dtype == DType::kInt8 || dtype == DType::kUInt8;
  file.require(metric != Metric::kHamming && metric != Metric::kJaccard &&
                   (metric != Metric::kPoincare || !byte),
               "rows.metric", "does not fit the rows' dtype");
  const auto dim = static_cast<std::size_t>(
      file.number("rows.dim", 1, byte ? kernels::kMaxDim8 : std::size_t{1} << 20));
  const auto layout = static_cast<Layout>(file.number("rows.layout", 0, 5));
  file.require(layout == Layout::kNative || layout == Layout::kSplit ||
                   layout == Layout::kWhole || layout == Layout::kGrid ||
                   layout == Layout::kFixed,
               "rows.layout", "is none that this annx knows");
  const bool on_grid = layout == Layout::kGrid;
  file.require(on_grid
                   ? !byte && metric != Metric::kPoincare && dim <= kernels::kMaxDim8
                   : (layout == Layout::kNative) == (dtype != DType::kFloat32),
               "rows.layout", "does not fit the rows' dtype");
  file.require(layout != Layout::kFixed ||
                   (metric != Metric::kL1 && metric != Metric::kPoincare),
               "rows.layout", "does not fit the rows' metric");
  RowCodec codec(dim, metric, dtype);
  codec.set_layout(layout);
  codec.size_ = count;
  codec.high_ = file.array<std::byte>("rows.high", count * codec.stride_);
  codec.low_ = file.array<std::byte>("rows.low", count * codec.low_stride_);
  codec.scale_ = file.array<float>("rows.scale", codec.keeps_scale() ? count : 0);
  const bool centred = file.number("rows.centred", 0, 1) == 1;
  codec.centre_ = file.array<float>("rows.centre", centred ? codec.padded_dim_ : 0);
  if (on_grid) {
    file.require(!centred, "rows.centre", "is there, and so is a grid");
    codec.grid_ = std::make_unique<RowGrid>(RowGrid::load_from(file, dim));
    const bool wide = file.number("grid.wide", 0, 1) == 1;
    codec.exponents_ = file.array<std::uint8_t>("grid.exponents", wide ? count : 0);
  }
  return codec;
}

}  // namespace annx::codec
