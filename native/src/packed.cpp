#include "packed.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "threads.hpp"

namespace edvac {

void Freer::operator()(std::uint8_t* data) const { munmap(data, size); }

Memory allocate(std::size_t size) {
  void* found =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) throw std::bad_alloc();
  madvise(found, size, MADV_HUGEPAGE);  // a wish: without large pages it is only slower
  return Memory(static_cast<std::uint8_t*>(found), Freer{size});
}

namespace {

// One block of the file, decoded: codes without offset, and its scales as they stand.
struct Block {
  std::uint8_t codes[256];
  std::uint8_t scale[16], minimum[16];  // K kinds: of each group
  std::uint16_t factor, floor;          // float16
};

std::uint16_t half_at(const std::uint8_t* at) {
  std::uint16_t found;
  std::memcpy(&found, at, 2);
  return found;
}

// 32 codes: low halves of 16 bytes first, then their high halves, with a fifth bit where there is.
void nibbles(const std::uint8_t* low, const std::uint8_t* fifth, std::uint8_t* codes) {
  std::uint32_t bits = 0;
  if (fifth != nullptr) std::memcpy(&bits, fifth, 4);
  for (int i = 0; i < 16; ++i) {
    codes[i] = (low[i] & 15) | ((bits >> i & 1) << 4);
    codes[i + 16] = (low[i] >> 4) | ((bits >> (i + 16) & 1) << 4);
  }
}

// Eight scales and minima of 6 bits in 12 bytes (see edvac.engine.quants).
void k_scales(const std::uint8_t* packed, Block& block) {
  for (int i = 0; i < 4; ++i) {
    const std::uint8_t first = packed[i], second = packed[i + 4], third = packed[i + 8];
    block.scale[i] = first & 63;
    block.minimum[i] = second & 63;
    block.scale[i + 4] = (third & 15) | (first >> 6 << 4);
    block.minimum[i + 4] = (third >> 4) | (second >> 6 << 4);
  }
}

void k_codes(const std::uint8_t* low, const std::uint8_t* fifth, std::uint8_t* codes) {
  for (int unit = 0; unit < 8; ++unit) {
    const std::uint8_t* bytes = low + unit / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int bit = fifth == nullptr ? 0 : fifth[i] >> unit & 1;
      codes[unit * 32 + i] = (unit % 2 ? bytes[i] >> 4 : bytes[i] & 15) | bit << 4;
    }
  }
}

void q6_codes(const std::uint8_t* low, const std::uint8_t* high, std::uint8_t* codes) {
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, at = i % 32;
    const std::uint8_t byte = low[half * 64 + quarter % 2 * 32 + at];
    const int top = high[half * 32 + at] >> (2 * quarter) & 3;
    codes[i] = (quarter / 2 ? byte >> 4 : byte & 15) | top << 4;
  }
}

void read(Kind kind, const std::uint8_t* at, Block& block) {
  block.factor = half_at(at);
  switch (kind) {
    case Kind::Q4_0: return nibbles(at + 2, nullptr, block.codes);
    case Kind::Q4_1: block.floor = half_at(at + 2); return nibbles(at + 4, nullptr, block.codes);
    case Kind::Q5_0: return nibbles(at + 6, at + 2, block.codes);
    case Kind::Q5_1: block.floor = half_at(at + 2); return nibbles(at + 8, at + 4, block.codes);
    case Kind::Q8_0:
      for (int i = 0; i < 32; ++i) block.codes[i] = at[2 + i] ^ 0x80;  // signed to offset 128
      return;
    case Kind::Q4_K:
      block.floor = half_at(at + 2);
      k_scales(at + 4, block);
      return k_codes(at + 16, nullptr, block.codes);
    case Kind::Q5_K:
      block.floor = half_at(at + 2);
      k_scales(at + 4, block);
      return k_codes(at + 48, at + 16, block.codes);
    case Kind::Q6_K:
      block.factor = half_at(at + 208);
      std::memcpy(block.scale, at + 192, 16);
      return q6_codes(at, at + 128, block.codes);
  }
}

