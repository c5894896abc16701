// The arithmetic of attend.hpp over an instruction set V.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "attend.hpp"
#include "kernel.hpp"

namespace edvac {

inline constexpr float kLeast = -1e30F;  // below every score

// A head, normalised and rotated; the halves of a head lie one after the other.
inline void prepare_head(const Attend& a, const float* from, const float* norm, int row,
                         float scale, float* to) {
  float factor = 1.0F;
  if (norm != nullptr) {
    float squares = 0;
    for (int i = 0; i < a.width; ++i) squares += from[i] * from[i];
    factor = 1.0F / std::sqrt(squares / static_cast<float>(a.width) + a.epsilon);
  }
  const int half = a.width / 2;
  const float *cosine = a.cosine + static_cast<std::int64_t>(row) * half;
  const float *sine = a.sine + static_cast<std::int64_t>(row) * half;
  for (int i = 0; i < half; ++i) {
    float first = from[i] * factor, second = from[i + half] * factor;
    if (norm != nullptr) first *= norm[i], second *= norm[i + half];
    to[i] = (first * cosine[i] - second * sine[i]) * scale;
    to[i + half] = (second * cosine[i] + first * sine[i]) * scale;
  }
}

// One row: its queries, scaled, to `queries`; its keys and values where they stay.
template <class V>
void prepare_row(const Attend& a, const Span& span, int token, float* queries) {
  const int row = span.row + token;
  const float* from = a.qkv + row * a.stride;
  const float scale = 1.0F / std::sqrt(static_cast<float>(a.width));
  for (int head = 0; head < a.heads; ++head)
    prepare_head(a, from + head * a.width, a.query_norm, row, scale, queries + head * a.width);
  const float* keys = from + a.heads * a.width;
  const float* values = keys + a.kv_heads * a.width;
  thread_local std::vector<float> rotated;
  rotated.resize(a.width);
  for (int head = 0; head < a.kv_heads; ++head) {
    prepare_head(a, keys + head * a.width, a.key_norm, row, 1.0F, rotated.data());
    const std::int64_t at = a.at(span.slot, head, span.start + token);
    for (int i = 0; i < a.width; i += kLanes) {
      V::store_half(a.keys + at + i, V::load(rotated.data() + i));
      V::store_half(a.values + at + i, V::load(values + head * a.width + i));
    }
  }
}

template <class V>
struct Mixer {
  using Float = typename V::Float;

  // A tile of keys, turned (a vector of keys for each number of a head), and of values.
  struct Tile {
    std::vector<float> memory;
    float *keys, *values;
    int width;  // padded to whole tiles' width

