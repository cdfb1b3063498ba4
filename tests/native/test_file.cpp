// SPDX-License-Identifier: Apache-2.0
// The file format without any index: what is written comes back, and no damage passes.
// Under the sanitizer build these tests also show that nothing is read out of bounds.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "annx/base/error.h"
#include "annx/base/random.h"
#include "annx/storage/checksum.h"
#include "annx/storage/file.h"
#include "check.h"

namespace {

using annx::FileError;
using annx::FormatError;
using annx::storage::FileReader;
using annx::storage::FileWriter;

// A folder that goes away with its object.
class Folder {
 public:
  Folder() {
    static int count = 0;
    const auto unique = std::to_string(reinterpret_cast<std::uintptr_t>(this)) + "-" +
                        std::to_string(count++);
    path_ = std::filesystem::temp_directory_path() / ("annx-test-" + unique);
    std::filesystem::create_directory(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string file(const char* name) const { return (path_ / name).string(); }
  std::size_t entries() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(path_))
      ++count;
    return count;
  }

 private:
  std::filesystem::path path_;
};

void put(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

struct Sample {
  std::vector<float> rows = std::vector<float>(37, 1.5f);
  std::vector<std::int64_t> ids = {1, 2, -3};
  std::vector<std::uint32_t> none;
  std::string bytes;

  explicit Sample(std::size_t row_count = 37) : rows(row_count, 1.5f) {
    FileWriter writer("sample");
    fill(writer);
    bytes = writer.to_bytes();
  }
  void fill(FileWriter& writer) const {
    writer.number("count", rows.size());
    writer.real("alpha", 1.25);
    writer.text("metric", "l2");
    writer.add("rows", std::as_bytes(std::span(rows)));
    writer.add("none", std::as_bytes(std::span(none)));
    writer.add("ids", std::as_bytes(std::span(ids)));
  }
};

// Rewrites the header's and the table's checksums, so that the checks behind them see
// the damage. A row's checksum of its section is left alone.
void seal(std::string& bytes) {
  if (bytes.size() < 64) return;
  std::uint32_t sections;
  std::memcpy(&sections, bytes.data() + 12, 4);
  const std::size_t room = bytes.size() - 64;
  const std::size_t table = std::min<std::size_t>(room, std::size_t{64} * sections);
  auto sum =
      annx::storage::checksum(std::as_bytes(std::span(bytes.data() + 64, table)));
  std::memcpy(bytes.data() + 24, &sum, 8);
  sum = annx::storage::checksum(std::as_bytes(std::span(bytes.data(), 56)));
  std::memcpy(bytes.data() + 56, &sum, 8);
}

ANNX_TEST(file_round_trip) {
  const Folder folder;
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{37}, std::size_t{40000}}) {
    const Sample sample(count);
    FileWriter writer("sample");
    sample.fill(writer);
    CHECK_EQ(writer.size(), sample.bytes.size());
    writer.write(folder.file("a"));
    CHECK_EQ(folder.entries(), std::size_t{1});
    for (int way = 0; way < 5; ++way) {
      const FileReader reader =
          way == 4 ? FileReader::from_bytes(sample.bytes)
                   : FileReader::open(folder.file("a"), way & 1, way & 2);
      CHECK_EQ(reader.kind(), "sample");
      CHECK_EQ(reader.number("count"), count);
      CHECK_EQ(reader.real("alpha"), 1.25);
      CHECK_EQ(reader.text("metric"), "l2");
      CHECK(reader.has("count") && reader.has("rows") && !reader.has("nothing"));
      const auto rows = reader.array<float>("rows", count);
      CHECK_EQ(reinterpret_cast<std::uintptr_t>(rows.data()) % 64, 0u);

      CHECK_EQ(reader.array<std::int64_t>("ids", 3)[2], -3);
      CHECK_EQ(reader.array<std::uint32_t>("none", 0).size(), std::size_t{0});
    }
    CHECK_EQ(FileReader::kind_of(folder.file("a")), "sample");
  }
}