// 32 codes of one lane into the planes of its unit.
void put_codes(int bits, const std::uint8_t* codes, int lane, std::uint8_t* planes) {
  for (int vector = 0; vector < kVectors; ++vector) {
    for (int i = 0; i < 4; ++i) {
      const std::uint8_t code = codes[vector * 4 + i];
      const int at = lane * 4 + i;
      if (bits == 8) {
        planes[vector * kVector + at] = code;
        continue;
      }
      planes[vector / 2 * kVector + at] |= (code & 15) << (vector % 2 * 4);
      if (bits == 5) planes[4 * kVector + at] |= (code >> 4) << vector;
      if (bits == 6)
        planes[(4 + vector / 4) * kVector + at] |= (code >> 4) << (vector % 4 * 2);
    }
  }
}

void put_half(std::uint8_t* at, int lane, std::uint16_t value) {
  std::memcpy(at + 2 * lane, &value, 2);
}

// The scales of `unit` of a chunk, from the block that holds it at its `inside`th unit.
void put_scales(Scales how, const Block& block, int unit, int inside, int lane,
                std::uint8_t* head) {
  switch (how) {
    case Scales::half: return put_half(head + 32 * unit, lane, block.factor);
    case Scales::half_pair:
      put_half(head + 64 * unit, lane, block.factor);
      return put_half(head + 64 * unit + 32, lane, block.floor);
    case Scales::super:
      put_half(head, lane, block.factor);
      put_half(head + 32, lane, block.floor);
      head[64 + 32 * unit + lane] = block.scale[inside];
      head[64 + 32 * unit + 16 + lane] = block.minimum[inside];
      return;
    case Scales::super_half:
      put_half(head, lane, block.factor);
      head[32 + 32 * unit + lane] = block.scale[2 * inside];
      head[32 + 32 * unit + 16 + lane] = block.scale[2 * inside + 1];
      return;
  }
}

void pack_row(const Matrix& matrix, const std::uint8_t* row, int panel, int lane) {
  const Traits t = traits(matrix.kind);
  const int per_block = t.block / kUnit;
  Block block{};
  for (int unit = 0; unit < matrix.units(); ++unit) {
    if (unit % per_block == 0) read(matrix.kind, row + unit / per_block * t.block_bytes, block);
    const int chunk = unit / kChunkUnits, at = unit % kChunkUnits, inside = unit % per_block;
    auto* head = const_cast<std::uint8_t*>(matrix.chunk(panel, chunk));
    std::uint8_t* planes = head + head_bytes(matrix.kind, matrix.units_of(chunk));
    put_scales(t.scales, block, at, inside, lane, head);
    put_codes(t.bits, block.codes + inside * kUnit, lane,
              planes + at * plane_bytes(matrix.kind));
  }
}

}  // namespace

Matrix pack(Kind kind, const std::uint8_t* raw, int outputs, int width,
            const std::vector<std::int32_t>& order) {
  const Traits t = traits(kind);
  Matrix matrix{kind, outputs, width, 0, Memory(nullptr, Freer{0})};
  const int last = matrix.chunks() - 1;
  matrix.panel_bytes =
      last * chunk_bytes(kind, kChunkUnits) + chunk_bytes(kind, matrix.units_of(last));
  matrix.data = allocate(matrix.size());
  const std::size_t row_bytes = static_cast<std::size_t>(width / t.block) * t.block_bytes;
  parallel(matrix.panels(), [&](std::size_t panel) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int output = static_cast<int>(panel) * kLanes + lane;
      if (output >= outputs) break;  // lanes beyond the last output stay zero
      const std::size_t row = order.empty() ? output : order[output];
      pack_row(matrix, raw + row * row_bytes, static_cast<int>(panel), lane);
    }
  });
  return matrix;
}

}  // namespace edvac
