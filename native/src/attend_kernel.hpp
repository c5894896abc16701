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

// Every `order` neighbours times the Hadamard matrix of that order, by butterflies.
inline void hadamard(float* x, int width, int order) {
  for (int step = 1; step < order; step *= 2) {
    for (int base = 0; base < width; base += 2 * step) {
      for (int i = base; i < base + step; ++i) {
        const float first = x[i], second = x[i + step];
        x[i] = first + second;
        x[i + step] = first - second;
      }
    }
  }
  const float scale = 1.0F / std::sqrt(static_cast<float>(order));
  for (int i = 0; i < width; ++i) x[i] *= scale;
}

// The numbers of one head as they stay; every level rounds alike.
template <class V>
void put_head(const float* from, int width, int bits, std::uint8_t* to) {
  if (bits == 16) {
    auto* halves = reinterpret_cast<std::uint16_t*>(to);
    for (int i = 0; i < width; i += kLanes) V::store_half(halves + i, V::load(from + i));
    return;
  }
  auto low = V::load(from), high = low;
  for (int i = kLanes; i < width; i += kLanes) {
    low = V::min(low, V::load(from + i));
    high = V::max(high, V::load(from + i));
  }
  const float top = bits == 8 ? 255.0F : 15.0F, floor = least<V>(low);
  // Zero is added because it has two signs: equal numbers, but not equal bytes.
  const float step = (largest<V>(high) - floor) * (1.0F / top) + 0.0F;
  constexpr float kMost = 65504.0F;  // of float16
  alignas(64) float numbers[kLanes] = {std::min(step, kMost),
                                       std::clamp(floor + 0.0F, -kMost, kMost)};
  alignas(64) std::uint16_t parameters[kLanes];
  V::store_half(parameters, V::load(numbers));
  V::store(numbers, V::half(parameters));
  const auto start = V::set(numbers[1]);
  const auto inverse = V::set(numbers[0] > 0 ? 1.0F / numbers[0] : 0.0F);
  for (int i = 0; i < width; i += kLanes) {
    const auto codes = V::round(V::mul(V::sub(V::load(from + i), start), inverse));
    const auto inside = V::min(V::max(codes, V::zero()), V::set(top));
    alignas(16) std::int8_t bytes[kLanes];
    V::store_bytes(bytes, V::sub(inside, V::set(128.0F)));
    std::uint8_t* at = to + i * bits / 8;
    if (bits == 8) {
      for (int lane = 0; lane < kLanes; ++lane)
        at[lane] = static_cast<std::uint8_t>(bytes[lane]) ^ 0x80;
    } else {  // below 16 the top bit alone differs, and falls out
      for (int lane = 0; lane < kLanes / 2; ++lane)
        at[lane] = static_cast<std::uint8_t>((bytes[2 * lane] & 15) | (bytes[2 * lane + 1] << 4));
    }
  }
  std::memcpy(to + width * bits / 8, parameters, 4);
}

// One row: its queries, scaled, to `queries`; its keys and values where they stay.
template <class V>
void prepare_row(const Attend& a, const Span& span, int token, float* queries) {
  const int row = span.row + token;
  const float* from = a.qkv + row * a.stride;
  const float scale = 1.0F / std::sqrt(static_cast<float>(a.width));
  for (int head = 0; head < a.heads; ++head)
    prepare_head(a, from + head * a.width, a.query_norm, row, scale, queries + head * a.width);
  if (a.key_order > 1 && a.key_bias == nullptr)  // else keys are rotated back where they are read
    for (int head = 0; head < a.heads; ++head)
      hadamard(queries + head * a.width, a.width, a.key_order);
  const float* keys = from + a.heads * a.width;
  const float* values = keys + a.kv_heads * a.width;
  thread_local std::vector<float> rotated;
  rotated.resize(a.width);
  for (int head = 0; head < a.kv_heads; ++head) {
    prepare_head(a, keys + head * a.width, a.key_norm, row, 1.0F, rotated.data());
    if (a.key_order > 1) hadamard(rotated.data(), a.width, a.key_order);
    std::uint8_t* to = a.memory + a.at(span.slot, head, span.start + token);
    put_head<V>(rotated.data(), a.width, a.key_bits, to);
    to += a.size(a.key_bits);
    if (a.value_order == 1) {
      put_head<V>(values + head * a.width, a.width, a.value_bits, to);
      continue;
    }
    std::copy_n(values + head * a.width, a.width, rotated.data());
    hadamard(rotated.data(), a.width, a.value_order);
    put_head<V>(rotated.data(), a.width, a.value_bits, to);
  }
}

template <class V>
struct Mixer {
  using Float = typename V::Float;

  // A tile of keys, turned (a vector of keys for each number of a head), and of values.
  struct Tile {
    std::vector<float> memory;
    float *keys, *values;
    int heads_width, width;  // the latter padded to whole tiles' width