ANNX_TEST(file_array_outlives_reader_and_copies_on_change) {
  const Folder folder;
  put(folder.file("a"), Sample().bytes);
  auto rows = FileReader::open(folder.file("a"), true, true).array<float>("rows", 37);
  CHECK(rows.borrowed());
  CHECK_EQ(rows[36], 1.5f);
  rows.push_back(2.0f);
  CHECK(!rows.borrowed());
  CHECK_EQ(rows[36] + rows[37], 3.5f);
  CHECK_EQ(FileReader::open(folder.file("a"), true, true).section_bytes("rows"), 148u);
}

ANNX_TEST(file_refuses_what_was_not_asked_for) {
  const FileReader reader = FileReader::from_bytes(Sample().bytes);
  CHECK_THROWS(reader.number("alpha"), FormatError);
  CHECK_THROWS(reader.number("nothing"), FormatError);
  CHECK_THROWS(reader.number("count", 0, 36), FormatError);
  CHECK_EQ(reader.number("count", 37, 37), 37u);
  CHECK_THROWS(reader.real("alpha", 2.0, 3.0), FormatError);
  CHECK_THROWS(reader.text("count"), FormatError);
  CHECK_THROWS(reader.array<float>("rows", 36), FormatError);
  CHECK_THROWS(reader.array<float>("rows", 38), FormatError);
  // 2^62 + 37 floats have the right length modulo 2^64.
  CHECK_THROWS(reader.array<float>("rows", (std::size_t{1} << 62) + 37), FormatError);
  CHECK_THROWS(reader.array<float>("nothing", 0), FormatError);
  CHECK_THROWS(reader.expect_kind("other"), FormatError);
  reader.expect_kind("sample");
}

ANNX_TEST(file_writer_refuses_bad_names) {
  CHECK_THROWS(FileWriter(""), std::logic_error);
  CHECK_THROWS(FileWriter("a kind of more than 24 letters"), std::logic_error);
  FileWriter writer("sample");
  CHECK_THROWS(writer.number("with space", 1), std::logic_error);
  writer.number("twice", 1);
  CHECK_THROWS(writer.real("twice", 1), std::logic_error);
  CHECK_THROWS(writer.add("meta", {}), std::logic_error);
  writer.add("section", {});
  CHECK_THROWS(writer.add("section", {}), std::logic_error);
  CHECK_THROWS(writer.text("text", "\xff"), std::logic_error);
}

ANNX_TEST(file_every_corruption_is_noticed) {
  const Folder folder;
  const std::string path = folder.file("a");
  const std::string good = Sample(20000).bytes;  // with a gap up to a page
  std::string bytes = good;
  for (std::size_t i = 0; i < good.size(); ++i) {
    // Everything up to the big section, then a sample of its inside, then all that
    // follows.
    if (i > 4200 && i + 600 < good.size() && i % 997 != 0) continue;
    for (const int mask : {0xFF, 0x01}) {
      bytes[i] = static_cast<char>(good[i] ^ mask);
      CHECK_THROWS(FileReader::from_bytes(bytes), FormatError);
    }
    if (i % 101 == 0) {
      put(path, bytes);
      CHECK_THROWS(FileReader::open(path, true, true), FormatError);
      CHECK_THROWS(FileReader::open(path, false, true), FormatError);
    }
    bytes[i] = good[i];
  }
  FileReader::from_bytes(bytes);
}

ANNX_TEST(file_every_truncation_is_noticed) {
  const std::string good = Sample().bytes;
  for (std::size_t n = 0; n < good.size(); ++n) {
    CHECK_THROWS(FileReader::from_bytes(good.substr(0, n)), FormatError);
  }
  CHECK_THROWS(FileReader::from_bytes(good + '\0'), FormatError);
  CHECK_THROWS(FileReader::from_bytes(good + good), FormatError);
}

