// SPDX-License-Identifier: Apache-2.0
// The k smallest of a stream of (key, id), ordered by key and then by id, kept sorted:
// for the few dozens that most searches want, moving the worse ones up by one costs
// less than a heap. O(k) for an entry that gets in, O(1) for one that does not; many
// are kept in a heap (TopK) instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "annx/search/topk.h"

namespace annx::search {

class NearList {
 public:
  static constexpr std::size_t kSorted = 128;

  // Empties the list, which then keeps k >= 1.
  void prepare(std::size_t k) {
    k_ = k;
    count_ = 0;
    limit_ = kNone;
    if (k <= kSorted) {
      if (hits_.size() < k) hits_.resize(k);
    } else {
      heap_ = TopK<float>(k);
    }
  }

  // Entries with a larger key cannot get in; one with this key can, by its id.
  float limit() const { return limit_; }

  void push(float key, std::int64_t id) {
    if (k_ > kSorted) {
      heap_.push(key, id);
      limit_ = heap_.limit();
      return;
    }
    const Hit<float> hit{key, id};
    std::size_t at = count_;
    if (count_ == k_) {
      if (!(hit < hits_[k_ - 1])) return;
      at = k_ - 1;
    } else {
      ++count_;
    }
    for (; at > 0 && hit < hits_[at - 1]; --at) hits_[at] = hits_[at - 1];
    hits_[at] = hit;
    if (count_ == k_) limit_ = hits_[k_ - 1].key;
  }

  // Best first, padded with id -1 and +inf. Nothing may be pushed afterwards.
  void write(std::int64_t* ids, float* distances) {
    const bool sorted = k_ <= kSorted;
    const std::vector<Hit<float>>& hits = sorted ? hits_ : heap_.sort();
    const std::size_t count = sorted ? count_ : hits.size();
    for (std::size_t i = 0; i < k_; ++i) {
      ids[i] = i < count ? hits[i].id : -1;
      distances[i] = i < count ? hits[i].key : kNone;
    }
  }

 private:
  static constexpr float kNone = std::numeric_limits<float>::infinity();
  std::size_t k_ = 1;
  std::size_t count_ = 0;
  float limit_ = kNone;
  std::vector<Hit<float>> hits_;
  TopK<float> heap_{1};
};

}  // namespace annx::search