    explicit Tile(int width_)
        : heads_width(width_), width((width_ + kTile - 1) / kTile * kTile) {
      memory.assign(2 * static_cast<std::size_t>(width) * kTile + 16, 0.0F);
      keys = reinterpret_cast<float*>(
          (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
      values = keys + static_cast<std::size_t>(width) * kTile;
    }
  };

  struct State {
    float largest = kLeast, total = 0;
  };

  // What a thread works with: for each row of a piece its sums and what it has seen of a tile.
  struct Scratch {
    Tile tile{0};
    std::vector<float> sums;
    std::vector<State> states;
    std::vector<const float*> query;
    std::vector<float*> mixed;
    std::vector<int> seen;

    Scratch& made_for(int width, int rows) {
      if (tile.heads_width != width) tile = Tile(width);
      sums.assign(static_cast<std::size_t>(rows) * tile.width, 0.0F);
      states.assign(rows, State{});
      query.resize(rows);
      mixed.resize(rows);
      seen.resize(rows);
      return *this;
    }
  };

  // 16 numbers of a head from number `d` on; of codes the step and the least are not yet in.
  template <int Bits>
  static Float numbers(const std::uint8_t* head, int d) {
    if constexpr (Bits == 16) return V::half(head + 2 * d);
    else if constexpr (Bits == 8) return V::unsigned8(head + d);
    else return V::nibbles(head + d / 2);
  }

  // What the codes of a tile's heads are multiplied by, and what is added to them; both stand at
  // `at`, a record apart.
  struct Steps {
    alignas(64) float step[kTile], least[kTile];

    Steps(const std::uint8_t* at, int record, int count, float scale) {
      alignas(64) std::uint16_t found[2][kTile] = {};
      for (int j = 0; j < count; ++j, at += record) {
        std::memcpy(&found[0][j], at, 2);
        std::memcpy(&found[1][j], at + 2, 2);
      }
      for (int j = 0; j < kTile; j += kLanes) {
        V::store(step + j, V::mul(V::half(found[0] + j), V::set(scale)));
        V::store(least + j, V::mul(V::half(found[1] + j), V::set(scale)));
      }
    }
  };

  // What is done to keys on their way into a tile.
  struct Finish {
    int order;                 // of the Hadamard matrices that they are taken out of; 1: none
    const float *own, *other;  // bias at the block's first position, as cosines and sines meet it
    const float* turns;        // Attend::token_turns; null: there is no bias
  };

  template <int Step>
  static void butterflies(Float (&x)[kLanes]) {
    for (int i = 0; i < kLanes; ++i) {
      if (i & Step) continue;
      const Float first = x[i], second = x[i + Step];
      x[i] = V::add(first, second);
      x[i + Step] = V::sub(first, second);
    }
  }

  // 16 keys' numbers `d` to `d` + 15 into the tile: a vector for each number, a lane for each key.
  static void finish(const Finish& how, Float (&x)[kLanes], int d, int half, float* to) {
    if (how.order >= 2) butterflies<1>(x);
    if (how.order >= 4) butterflies<2>(x);
    if (how.order >= 8) butterflies<4>(x);
    if (how.order >= 16) butterflies<8>(x);
    if (how.turns != nullptr) {
      for (int i = 0; i < kLanes; ++i) {
        const int angle = (d + i) % half;
        const Float cosine = V::load(how.turns + angle * kTile);
        const Float sine = V::load(how.turns + (angle + half) * kTile);
        x[i] = V::fma(V::set(how.own[d + i]), cosine, x[i]);
        x[i] = V::fma(V::set(how.other[d + i]), sine, x[i]);
      }
    }
    for (int i = 0; i < kLanes; ++i) V::store(to + (d + i) * kTile, x[i]);
  }

  // All codes of one word of each of 16 keys, the first of them into x[0].
  template <int Bits, int Code = 0>
  static void spread(Float words, Float step, Float least, Float* x) {
    if constexpr (Code * Bits < 32) {
      x[Code] = V::fma(V::template code<Code * Bits, (1 << Bits) - 1>(words), step, least);
      spread<Bits, Code + 1>(words, step, least, x);
    }
  }

  // The first `count` keys of a tile, turned; those beyond are any numbers. Codes are turned as
  // words of several.
  template <int Bits>
  static void fill_keys(const Attend& a, const std::uint8_t* heads, int count, const Finish& how,
                        float* to) {
    constexpr int kWords = kLanes * Bits / 32;  // of 16 codes
    const int record = a.record(), words = a.width * Bits / 32;
    const float scale = 1.0F / std::sqrt(static_cast<float>(how.order));
    const Steps steps(heads + a.size(Bits) - 4, record, count, scale);
    for (int j = 0; j < kTile; j += kLanes) {
      const Float step = V::load(steps.step + j), least = V::load(steps.least + j);
      Finish here = how;
      if (how.turns != nullptr) here.turns += j;
      for (int word = 0; word < words; word += kLanes) {
        Float rows[kLanes], x[kLanes];
        const int there = std::min(kLanes, words - word);
        for (int i = 0; i < kLanes; ++i) {
          const std::uint8_t* at = heads + (j + i) * record + 4 * word;
          rows[i] = j + i < count ? V::words(at, there) : V::zero();
        }
        V::turn(rows);
        for (int first = 0; first < there; first += kWords) {
          for (int i = 0; i < kWords; ++i)
            spread<Bits>(rows[first + i], step, least, x + i * (32 / Bits));
          finish(here, x, (word + first) * (32 / Bits), a.width / 2, to + j);
        }
      }
    }
  }

  static void fill_half_keys(const Attend& a, const std::uint8_t* heads, int count,
                             const Finish& how, float* to) {
    for (int j = 0; j < kTile; j += kLanes) {
      Finish here = how;
      if (how.turns != nullptr) here.turns += j;
      for (int d = 0; d < a.width; d += kLanes) {
        Float rows[kLanes];
        for (int i = 0; i < kLanes; ++i)
          rows[i] = j + i < count ? V::half(heads + (j + i) * a.record() + 2 * d) : V::zero();
        V::turn(rows);
        finish(here, rows, d, a.width / 2, to + j);
      }
    }
  }

  // The first `count` values of a tile; those beyond are zeros. `next` is asked for meanwhile, a
  // record with each: it lies on other pages, where the processor's own prefetching stops.
  template <int Bits>
  static void fill_values(const Attend& a, const std::uint8_t* heads, int count,
                          const std::uint8_t* next, Tile& tile) {
    const int record = a.record();
    const Steps steps(heads + a.size(Bits) - 4, record, Bits == 16 ? 0 : count, 1.0F);
    for (int j = 0; j < kTile; ++j) {
      const Float step = V::set(steps.step[j]), least = V::set(steps.least[j]);
      for (int i = 0; i < record; i += 64) __builtin_prefetch(next + j * record + i);
      for (int d = 0; d < a.width; d += kLanes) {
        Float row = j < count ? numbers<Bits>(heads + j * record, d) : V::zero();
        if constexpr (Bits < 16) row = V::fma(row, step, least);
        V::store(tile.values + j * tile.width + d, row);
      }
    }
  }

  // `count` keys and values from position `at` on. Where a bias is added keys are the model's own,
  // else they stay as they are stored, and queries are made like them.
  static void fill(const Attend& a, const Piece& piece, std::int64_t at, int count, Tile& tile) {
    const std::uint8_t* keys = a.memory + a.at(a.spans[piece.span].slot, piece.head, at);
    const std::uint8_t* values = keys + a.size(a.key_bits);
    thread_local std::vector<float> bias;
    Finish how{1, nullptr, nullptr, nullptr};
    if (a.key_bias != nullptr) {
      bias.resize(2 * a.width);
      turn_bias(a, piece.head, at / kTile, bias.data());
      how = {a.key_order, bias.data(), bias.data() + a.width, a.token_turns};
    }
    if (a.key_bits == 16) fill_half_keys(a, keys, count, how, tile.keys);
    else if (a.key_bits == 8) fill_keys<8>(a, keys, count, how, tile.keys);
    else fill_keys<4>(a, keys, count, how, tile.keys);
    const std::int64_t after = at + kTile < piece.end ? at + kTile : at;
    const std::uint8_t* next = a.memory + a.at(a.spans[piece.span].slot, piece.head, after);
    if (a.value_bits == 16) fill_values<16>(a, values, count, next, tile);
    else if (a.value_bits == 8) fill_values<8>(a, values, count, next, tile);
    else fill_values<4>(a, values, count, next, tile);
  }

  // The bias of one head, rotated to the first position of a block; from there on angles add up, so
  // that one small table serves all blocks. What cosines are multiplied by, then what sines are.
  static void turn_bias(const Attend& a, int head, std::int64_t block, float* to) {
    const int half = a.width / 2;
    const float *bias = a.key_bias + head * a.width, *cosine = a.block_turns + block * a.width;
    const float* sine = cosine + half;
    float* other = to + a.width;
    for (int d = 0; d < half; ++d) {
      to[d] = other[d + half] = bias[d] * cosine[d] - bias[d + half] * sine[d];
      to[d + half] = bias[d + half] * cosine[d] + bias[d] * sine[d];
      other[d] = -to[d + half];
    }
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

  // One tile for R rows: `seen[r]` of its keys are visible to row r.
  // Not inlined: among what surrounds it the compiler has too few registers for the sums, and it
  // takes twice as long (docs/benchmarks/linear.md).
  template <int R>
  [[gnu::noinline]] static void step(const Tile& tile, int width, const float* const* queries,
                                     const int* seen, State* states, float* const* mixed) {
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
    thread_local Scratch scratch;
    auto& [tile, sums, states, query, mixed, seen] = scratch.made_for(a.width, rows);
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
    if (a.value_order > 1) hadamard(to, a.width, a.value_order);  // its own inverse
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