    explicit Tile(int width_) : width((width_ + kTile - 1) / kTile * kTile) {
      memory.assign(2 * static_cast<std::size_t>(width) * kTile + 16, 0.0F);
      keys = reinterpret_cast<float*>(
          (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
      values = keys + static_cast<std::size_t>(width) * kTile;
    }
  };

  // `count` keys and values from position `at` on; the places beyond hold zeros.
  static void fill(const Attend& a, const Piece& piece, std::int64_t at, int count, Tile& tile) {
    const std::int64_t start = a.at(a.spans[piece.span].slot, piece.head, at);
    const std::uint16_t *keys = a.keys + start, *values = a.values + start;
    for (int j = 0; j < kTile; j += kLanes) {
      for (int d = 0; d < a.width; d += kLanes) {
        Float rows[kLanes];
        for (int i = 0; i < kLanes; ++i)
          rows[i] = j + i < count ? V::half(keys + (j + i) * a.width + d) : V::zero();
        V::turn(rows);
        for (int i = 0; i < kLanes; ++i) V::store(tile.keys + (d + i) * kTile + j, rows[i]);
      }
    }
    for (int j = 0; j < kTile; ++j)
      for (int d = 0; d < a.width; d += kLanes)
        V::store(tile.values + j * tile.width + d,
                 j < count ? V::half(values + j * a.width + d) : V::zero());
  }

  // R rows of sums, 32 wide: sums[r] += sum over i of left[r][i] * right[i].
  template <int R>
  static void add(const float* const* left, int depth, const float* right, int right_stride,
                  Float (*sums)[2]) {
    for (int i = 0; i < depth; ++i) {
      const Float low = V::load(right + i * right_stride);
      const Float high = V::load(right + i * right_stride + kLanes);
      for (int r = 0; r < R; ++r) {
        const Float x = V::set(left[r][i]);
        sums[r][0] = V::fma(x, low, sums[r][0]);
        sums[r][1] = V::fma(x, high, sums[r][1]);
      }
    }
  }

  struct State {
    float largest = kLeast, total = 0;
  };

  // One tile for R rows: `seen[r]` of its keys are visible to row r.
  template <int R>
  static void step(const Tile& tile, int width, const float* const* queries, const int* seen,
                   State* states, float* const* mixed) {
    Float scores[R][2];
    for (int r = 0; r < R; ++r) scores[r][0] = scores[r][1] = V::zero();
    add<R>(queries, width, tile.keys, kTile, scores);
    alignas(64) float weights[R][kTile];
    float keep[R];
    const float* left[R];
    for (int r = 0; r < R; ++r) {
      State& state = states[r];
      const Float low = V::first(seen[r], scores[r][0], kLeast);
      const Float high = V::first(seen[r] - kLanes, scores[r][1], kLeast);
      const float largest = std::max(state.largest, edvac::largest<V>(V::max(low, high)));
      const Float away = V::set(largest);
      const Float one = V::first(seen[r], exponential<V>(V::sub(low, away)), 0.0F);
      const Float two = V::first(seen[r] - kLanes, exponential<V>(V::sub(high, away)), 0.0F);
      V::store(weights[r], one);
      V::store(weights[r] + kLanes, two);
      keep[r] = std::exp(state.largest - largest);
      state.total = state.total * keep[r] + total<V>(V::add(one, two));
      state.largest = largest;
      left[r] = weights[r];
    }
    for (int d = 0; d < tile.width; d += kTile) {
      Float sums[R][2];
      for (int r = 0; r < R; ++r) {
        sums[r][0] = V::mul(V::set(keep[r]), V::load(mixed[r] + d));
        sums[r][1] = V::mul(V::set(keep[r]), V::load(mixed[r] + d + kLanes));
      }
      add<R>(left, kTile, tile.values + d, tile.width, sums);
      for (int r = 0; r < R; ++r) {
        V::store(mixed[r] + d, sums[r][0]);
        V::store(mixed[r] + d + kLanes, sums[r][1]);
      }
    }
  }

  template <int R>
  static int steps(const Tile& tile, int width, int row, int rows, const float* const* queries,
                   const int* seen, State* states, float* const* mixed) {
    for (; row + R <= rows; row += R)
      step<R>(tile, width, queries + row, seen + row, states + row, mixed + row);
    return row;
  }

  static void mix(const Attend& a, const Piece& piece, const float* queries) {
    const Span& span = a.spans[piece.span];
    const int group = a.group(), rows = (piece.last - piece.first) * group;
    Tile tile(a.width);
    std::vector<float> sums(static_cast<std::size_t>(rows) * tile.width, 0.0F);
    std::vector<State> states(rows);
    std::vector<const float*> query(rows);
    std::vector<float*> mixed(rows);
    std::vector<int> seen(rows);
    for (int row = 0; row < rows; ++row) {
      const std::int64_t token = span.row + piece.first + row / group;
      const int head = piece.head * group + row % group;
      query[row] = queries + (token * a.heads + head) * a.width;
      mixed[row] = sums.data() + static_cast<std::size_t>(row) * tile.width;
    }
    for (std::int64_t at = piece.begin; at < piece.end; at += kTile) {
      const int count = static_cast<int>(std::min<std::int64_t>(kTile, piece.end - at));
      fill(a, piece, at, count, tile);
      for (int row = 0; row < rows; ++row) {
        const std::int64_t visible = span.start + piece.first + row / group + 1 - at;
        seen[row] = static_cast<int>(std::clamp<std::int64_t>(visible, 0, count));
      }
      int row = 0;
      if constexpr (V::kRows >= 6)
        row = steps<6>(tile, a.width, row, rows, query.data(), seen.data(), states.data(),
                       mixed.data());
      row = steps<3>(tile, a.width, row, rows, query.data(), seen.data(), states.data(),
                     mixed.data());
      steps<1>(tile, a.width, row, rows, query.data(), seen.data(), states.data(), mixed.data());
    }
    for (int row = 0; row < rows; ++row) {
      if (piece.part != nullptr) {
        float* part = piece.part + static_cast<std::size_t>(row) * (a.width + 2);
        std::memcpy(part, mixed[row], a.width * sizeof(float));
        part[a.width] = states[row].largest;
        part[a.width + 1] = states[row].total;
      } else {
        put(a, span, piece, row, mixed[row], states[row].total);
      }
    }
  }

  static void put(const Attend& a, const Span& span, const Piece& piece, int row,
                  const float* mixed, float total) {
    const int group = a.group();
    const std::int64_t token = span.row + piece.first + row / group;
    float* to = a.out + token * a.out_stride + (piece.head * group + row % group) * a.width;
    for (int i = 0; i < a.width; ++i) to[i] = mixed[i] / total;
  }

  // The segments of one piece, put together in their order.
  static void join(const Attend& a, const Piece* pieces, int count) {
    const Piece& piece = pieces[0];
    const Span& span = a.spans[piece.span];
    const int rows = (piece.last - piece.first) * a.group();
    std::vector<float> sums(a.width);
    for (int row = 0; row < rows; ++row) {
      const std::size_t at = static_cast<std::size_t>(row) * (a.width + 2);
      float largest = kLeast, total = 0;
      for (int i = 0; i < count; ++i) largest = std::max(largest, pieces[i].part[at + a.width]);
      std::fill(sums.begin(), sums.end(), 0.0F);
      for (int i = 0; i < count; ++i) {
        const float* part = pieces[i].part + at;
        const float keep = std::exp(part[a.width] - largest);
        total += part[a.width + 1] * keep;
        for (int d = 0; d < a.width; ++d) sums[d] += part[d] * keep;
      }
      put(a, span, piece, row, sums.data(), total);
    }
  }
};

}  // namespace edvac