ANNX_TEST(file_hostile_header_and_table_do_no_harm) {
  const Folder folder;
  const std::string path = folder.file("a");
  const std::string good = Sample().bytes;
  const std::size_t head = 64 + 4 * 64;
  const annx::Random random(1);
  const std::uint64_t extremes[] = {0,
                                    1,
                                    63,
                                    64,
                                    65,
                                    4096,
                                    0x7FFFFFFFu,
                                    0xFFFFFFFFu,
                                    0x7FFFFFFFFFFFFFFFull,
                                    0x8000000000000000ull,
                                    0xFFFFFFFFFFFFFFC0ull,
                                    0xFFFFFFFFFFFFFFFFull};
  std::size_t accepted = 0;
  for (std::uint64_t trial = 0; trial < 6000; ++trial) {
    std::string bytes = good;
    for (std::uint64_t change = 0; change <= random.below(4 * trial, 3); ++change) {
      const std::uint64_t draw = random.bits((trial << 8) + 16 + change);
      const std::size_t word = 8 + draw % (head / 8 - 1) * 8;
      const std::uint64_t value = (draw >> 32) % 2 == 0
                                      ? extremes[(draw >> 40) % std::size(extremes)]
                                      : random.bits((trial << 8) + 128 + change);
      std::memcpy(bytes.data() + word, &value, 8);
    }
    seal(bytes);
    try {
      const FileReader reader = FileReader::from_bytes(bytes);
      ++accepted;
    } catch (const FormatError&) {
    }
    if (trial % 10 != 0) continue;
    put(path, bytes);
    try {
      const FileReader reader = FileReader::open(path, true, false);
      for (const char* name : {"rows", "none", "ids"}) {
        if (!reader.has(name)) continue;
        // Reads every byte that the reader gives access to.
        const auto size = static_cast<std::size_t>(reader.section_bytes(name));
        const auto section = reader.array<std::uint8_t>(name, size);
        annx::storage::checksum(section.bytes());
      }
    } catch (const FormatError&) {
    }
  }
  // Most changes must be refused, not all: a section may be renamed, say.
  CHECK(accepted < 3000);
}

ANNX_TEST(file_newer_version_says_so) {
  std::string bytes = Sample().bytes;
  bytes[8] = 2;
  try {
    FileReader::from_bytes(bytes);
    CHECK(false);
  } catch (const FormatError& e) {
    CHECK(std::string(e.what()).find("checksum") != std::string::npos);
  }
  seal(bytes);
  try {
    FileReader::from_bytes(bytes);
    CHECK(false);
  } catch (const FormatError& e) {
    CHECK(std::string(e.what()).find("version 2") != std::string::npos);
  }
}

ANNX_TEST(file_failed_write_leaves_nothing_behind) {
  const Folder folder;
  const Sample sample;
  FileWriter writer("sample");
  sample.fill(writer);
  CHECK_THROWS(writer.write(folder.file("no/folder")), FileError);
  std::filesystem::create_directory(folder.file("taken"));
  CHECK_THROWS(writer.write(folder.file("taken")), FileError);
  CHECK_EQ(folder.entries(), std::size_t{1});
  CHECK_THROWS(FileReader::open(folder.file("missing"), false, true), FileError);
  CHECK_THROWS(FileReader::open(folder.file("missing"), true, true), FileError);
}

ANNX_TEST(file_checksum_notices_small_changes) {
  // Any one or two flipped bits, at every distance within a few blocks.
  std::vector<std::byte> bytes(160);
  const annx::Random random(7);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(random.below(i, 256));
  }
  const auto flip = [&](std::size_t bit) {
    bytes[bit / 8] ^= std::byte(1 << (bit % 8));
  };
  const std::uint64_t before = annx::storage::checksum(bytes);
  for (std::size_t a = 0; a < bytes.size() * 8; ++a) {
    flip(a);
    CHECK(annx::storage::checksum(bytes) != before);
    for (std::size_t b = a + 1; b < bytes.size() * 8; b += 1 + a % 3) {
      flip(b);
      CHECK(annx::storage::checksum(bytes) != before);
      flip(b);
    }
    flip(a);
  }
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    CHECK(annx::storage::checksum(std::span(bytes).first(n)) != before);
  }
}

}  // namespace
