// Quantised weight matrices, laid out for products with few and with many rows.
//
// A panel holds 16 outputs. Its codes run in units of 32 numbers of each output; a vector of 64
// bytes holds 4 consecutive codes of each of the 16. Codes lose nothing: they have as many bits as
// in the file, in planes (4 bits, and 1 or 2 more), beside the file's own scales.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace edvac {

enum class Kind { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K };

enum class Scales {
  half,       // a float16 scale for each unit; codes are centred by an offset
  half_pair,  // a float16 scale and a float16 minimum for each unit
  super,      // 8-bit scale and minimum for each unit, float16 factors for each chunk
  super_half  // signed 8-bit scale for each half unit, a float16 factor for each chunk; an offset
};

inline constexpr int kLanes = 16;       // outputs of a panel
inline constexpr int kUnit = 32;        // numbers of a unit
inline constexpr int kVector = 64;      // bytes of 4 codes of each lane
inline constexpr int kVectors = 8;      // vectors of an unpacked unit
inline constexpr int kChunkUnits = 8;   // units that share an activation scale
inline constexpr int kChunk = kUnit * kChunkUnits;

struct Traits {
  int bits;        // of a code
  int offset;      // what is taken from a code; 0 where there are minima
  Scales scales;
  int block;       // numbers of a block in the file
  int block_bytes;
};

constexpr Traits traits(Kind kind) {
  switch (kind) {
    case Kind::Q4_0: return {4, 8, Scales::half, 32, 18};
    case Kind::Q4_1: return {4, 0, Scales::half_pair, 32, 20};
    case Kind::Q5_0: return {5, 16, Scales::half, 32, 22};
    case Kind::Q5_1: return {5, 0, Scales::half_pair, 32, 24};
    case Kind::Q8_0: return {8, 128, Scales::half, 32, 34};
    case Kind::Q4_K: return {4, 0, Scales::super, 256, 144};
    case Kind::Q5_K: return {5, 0, Scales::super, 256, 176};
    case Kind::Q6_K: return {6, 32, Scales::super_half, 256, 210};
  }
  return {};
}

// Scales of a unit: one, or one for each half.
constexpr int groups(Kind kind) { return traits(kind).scales == Scales::super_half ? 2 : 1; }

constexpr std::size_t plane_bytes(Kind kind) { return kLanes * kUnit * traits(kind).bits / 8; }

constexpr std::size_t head_bytes(Kind kind, int units) {
  std::size_t found = 0;
  switch (traits(kind).scales) {
    case Scales::half: found = 32 * units; break;
    case Scales::half_pair: found = 64 * units; break;
    case Scales::super: found = 64 + 32 * units; break;
    case Scales::super_half: found = 32 + 32 * units; break;
  }
  return (found + 63) / 64 * 64;
}

constexpr std::size_t chunk_bytes(Kind kind, int units) {
  return head_bytes(kind, units) + units * plane_bytes(kind);
}

struct Freer {
  std::size_t size;
  void operator()(std::uint8_t* data) const;
};
using Memory = std::unique_ptr<std::uint8_t[], Freer>;

// Zeroed memory at a page's border, in large pages where the system gives them.
Memory allocate(std::size_t size);

struct Matrix {
  Kind kind;
  int outputs;
  int width;
  std::size_t panel_bytes;
  Memory data;

  int panels() const { return (outputs + kLanes - 1) / kLanes; }
  int units() const { return width / kUnit; }
  int chunks() const { return (units() + kChunkUnits - 1) / kChunkUnits; }
  int units_of(int chunk) const {
    const int left = units() - chunk * kChunkUnits;
    return left < kChunkUnits ? left : kChunkUnits;
  }
  const std::uint8_t* chunk(int panel, int index) const {
    return data.get() + panel * panel_bytes + index * chunk_bytes(kind, kChunkUnits);
  }
  std::size_t size() const { return panels() * panel_bytes; }
};

// `raw` holds `outputs` rows of `width` numbers as GGML lays them out; row i of the matrix is row
// order[i] of `raw`, or row i where `order` is empty.
Matrix pack(Kind kind, const std::uint8_t* raw, int outputs, int width,
            const std::vector<std::int32_t>& order);

}  // namespace edvac
