// SPDX-License-Identifier: Apache-2.0
// The file format (docs/file-format.md has every byte): a header of 64 bytes, a table
// of sections of 64 bytes each, then the sections, aligned so that they can be used
// where they are mapped. The first section, "meta", holds the numbers, reals and texts.
//
//   header   magic, version, number of sections, length of the file, checksum of the
//            table, kind, checksum of the header
//   table    per section: name, offset, length, checksum
//
// Every byte belongs to the header, the table, a section or the zeros between sections,
// and each of these is checked, so no changed byte passes a full verification. Reading
// trusts nothing: offsets and lengths are compared with the length of the file in
// arithmetic that cannot overflow, before anything is read through them. What a section
// means is its owner's to check: every number against every other before use, because a
// hostile file has right checksums.
//
// A writer and a reader are values of one thread; readers of the same file share it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "annx/storage/array.h"

namespace annx::storage {

inline constexpr std::uint32_t kFormatVersion = 1;

// Names (of entries and sections) are 1 to 32 printable ASCII characters, a kind 1
// to 24. A name given twice, or one that is not allowed, is std::logic_error: a mistake
// in annx.
class FileWriter {
 public:
  explicit FileWriter(std::string_view kind);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void number(std::string_view name, std::uint64_t value);
  void real(std::string_view name, double value);
  // UTF-8, of at most 2^32 - 1 bytes.
  void text(std::string_view name, std::string_view value);
  // The bytes are borrowed until the last call of this writer.
  void add(std::string_view name, std::span<const std::byte> bytes);
  // Holds a lock or a buffer that what was added depends on, as long as the writer
  // lives: an index that may grow meanwhile keeps its lock for reading here.
  template <class T>
  void keep(T&& value) {
    kept_.push_back(std::make_shared<std::decay_t<T>>(std::forward<T>(value)));
  }

  // Replaces the file atomically (os_file.h). Throws FileError.
  void write(const std::string& path) const;

  // The same bytes in memory: their number, and a copy into `out` of just that size.
  std::size_t size() const;
  void write_to(std::span<std::byte> out) const;
  std::string to_bytes() const;

 private:
  struct Section {
    std::string name;
    std::span<const std::byte> bytes;
  };
  // The parts of the file in order; `head` keeps the header, the table and meta.
  std::vector<std::span<const std::byte>> parts(std::string& head) const;
  void entry(std::uint32_t type, std::string_view name, std::string_view value);

  std::string kind_;
  std::string meta_;
  std::vector<std::string> entry_names_;
  std::vector<Section> sections_;
  std::vector<std::shared_ptr<void>> kept_;
};

class FileReader {
 public:
  // Throws FileError where the file cannot be opened or read, FormatError where it is
  // no annx file, newer, truncated or damaged. Without `verify_payload` only the
  // header, the table and meta are checked, and a mapped file's sections are not
  // touched.
  static FileReader open(const std::string& path, bool mmap, bool verify_payload);
  // Copies the bytes, and verifies all of them.
  static FileReader from_bytes(std::string_view bytes);
  // The kind alone, from the header alone.
  static std::string kind_of(const std::string& path);

  const std::string& kind() const;
  // False where sections may hold anything because their checksums were not compared.
  bool verified() const;
  // Throws FormatError unless kind() is this.
  void expect_kind(std::string_view kind) const;

  // A meta entry or a section of this name?
  bool has(std::string_view name) const;

  // Entries of meta; FormatError where one is missing or of another type.
  std::uint64_t number(std::string_view name) const;
  double real(std::string_view name) const;
  std::string text(std::string_view name) const;
  // The same, refusing what lies outside [lo, hi] (and NaN).
  std::uint64_t number(std::string_view name, std::uint64_t lo, std::uint64_t hi) const;
  double real(std::string_view name, double lo, double hi) const;

  // Bytes of a section; FormatError where it is missing.
  std::uint64_t section_bytes(std::string_view name) const;

  // The section as `expected_count` elements, borrowed from the file: FormatError where
  // its length is any other. Starts on a 64-byte boundary and is followed by bytes that
  // may be read up to the next one. Any bit pattern may come, so T must have no invalid
  // ones (no bool, no enum).
  template <class T>
    requires std::is_trivially_copyable_v<T>
  Array<T> array(std::string_view name, std::size_t expected_count) const {
    static_assert(!std::is_same_v<T, bool> &&
                  (!std::is_enum_v<T> || std::is_same_v<T, std::byte>) &&
                  alignof(T) <= 64);
    const std::span<const std::byte> bytes = section(name, expected_count, sizeof(T));
    return Array<T>::borrow({reinterpret_cast<const T*>(bytes.data()), expected_count},
                            owner(), mapped());
  }

  // A copy of a section of floats; FormatError also where one is not finite.
  std::vector<float> finite(std::string_view name, std::size_t expected_count) const;

  // Throws FormatError "<file>: section '<section>': <what>".
  [[noreturn]] void fail(std::string_view section, std::string_view what) const;
  void require(bool condition, std::string_view section, std::string_view what) const {
    if (!condition) fail(section, what);
  }

 private:
  struct File;
  explicit FileReader(std::shared_ptr<const File> file) : file_(std::move(file)) {}
  std::span<const std::byte> section(std::string_view name, std::size_t count,
                                     std::size_t element) const;
  std::shared_ptr<const void> owner() const;
  bool mapped() const;

  std::shared_ptr<const File> file_;
};

}  // namespace annx::storage
