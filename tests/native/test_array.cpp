// SPDX-License-Identifier: Apache-2.0
// storage::Array: growing, borrowing and copying on the first write.
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "annx/storage/array.h"
#include "check.h"

namespace annx::storage {
namespace {

using Numbers = Array<std::int32_t>;

// A borrowed array over 0, 1, 2, ...; `alive` says whether anything holds the memory.
struct Lent {
  explicit Lent(std::size_t count, bool mapped = false)
      : memory(std::make_shared<std::vector<std::int32_t>>(count)), alive(memory) {
    for (std::size_t i = 0; i < count; ++i) {
      (*memory)[i] = static_cast<std::int32_t>(i);
    }
    array = Numbers::borrow(*memory, memory, mapped);
  }
  std::shared_ptr<std::vector<std::int32_t>> memory;
  std::weak_ptr<std::vector<std::int32_t>> alive;
  Numbers array;
};

ANNX_TEST(array_starts_empty_and_owns) {
  const Numbers array;
  CHECK(array.empty());
  CHECK(!array.borrowed());
  CHECK_EQ(array.bytes().size(), 0u);
  CHECK_EQ(array.capacity_bytes(), 0u);
}

ANNX_TEST(array_grows_with_zeros_and_keeps_what_it_has) {
  Numbers array(3);
  for (int i = 0; i < 3; ++i) array.mutable_data()[i] = i + 1;
  array.resize(1000);
  CHECK_EQ(array.size(), 1000u);
  for (std::size_t i = 0; i < 1000; ++i) {
    CHECK_EQ(array[i], i < 3 ? static_cast<std::int32_t>(i) + 1 : 0);
  }
}

ANNX_TEST(array_shrunk_and_grown_again_is_zero) {
  Numbers array(100);
  for (int i = 0; i < 100; ++i) array.mutable_data()[i] = -1;
  array.resize(10);
  array.resize(100);
  for (std::size_t i = 0; i < 100; ++i) CHECK_EQ(array[i], i < 10 ? -1 : 0);
}

ANNX_TEST(array_push_back_of_its_own_element_survives_growth) {
  Numbers array;
  array.push_back(42);
  for (int i = 0; i < 1000; ++i) array.push_back(array[0]);
  CHECK_EQ(array.size(), 1001u);
  for (std::size_t i = 0; i < array.size(); ++i) CHECK_EQ(array[i], 42);
}

ANNX_TEST(array_reserve_keeps_size_and_is_exact) {
  Numbers array;
  array.reserve(77);
  CHECK_EQ(array.size(), 0u);
  CHECK_EQ(array.capacity_bytes(), 77 * sizeof(std::int32_t));
  const std::int32_t* before = array.mutable_data();
  array.resize(77);
  CHECK(array.data() == before);
}

ANNX_TEST(array_too_large_throws_and_changes_nothing) {
  Numbers array(5);
  array.mutable_data()[4] = 9;
  CHECK_THROWS(array.resize(SIZE_MAX / 2), std::bad_alloc);
  CHECK_THROWS(array.reserve(SIZE_MAX), std::bad_alloc);
  CHECK_EQ(array.size(), 5u);
  CHECK_EQ(array[4], 9);
}

ANNX_TEST(array_borrows_without_copying_and_keeps_its_owner_alive) {
  Lent lent(10);
  CHECK(lent.array.borrowed());
  CHECK(lent.array.data() == lent.memory->data());
  CHECK_EQ(lent.array.capacity_bytes(), 0u);
  CHECK_EQ(lent.array.held_bytes(), 10 * sizeof(std::int32_t));
  CHECK_EQ(Lent(10, true).array.held_bytes(), 0u);
  lent.memory.reset();
  CHECK(!lent.alive.expired());
  CHECK_EQ(lent.array[9], 9);
  Numbers taken = std::move(lent.array);
  CHECK(taken.borrowed());
  taken = Numbers();
  lent.array = Numbers();
}

ANNX_TEST(array_writing_to_a_borrowed_one_copies_it_first) {
  Lent lent(10);
  lent.array.mutable_data()[3] = 300;
  CHECK(!lent.array.borrowed());
  CHECK_EQ(lent.array[3], 300);
  CHECK_EQ(lent.array[4], 4);
  CHECK_EQ((*lent.memory)[3], 3);
  lent.memory.reset();
  CHECK(lent.alive.expired());
}

ANNX_TEST(array_push_back_to_a_borrowed_one_copies_it_first) {
  Lent lent(4);
  lent.array.push_back(7);
  CHECK(!lent.array.borrowed());
  CHECK_EQ(lent.array.size(), 5u);
  CHECK_EQ(lent.array[3], 3);
  CHECK_EQ(lent.array[4], 7);
  CHECK_EQ(lent.memory->size(), 4u);
}

// Shrinking needs no copy; growing again must not show what lies behind in the file.
ANNX_TEST(array_borrowed_one_shrinks_in_place_and_grows_with_zeros) {
  Lent lent(10);
  lent.array.resize(4);
  CHECK(lent.array.borrowed());
  CHECK_EQ(lent.array.size(), 4u);
  lent.array.resize(8);
  CHECK(!lent.array.borrowed());
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK_EQ(lent.array[i], i < 4 ? static_cast<std::int32_t>(i) : 0);
  }
  CHECK_EQ((*lent.memory)[5], 5);
}

ANNX_TEST(array_resize_of_a_borrowed_one_to_its_size_changes_nothing) {
  Lent lent(6);
  lent.array.resize(6);
  CHECK(lent.array.borrowed());
}

ANNX_TEST(array_shrunk_while_borrowed_then_written_grows_with_zeros) {
  Lent lent(10);
  lent.array.resize(2);
  lent.array.mutable_data()[0] = 5;
  lent.array.resize(10);
  for (std::size_t i = 2; i < 10; ++i) CHECK_EQ(lent.array[i], 0);
}

}  // namespace
}  // namespace annx::storage
