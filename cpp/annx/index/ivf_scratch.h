// SPDX-License-Identifier: Apache-2.0
// What an IvfIndex searches with, for ivf*.cpp alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/codec/piece_codec.h"
#include "annx/index/ivf.h"

namespace annx::index {

// Memory that a search works in, kept from call to call.
struct IvfIndex::Scratch {
  codec::PieceCodec::Query query;
  codec::GridCodec::Query grid;
  std::vector<float> bases;  // of slots, for grid
  std::vector<float> plain;
  // Of up to kScorePoints queries.
  std::vector<float> vectors;
  std::vector<float> centred;
  std::vector<float> list_keys;  // `stride` apart, a multiple of kGroup
  std::size_t stride = 0;
  float squares[kernels::kScorePoints];  // what l2's keys lack: |q'|^2
  std::vector<float> minima;
  std::vector<std::uint32_t> probes;
  std::vector<float> probe_keys;
  std::vector<std::uint32_t> tied;  // places, in drop_ties()
  // Candidates, `size` of them: estimate, place, and which of the probes.
  std::vector<float> keys;
  std::vector<std::uint32_t> places;
  std::vector<std::uint32_t> origins;
  std::vector<std::uint32_t> chosen;  // numbers of candidates
  std::vector<std::uint32_t> slots;
  std::vector<std::uint32_t> later;
  // Slots whose inner product was taken, and the distance that follows from it.
  std::vector<std::uint32_t> measured;
  std::vector<float> screened;
  std::size_t size = 0;
  std::size_t wanted = 0;
  std::size_t full = 0;
  float limit = 0;              // what estimates must not exceed
  std::size_t row = 0;          // which of the queries
  std::vector<Scratch> others;  // of the queries of a batch
  std::vector<std::uint32_t> seen;

  // Sets probes to those of `lists` lists with the `wanted` least keys for query `row`,
  // nearest first.
  void choose(std::size_t row, std::size_t lists, std::size_t wanted, bool products);
  // Makes ready to scan codes.
  void start(const codec::PieceCodec& codec, const float* vector,
             std::size_t wanted_now, std::size_t codes);
  // Keeps the `wanted` least estimates, or up to an eighth more unless `exactly`;
  // returns the greatest of them.
  float shrink(std::size_t wanted, bool exactly);
  void drop_ties(std::size_t wanted, float limit);
  // For two copies a row.
  void drop_doubles(const storage::CodeLists& lists);
};

}  // namespace annx::index
