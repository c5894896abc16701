// Attention over contiguous rows of keys and values, with what comes before it: norms of single
// heads, rotation, and storing the new keys and values, as float16 or as codes of fewer bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace edvac {

// `count` consecutive tokens of one sequence, the first at position `start`; their rows of the step
// begin at `row`.
struct Span {
  std::int32_t slot, start, count, row;
};

inline constexpr int kTile = 32;  // keys that are scored at a time, and tokens of a block of memory

struct Attend {
  int heads, kv_heads, width;      // width of a head
  const float* qkv;                // a row: queries, keys, values of all heads
  std::int64_t stride;
  const float *cosine, *sine;      // rows of width / 2
  const float *query_norm, *key_norm;  // of one head, or null
  float epsilon;
  std::uint8_t* memory;            // of this layer: see `at`
  std::int64_t slot_stride, block_stride, head_stride;  // bytes
  int key_bits, value_bits;        // 16: float16; 8, 4: codes, then step and least, float16
  int key_order, value_order;      // of the Hadamard matrices that they are stored behind; 1: none
  const float* key_bias;           // of each key head, added to keys where they are read; or null
  const float* block_turns;        // each block's first position: a row, cosines before sines
  const float* token_turns;        // the same turned, for the positions in a block: [width][kTile]
  const Span* spans;
  int span_count;
  int split;                       // the first spans are shared out by segments of keys
  float* out;                      // a row: all heads
  std::int64_t out_stride;

  int group() const { return heads / kv_heads; }
  // Bytes of a head that is stored in so many bits.
  int size(int bits) const { return bits == 16 ? 2 * width : width * bits / 8 + 4; }
  int record() const { return size(key_bits) + size(value_bits); }
  // Tokens lie in blocks of a tile; those of one head in one block lie one after the other, the
  // values of each behind its keys.
  std::int64_t at(int slot, int head, std::int64_t position) const {
    return slot * slot_stride + position / kTile * block_stride + head * head_stride +
           position % kTile * record();
  }
};

inline constexpr int kSegment = 1024;    // keys of a part of a split span
inline constexpr int kFewTokens = 16, kManyTokens = 64;  // of a span, that one task mixes

// One task: some tokens of a span, one key head, some of the keys. Its unfinished sums go to `part`
// where there are other segments.
struct Piece {
  int span, head, first, last;  // tokens of the span
  std::int64_t begin, end;      // keys
  float* part;                  // [rows][width + 2]: sums, then largest score and total; or null
};

struct Level;

// Stores the new keys and values of a step of `rows` rows, and mixes the values for each row.
void attend(const Level& use, const Attend& a, std::size_t rows);

}  // namespace edvac
