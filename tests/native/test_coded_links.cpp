// SPDX-License-Identifier: Apache-2.0
// Records of coded links against a plain map, and with handles that no writer made.
#include <cstring>
#include <vector>

#include "annx/base/random.h"
#include "annx/storage/adjacency.h"
#include "annx/storage/coded_links.h"
#include "annx/storage/file.h"
#include "check.h"

namespace {

using namespace annx;
using namespace annx::storage;

using Bytes = std::vector<std::byte>;

// Groups of a record: any slots, any codes.
Bytes make_record(const CodedLinks& links, std::size_t groups, const Random& random,
                  std::uint64_t& at) {
  Bytes bytes(groups * links.group_bytes());
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(at++, 256));
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t lane = 0; lane < kernels::kLinkGroup; ++lane) {
      const auto slot = static_cast<std::uint32_t>(random.below(at++, 1000));
      std::memcpy(bytes.data() + g * links.group_bytes() + 4 * lane, &slot, 4);
    }
  }
  return bytes;
}

// What a search would read of a node, without the marks of what follows.
Bytes read(const CodedLinks& links, std::size_t slot) {
  Bytes bytes;
  for (const std::byte* group = links.record(slot); group != nullptr;
       group = links.next(group)) {
    const std::size_t begin = bytes.size();
    bytes.insert(bytes.end(), group, group + links.group_bytes());
    std::uint32_t word;
    std::memcpy(&word, bytes.data() + begin, 4);
    word &= kSlotMask;
    std::memcpy(bytes.data() + begin, &word, 4);
  }
  return bytes;
}

void check_same(const CodedLinks& links, const std::vector<Bytes>& expected) {
  for (std::size_t slot = 0; slot < expected.size(); ++slot) {
    CHECK(read(links, slot) == expected[slot]);
  }
}

}  // namespace

ANNX_TEST(coded_links_agree_with_a_map_and_use_room_again) {
  constexpr std::size_t kNodes = 40;
  for (const std::size_t parts : {4u, 12u, 64u}) {
    CodedLinks links(parts);
    links.resize(kNodes);
    std::vector<Bytes> expected(kNodes);
    const Random random(5, parts);
    std::uint64_t at = 0;
    std::size_t most = 0;
    for (int step = 0; step < 600; ++step) {
      const auto slot = static_cast<std::size_t>(random.below(at++, kNodes));
      const auto groups = static_cast<std::size_t>(random.below(at++, 4));
      expected[slot] = make_record(links, groups, random, at);
      links.replace(slot, expected[slot].data(), groups);
      if (step == 100) most = links.memory_bytes();
      if (step % 50 == 0) check_same(links, expected);
    }
    check_same(links, expected);
    // Five hundred more records in the room that a hundred took, or not much more.
    CHECK(links.memory_bytes() < 3 * most);
    // A stale record is out of reach, and back once it is written again.
    const Bytes record = make_record(links, 2, random, at);
    links.replace(7, record.data(), 2);
    links.mark_stale(7);
    CHECK(links.record(7) == nullptr);
    CHECK(links.kept(7) != nullptr);
    links.replace(7, record.data(), 2);
    CHECK(read(links, 7) == record);
    expected[7] = record;

    FileWriter writer("graph");
    links.save_to(writer, "links");
    const FileReader reader = FileReader::from_bytes(writer.to_bytes());
    CodedLinks loaded = CodedLinks::load_from(reader, "links", kNodes, parts);
    check_same(loaded, expected);
    // What is free is found again: writing over it harms nobody.
    for (std::size_t slot = 0; slot < kNodes; slot += 3) {
      expected[slot] = make_record(loaded, 1 + slot % 3, random, at);
      loaded.replace(slot, expected[slot].data(), 1 + slot % 3);
    }
    check_same(loaded, expected);
    loaded.resize(kNodes / 2);
    expected.resize(kNodes / 2);
    check_same(loaded, expected);
  }
}

ANNX_TEST(coded_links_of_a_hostile_file_stay_within_their_bytes) {
  constexpr std::size_t kNodes = 30;
  const Random random(9, 0);
  std::uint64_t at = 0;
  for (int round = 0; round < 50; ++round) {
    CodedLinks links(8);
    const std::size_t groups = static_cast<std::size_t>(random.below(at++, 20));
    std::vector<std::uint32_t> handles(kNodes);
    for (std::uint32_t& handle : handles) {
      handle = static_cast<std::uint32_t>(random.below(at++, 40));
      if (random.below(at++, 4) == 0) handle |= 0x80000000u;
    }
    Bytes bytes(groups * links.group_bytes());
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(at++, 256));
    FileWriter writer("graph");
    writer.number("links.group_count", groups);
    writer.add("links.handles", std::as_bytes(std::span(handles)));
    writer.add("links.groups", bytes);
    const FileReader reader = FileReader::from_bytes(writer.to_bytes());
    CodedLinks loaded = CodedLinks::load_from(reader, "links", kNodes, 8);
    for (std::size_t slot = 0; slot < kNodes; ++slot) {
      CHECK(read(loaded, slot).size() <= bytes.size());
    }
    for (int change = 0; change < 60; ++change) {
      const auto slot = static_cast<std::size_t>(random.below(at++, kNodes));
      const auto count = static_cast<std::size_t>(random.below(at++, 3));
      const Bytes record = make_record(loaded, count, random, at);
      loaded.replace(slot, record.data(), count);
      CHECK(read(loaded, slot) == record);
    }
    loaded.resize(3);
  }
}
