// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "annx/base/error.h"
#include "annx/storage/checksum.h"
#include "annx/storage/os_file.h"

namespace annx::storage {
namespace {

// The first bytes of PNG's kind: a byte that is no text, and line ends that a transfer
// in text mode would change.
constexpr char kMagic[8] = {'\x89', 'A', 'N', 'N', 'X', '\r', '\n', '\x1a'};

constexpr std::size_t kKindLength = 24;
constexpr std::size_t kNameLength = 32;
constexpr std::string_view kMeta = "meta";

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t sections;
  std::uint64_t file_length;
  std::uint64_t table_checksum;
  char kind[kKindLength];
  std::uint64_t header_checksum;  // of the bytes before it
};
static_assert(sizeof(Header) == 64 && std::is_trivially_copyable_v<Header>);

struct TableRow {
  char name[kNameLength];
  std::uint64_t offset;
  std::uint64_t length;
  std::uint64_t checksum;
  std::uint64_t reserved;  // zero
};
static_assert(sizeof(TableRow) == 64 && std::is_trivially_copyable_v<TableRow>);

// Before each value of meta, which is padded with zeros to a multiple of 8.
struct EntryHead {
  char name[kNameLength];
  std::uint32_t type;
  std::uint32_t length;
};
static_assert(sizeof(EntryHead) == 40 && std::is_trivially_copyable_v<EntryHead>);

constexpr std::uint32_t kNumber = 1;
constexpr std::uint32_t kReal = 2;
constexpr std::uint32_t kText = 3;

constexpr std::uint64_t kAlignment = 64;
// Big sections start on a page of their own, so that mapping one touches no other.
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kBig = 65536;
// Far above what any kind needs, and small enough that looking up names, which is
// linear, stays cheap on a hostile file.
constexpr std::uint32_t kMaxSections = 1024;
constexpr std::size_t kMaxEntries = 4096;

constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

constexpr std::uint64_t alignment_of(std::uint64_t length) {
  return length >= kBig ? kPage : kAlignment;
}

// One page of zeros serves as every gap.
constexpr std::array<std::byte, kPage> kZeros{};

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

std::span<const std::byte> bytes_of(const std::string& value) {
  return std::as_bytes(std::span<const char>(value.data(), value.size()));
}

std::uint64_t checksum_of(const Header& header) {
  return checksum(bytes_of(header).first(offsetof(Header, header_checksum)));
}

template <class T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

bool printable(char c) { return c > ' ' && c < '\x7f'; }

template <std::size_t N>
void put_name(char (&field)[N], std::string_view name) {
  if (name.empty() || name.size() > N ||
      !std::all_of(name.begin(), name.end(), printable)) {
    throw std::logic_error("file: '" + std::string(name) + "' is no name of 1 to " +
                           std::to_string(N) + " printable characters");
  }
  std::memset(field, 0, N);
  std::memcpy(field, name.data(), name.size());
}

// The name in a field, or nothing where the field holds no allowed name: printable
// characters followed by zeros only, so that a name has one spelling.
template <std::size_t N>
std::string_view get_name(const char (&field)[N]) {
  std::size_t length = 0;
  while (length < N && printable(field[length])) ++length;
  for (std::size_t i = length; i < N; ++i) {
    if (field[i] != '\0') return {};
  }
  return {field, length};
}

// Text reaches Python's str, which takes well-formed UTF-8 only (RFC 3629: no overlong
// forms, no surrogates, nothing above U+10FFFF).
bool valid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    std::size_t more = 0;
    unsigned char lo = 0x80;
    unsigned char hi = 0xBF;
    if (lead < 0x80) {
      more = 0;
    } else if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) lo = 0xA0;
      if (lead == 0xED) hi = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) lo = 0x90;
      if (lead == 0xF4) hi = 0x8F;
    } else {
      return false;
    }
    if (text.size() - i - 1 < more) return false;
    for (std::size_t j = 1; j <= more; ++j) {
      const auto next = static_cast<unsigned char>(text[i + j]);
      if (next < lo || next > hi) return false;
      lo = 0x80;
      hi = 0xBF;
    }
    i += more + 1;
  }
  return true;
}

