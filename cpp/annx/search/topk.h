// SPDX-License-Identifier: Apache-2.0
// The k smallest of a stream of (key, id), ordered by key and then by id: a bounded
// binary heap with the worst on top. O(log k) for an entry that gets in, O(1) for one
// that does not; what is kept does not depend on the order in which entries came.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace annx::search {

template <class Key>
struct Hit {
  Key key;
  std::int64_t id;

  friend bool operator<(const Hit& a, const Hit& b) {
    return a.key < b.key || (a.key == b.key && a.id < b.id);
  }
};

template <class Key>
class TopK {
 public:
  // k >= 1.
  explicit TopK(std::size_t k) : k_(k) { heap_.reserve(k); }

  bool full() const { return heap_.size() == k_; }
  std::size_t size() const { return heap_.size(); }

  // Entries with a larger key cannot get in; one with this key can, by its id.
  Key limit() const { return full() ? heap_.front().key : kWorst; }

  void push(Key key, std::int64_t id) {
    const Hit<Key> hit{key, id};
    if (!full()) {
      heap_.push_back(hit);
      std::push_heap(heap_.begin(), heap_.end());
    } else if (hit < heap_.front()) {
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.back() = hit;
      std::push_heap(heap_.begin(), heap_.end());
    }
  }
  void merge(const TopK& other) {
    for (const Hit<Key>& hit : other.heap_) push(hit.key, hit.id);
  }

  // Best first. Nothing may be pushed afterwards.
  const std::vector<Hit<Key>>& sort() {
    std::sort_heap(heap_.begin(), heap_.end());
    return heap_;
  }

 private:
  static constexpr Key kWorst = std::numeric_limits<Key>::has_infinity
                                    ? std::numeric_limits<Key>::infinity()
                                    : std::numeric_limits<Key>::max();
  std::size_t k_;
  std::vector<Hit<Key>> heap_;
};

}  // namespace annx::search
