// SPDX-License-Identifier: Apache-2.0
// Ids and slots. A slot is a row's position in storage (32 bits); an id is what the
// caller knows (64 bits, >= 0). While every id equals its slot the map is a counter and
// costs no memory; the first id that differs makes it an array of ids by slot and an
// open-addressing table of slots (linear probing, backward-shift deletion), about 14
// bytes an id.
//
// Automatic ids rise from 0 and are never given twice: next_id() is above every id ever
// held. Reading is thread-safe; changing is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/base/types.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"
#include "annx/storage/slot_set.h"

namespace annx::storage {

class IdMap {
 public:
  static constexpr std::int64_t kNoId = -1;
  static constexpr std::size_t kMaxSlots = kNoSlot;

  std::size_t slots() const { return slots_; }  // freed ones included
  std::size_t size() const { return size_; }    // ids held
  std::int64_t next_id() const { return next_id_; }
  bool identity() const { return ids_.empty() && size_ == slots_; }

  // Throws InvalidArgument unless `count` new ids may be appended: `ids` unique, >= 0,
  // not yet held. Changes nothing. Null `ids` asks for automatic ones.
  void check(std::size_t count, const std::int64_t* ids) const;

  // Gives the next `count` slots ids; returns the first slot. Checks first, and changes
  // nothing if it throws.
  std::uint32_t append(std::size_t count, const std::int64_t* ids = nullptr);

  // Makes room, so that an append of `count` cannot fail for memory half-way.
  void reserve(std::size_t count);

  // The slot of an id: throws UnknownId, or gives kNoSlot.
  std::uint32_t slot_of(std::int64_t id) const;
  std::uint32_t find(std::int64_t id) const;
  bool contains(std::int64_t id) const { return find(id) != kNoSlot; }
  // Throws UnknownId, or InvalidArgument at a repeated id.
  void check_held(std::span<const std::int64_t> ids) const;
  // The slots of those ids that are held.
  SlotSet slots_of(std::span<const std::int64_t> ids, std::uint64_t version) const;
  // Those ids that are not held, in order. Throws InvalidArgument at a repeated one, or
  // where they could not be appended.
  std::vector<std::int64_t> missing(std::span<const std::int64_t> ids) const;
  // The id in a slot; kNoId in a freed one.
  std::int64_t id_of(std::uint32_t slot) const {
    return ids_.empty() ? static_cast<std::int64_t>(slot) : ids_[slot];
  }

  // Frees the id's slot, which stays in place, and returns it.
  std::uint32_t remove(std::int64_t id);
  // Gives a freed slot an id that is not held.
  void assign(std::uint32_t slot, std::int64_t id);
  // Drops the last slot; if it held an id and is not the freed `slot`, that id moves to
  // `slot`. The storage moves the row likewise.
  void pop_into(std::uint32_t slot);
  // Removes ids, all of them or, if one is repeated or unknown (InvalidArgument,
  // UnknownId), none, so that no slot is left empty: move(last, slot) is called where
  // the content of the last slot must move into a freed one.
  template <class Move>
  void remove_dense(std::span<const std::int64_t> ids, Move&& move) {
    check_held(ids);
    for (const std::int64_t id : ids) {
      const std::uint32_t slot = remove(id);
      const auto last = static_cast<std::uint32_t>(slots_ - 1);
      if (slot != last) move(last, slot);
      pop_into(slot);
    }
  }
  // Forgets the slots from `count` on: undoes an append that was interrupted.
  void truncate(std::size_t count);

  // Ids by slot, `slots()` of them; kNoId in freed slots.
  void copy_ids(std::int64_t* out) const;
  // The first `room` of them, or as many as there are; returns how many.
  std::size_t copy_ids(std::int64_t* out, std::size_t room) const;
  std::size_t memory_bytes() const;

  // Restores a saved map: `ids` empty for an identity map. Throws FormatError unless
  // ids are unique, >= -1 and below next_id.
  static IdMap restore(std::size_t slots, std::int64_t next_id,
                       Array<std::int64_t> ids);
  const Array<std::int64_t>& ids() const { return ids_; }

  // As "next_id", "identity" and "ids", for an index in which every slot has an id. The
  // writer borrows. Throws FormatError.
  void save_to(FileWriter& writer) const;
  static IdMap load_from(const FileReader& reader, std::size_t slots);

 private:
  void materialize();
  void rehash(std::size_t entries);
  std::size_t home(std::int64_t id) const;
  void table_insert(std::uint32_t slot);
  void table_erase(std::int64_t id);

  std::size_t slots_ = 0;
  std::size_t size_ = 0;
  std::int64_t next_id_ = 0;
  Array<std::int64_t> ids_;           // empty while ids equal slots
  std::vector<std::uint32_t> table_;  // a power of two; kNoSlot where empty
};

}  // namespace annx::storage