bool all_zero(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t count = std::min<std::size_t>(bytes.size(), kZeros.size());
    if (std::memcmp(bytes.data(), kZeros.data(), count) != 0) return false;
    bytes = bytes.subspan(count);
  }
  return true;
}

std::string quoted(std::string_view name) {
  std::string result;
  result.reserve(name.size() + 2);
  result += '\'';
  result += name;
  result += '\'';
  return result;
}

}  // namespace

// --- writing ------------------------------------------------------------------------

FileWriter::FileWriter(std::string_view kind) : kind_(kind) {
  Header header;
  put_name(header.kind, kind);
}

void FileWriter::entry(std::uint32_t type, std::string_view name,
                       std::string_view value) {
  EntryHead head{};
  put_name(head.name, name);
  if (std::find(entry_names_.begin(), entry_names_.end(), name) != entry_names_.end()) {
    throw std::logic_error("file: meta " + quoted(name) + " was given twice");
  }
  if (type == kText && (value.size() > std::numeric_limits<std::uint32_t>::max() ||
                        !valid_utf8(value))) {
    throw std::logic_error("file: meta " + quoted(name) + " is no UTF-8 text");
  }
  if (entry_names_.size() == kMaxEntries)
    throw std::logic_error("file: too many entries");
  head.type = type;
  head.length = static_cast<std::uint32_t>(value.size());
  append(meta_, head);
  meta_ += value;
  meta_.append(align_up(value.size(), 8) - value.size(), '\0');
  entry_names_.emplace_back(name);
}

