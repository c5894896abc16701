// Activations as the products read them: signed 8-bit codes in groups of rows.
//
// Codes of four consecutive numbers of each row of a group lie side by side, so that one pointer
// serves a whole group. Each row has a scale for every 256 numbers (as GGML's Q8_K), and the sums
// of its codes, by which minima and offsets of the weights are multiplied.
#pragma once
#include <cstdint>
#include <vector>

#include "attend.hpp"
#include "packed.hpp"

namespace edvac {

inline constexpr int kMostRows = 8;  // rows of a group

struct Rows {
  int count;
  int width;
  int group;  // rows of each group, a power of two
  std::vector<std::int8_t> codes;   // [groups][width / 4][group][4]
  std::vector<float> scales;        // [groups][chunks][group]
  std::vector<float> sums;          // [groups][width / 32][group]
  std::vector<float> half_sums;     // [groups][width / 16][group]

  Rows(int count_, int width_);
  int groups() const { return (count + group - 1) / group; }
  int chunks() const { return (width + kChunk - 1) / kChunk; }
};

// Where the numbers of a row come from.
struct Source {
  enum class Kind { plain, normed, gated } kind;
  const float* values;   // rows of `stride` numbers
  std::int64_t stride;
  const float* weight;   // normed: of the norm
  float epsilon;         // normed
};

struct Output {
  float* values;
  std::int64_t stride;
  const float* bias;  // or null
};

// What one instruction set offers. All give the same bits.
struct Level {
  const char* name;
  // Row `row` of the source into its place.
  void (*take)(const Source& source, int row, Rows& rows);
  // Row `row` of the source as unsigned codes around 128, and its one scale.
  void (*encode)(const Source& source, int row, int width, std::uint8_t* codes, float* scale);
  // 16 outputs of the matrix for the rows of groups `first` to `last` - 1.
  void (*multiply)(const Matrix& matrix, const Rows& rows, int first, int last, int panel,
                   const Output& out);
  // One token of a span (attend.hpp): queries made ready, keys and values stored.
  void (*prepare)(const Attend& attend, const Span& span, int token, float* queries);
  void (*mix)(const Attend& attend, const Piece& piece, const float* queries);
  void (*join)(const Attend& attend, const Piece* pieces, int count);
};

extern const Level kAvx2, kAvxVnni, kAvx512;

// The best level of this processor up to the one that is named; null where there is none.
const Level* find_level(const char* most);

}  // namespace edvac