void FileWriter::number(std::string_view name, std::uint64_t value) {
  entry(kNumber, name, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

void FileWriter::real(std::string_view name, double value) {
  entry(kReal, name, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

void FileWriter::text(std::string_view name, std::string_view value) {
  entry(kText, name, value);
}

void FileWriter::add(std::string_view name, std::span<const std::byte> bytes) {
  TableRow row;
  put_name(row.name, name);
  const bool taken =
      name == kMeta || std::any_of(sections_.begin(), sections_.end(),
                                   [&](const Section& s) { return s.name == name; });
  if (taken)
    throw std::logic_error("file: section " + quoted(name) + " was given twice");
  if (sections_.size() + 1 == kMaxSections)
    throw std::logic_error("file: too many sections");
  sections_.push_back({std::string(name), bytes});
}

std::vector<std::span<const std::byte>> FileWriter::parts(std::string& head) const {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kFormatVersion;
  header.sections = static_cast<std::uint32_t>(sections_.size() + 1);
  put_name(header.kind, kind_);

  std::vector<Section> all;
  all.push_back({std::string(kMeta), bytes_of(meta_)});
  all.insert(all.end(), sections_.begin(), sections_.end());

  std::string table;
  std::vector<std::span<const std::byte>> result(1);  // the head, known at the end
  std::uint64_t end = sizeof(Header) + all.size() * sizeof(TableRow);
  for (const Section& section : all) {
    TableRow row{};
    put_name(row.name, section.name);
    row.offset = align_up(end, alignment_of(section.bytes.size()));
    row.length = section.bytes.size();
    row.checksum = checksum(section.bytes);
    append(table, row);
    if (row.offset != end) {
      result.push_back(
          std::span(kZeros).first(static_cast<std::size_t>(row.offset - end)));
    }
    if (row.length != 0) result.push_back(section.bytes);
    end = row.offset + row.length;
  }
  header.file_length = align_up(end, kAlignment);
  if (header.file_length != end) {
    result.push_back(
        std::span(kZeros).first(static_cast<std::size_t>(header.file_length - end)));
  }
  header.table_checksum = checksum(bytes_of(table));
  header.header_checksum = checksum_of(header);
  head.clear();
  append(head, header);
  head += table;
  result[0] = bytes_of(head);
  return result;
}

void FileWriter::write(const std::string& path) const {
  std::string head;
  const auto pieces = parts(head);
  replace_file(path, pieces);
}

std::size_t FileWriter::size() const {
  std::uint64_t end = sizeof(Header) + (sections_.size() + 1) * sizeof(TableRow);
  end = align_up(end, alignment_of(meta_.size())) + meta_.size();
  for (const Section& section : sections_) {
    end = align_up(end, alignment_of(section.bytes.size())) + section.bytes.size();
  }
  return static_cast<std::size_t>(align_up(end, kAlignment));
}

void FileWriter::write_to(std::span<std::byte> out) const {
  std::string head;
  std::size_t done = 0;
  for (const std::span<const std::byte> part : parts(head)) {
    if (part.size() > out.size() - done)
      throw std::logic_error("file: too little room");
    std::memcpy(out.data() + done, part.data(), part.size());
    done += part.size();
  }
}

std::string FileWriter::to_bytes() const {
  std::string result(size(), '\0');
  write_to(std::as_writable_bytes(std::span<char>(result)));
  return result;
}

// --- reading ------------------------------------------------------------------------

struct FileReader::File {
  struct Entry {
    std::string name;
    std::uint32_t type;
    std::string value;
  };
  struct Section {
    std::string name;
    std::span<const std::byte> bytes;
  };

  std::string path;
  std::string kind;
  FileBytes file;
  bool verified;
  std::vector<Entry> entries;
  std::vector<Section> sections;

  File(std::string path_, FileBytes file_, bool verify_payload)
      : path(std::move(path_)), file(std::move(file_)), verified(verify_payload) {
    parse();
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw FormatError(path + ": " + std::string(what));
  }

  void parse() {
    const Header header = checked_header(path, file.bytes);
    kind = get_name(header.kind);
    if (header.file_length != file.bytes.size()) {
      fail("header: the file has " + std::to_string(file.bytes.size()) +
           " bytes and was written with " + std::to_string(header.file_length) +
           "; it is truncated or damaged");
    }
    parse_table(header);
    parse_meta();
  }

  // What can be said from the first 64 bytes, which mean the same in every version.
  static Header checked_header(const std::string& path,
                               std::span<const std::byte> bytes) {
    Header header;
    const std::size_t known = std::min(bytes.size(), sizeof(kMagic));
    if (known == 0 || std::memcmp(bytes.data(), kMagic, known) != 0) {
      throw FormatError(path + ": not an annx file (" +
                        (known == 0 ? "it is empty)" : "its first bytes are others)"));
    }
    if (bytes.size() < sizeof(Header)) {
      throw FormatError(path + ": header: the file is truncated");
    }
    std::memcpy(&header, bytes.data(), sizeof(Header));
    if (header.header_checksum != checksum_of(header)) {
      throw FormatError(path + ": header: damaged (the checksum differs)");
    }
    if (header.version > kFormatVersion) {
      throw FormatError(path + ": header: written in format version " +
                        std::to_string(header.version) + "; this annx reads up to " +
                        std::to_string(kFormatVersion));
    }
    if (header.version == 0) throw FormatError(path + ": header: version 0");
    if (get_name(header.kind).empty()) {
      throw FormatError(path + ": header: the kind is no name");
    }
    return header;
  }

  void parse_table(const Header& header) {
    const std::uint64_t size = file.bytes.size();
    if (header.sections == 0 || header.sections > kMaxSections ||
        header.sections > (size - sizeof(Header)) / sizeof(TableRow)) {
      fail("header: " + std::to_string(header.sections) + " sections cannot be");
    }
    const std::span<const std::byte> table =
        file.bytes.subspan(sizeof(Header), header.sections * sizeof(TableRow));
    if (checksum(table) != header.table_checksum) {
      fail("table: damaged (the checksum differs)");
    }
    std::uint64_t end = sizeof(Header) + table.size();
    for (std::uint32_t i = 0; i < header.sections; ++i) {
      TableRow row;
      std::memcpy(&row, table.data() + i * sizeof(TableRow), sizeof(TableRow));
      const std::string_view name = get_name(row.name);
      if (name.empty()) fail("table: row " + std::to_string(i) + " has no name");
      const std::string where = "section " + quoted(name) + ": ";
      if ((i == 0) != (name == kMeta)) fail(where + "meta must come first, and once");
      if (find_section(name) != nullptr) fail(where + "is there twice");
      if (row.reserved != 0) fail(where + "the reserved field is not zero");
      // No sum can overflow: each is compared with what is left of the file.
      if (row.offset % kAlignment != 0 || row.offset < end ||
          row.offset - end >= kPage || row.offset > size ||
          row.length > size - row.offset) {
        fail(where + "lies at " + std::to_string(row.offset) + " with length " +
             std::to_string(row.length) + ", which does not fit the file");
      }
      const std::span<const std::byte> bytes = file.bytes.subspan(
          static_cast<std::size_t>(row.offset), static_cast<std::size_t>(row.length));
      if ((verified || i == 0) && checksum(bytes) != row.checksum) {
        fail(where + "damaged (the checksum differs)");
      }
      if (verified) check_gap(end, row.offset, where);
      end = row.offset + row.length;
      sections.push_back({std::string(name), bytes});
    }
    if (size != align_up(end, kAlignment))
      fail("table: the sections do not fill the file");
    if (verified) check_gap(end, size, "end: ");
  }

  void check_gap(std::uint64_t begin, std::uint64_t end,
                 const std::string& where) const {
    if (!all_zero(file.bytes.subspan(static_cast<std::size_t>(begin),
                                     static_cast<std::size_t>(end - begin)))) {
      fail(where + "damaged (the bytes before it are not zero)");
    }
  }

  void parse_meta() {
    std::span<const std::byte> rest = sections[0].bytes;
    while (!rest.empty()) {
      EntryHead head;
      if (rest.size() < sizeof(head)) fail("section 'meta': an entry is cut off");
      std::memcpy(&head, rest.data(), sizeof(head));
      rest = rest.subspan(sizeof(head));
      const std::string_view name = get_name(head.name);
      if (name.empty()) fail("section 'meta': an entry has no name");
      const std::string where = "section 'meta': entry " + quoted(name);
      if (find_entry(name) != nullptr) fail(where + " is there twice");
      const std::uint64_t padded = align_up(head.length, 8);
      if (padded > rest.size()) fail(where + " is cut off");
      const std::string value(reinterpret_cast<const char*>(rest.data()), head.length);
      if (!all_zero(rest.subspan(head.length,
                                 static_cast<std::size_t>(padded) - head.length))) {
        fail(where + " is not padded with zeros");
      }
      const bool fits =
          head.type == kText
              ? valid_utf8(value)
              : (head.type == kNumber || head.type == kReal) && head.length == 8;
      if (!fits) fail(where + " has an unknown type or a malformed value");
      if (entries.size() == kMaxEntries) fail("section 'meta': too many entries");
      rest = rest.subspan(static_cast<std::size_t>(padded));
      entries.push_back({std::string(name), head.type, value});
    }
  }

  const Section* find_section(std::string_view name) const {
    for (const Section& section : sections) {
      if (section.name == name) return &section;
    }
    return nullptr;
  }

  const Entry* find_entry(std::string_view name) const {
    for (const Entry& entry : entries) {
      if (entry.name == name) return &entry;
    }
    return nullptr;
  }

  const std::string& value(std::string_view name, std::uint32_t type) const {
    const Entry* entry = find_entry(name);
    if (entry == nullptr) fail("section 'meta': entry " + quoted(name) + " is missing");
    if (entry->type != type) {
      fail("section 'meta': entry " + quoted(name) + " has another type");
    }
    return entry->value;
  }

  const Section& section(std::string_view name) const {
    const Section* found = find_section(name);
    if (found == nullptr) fail("section " + quoted(name) + " is missing");
    return *found;
  }
};

FileReader FileReader::open(const std::string& path, bool mmap, bool verify_payload) {
  FileBytes file = mmap ? map_file(path) : read_file(path);
  return FileReader(
      std::make_shared<const File>(path, std::move(file), verify_payload));
}

FileReader FileReader::from_bytes(std::string_view bytes) {
  auto buffer = std::make_shared<AlignedBuffer>(bytes.size());
  if (!bytes.empty()) std::memcpy(buffer->data(), bytes.data(), bytes.size());
  FileBytes file{{buffer->data(), bytes.size()}, buffer};
  return FileReader(std::make_shared<const File>("bytes", std::move(file), true));
}

std::string FileReader::kind_of(const std::string& path) {
  const FileBytes file = read_file(path, sizeof(Header));
  return std::string(get_name(File::checked_header(path, file.bytes).kind));
}

const std::string& FileReader::kind() const { return file_->kind; }

bool FileReader::verified() const { return file_->verified; }

void FileReader::expect_kind(std::string_view kind) const {
  if (file_->kind != kind) {
    file_->fail("header: holds a " + quoted(file_->kind) + ", not a " + quoted(kind));
  }
}

bool FileReader::has(std::string_view name) const {
  return file_->find_entry(name) != nullptr || file_->find_section(name) != nullptr;
}

std::uint64_t FileReader::number(std::string_view name) const {
  std::uint64_t result;
  std::memcpy(&result, file_->value(name, kNumber).data(), sizeof(result));
  return result;
}

double FileReader::real(std::string_view name) const {
  double result;
  std::memcpy(&result, file_->value(name, kReal).data(), sizeof(result));
  return result;
}

std::string FileReader::text(std::string_view name) const {
  return file_->value(name, kText);
}

std::uint64_t FileReader::number(std::string_view name, std::uint64_t lo,
                                 std::uint64_t hi) const {
  const std::uint64_t result = number(name);
  if (result < lo || result > hi) {
    fail(kMeta, "entry " + quoted(name) + " is " + std::to_string(result) +
                    "; it must be between " + std::to_string(lo) + " and " +
                    std::to_string(hi));
  }
  return result;
}

double FileReader::real(std::string_view name, double lo, double hi) const {
  const double result = real(name);
  // Written so that NaN fails.
  if (!(result >= lo && result <= hi)) {
    std::array<char, 128> range;
    std::snprintf(range.data(), range.size(), " is %g; it must be between %g and %g",
                  result, lo, hi);
    fail(kMeta, "entry " + quoted(name) + range.data());
  }
  return result;
}

std::uint64_t FileReader::section_bytes(std::string_view name) const {
  return file_->section(name).bytes.size();
}

std::span<const std::byte> FileReader::section(std::string_view name, std::size_t count,
                                               std::size_t element) const {
  const std::span<const std::byte> bytes = file_->section(name).bytes;
  // Division, because count * element may not fit.
  if (bytes.size() % element != 0 || bytes.size() / element != count) {
    fail(name, "has " + std::to_string(bytes.size()) + " bytes; " +
                   std::to_string(count) + " elements of " + std::to_string(element) +
                   " bytes were expected");
  }
  return bytes;
}

std::shared_ptr<const void> FileReader::owner() const { return file_->file.owner; }
bool FileReader::mapped() const { return file_->file.mapped; }

std::vector<float> FileReader::finite(std::string_view name,
                                      std::size_t expected_count) const {
  const auto floats = array<float>(name, expected_count);
  std::vector<float> values(floats.data(), floats.data() + expected_count);
  for (const float x : values) {
    require(std::isfinite(x), name, "holds a value that is not finite");
  }
  return values;
}

void FileReader::fail(std::string_view section, std::string_view what) const {
  file_->fail("section " + quoted(section) + ": " + std::string(what));
}

}  // namespace annx::storage
