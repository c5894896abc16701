// The arithmetic, over an instruction set V: 16 lanes of floats or integers, 64 bytes of codes.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "rows.hpp"

namespace edvac {

inline constexpr std::size_t kAhead = 4096;  // bytes

template <class V, Kind K>
struct Panel {
  static constexpr Traits t = traits(K);
  static constexpr int kGroups = groups(K);

  using Bytes = typename V::Bytes;
  using Float = typename V::Float;
  using Int = typename V::Int;

  // What the codes of one group of a chunk are multiplied by, and what is taken from the product.
  struct Scaled {
    Float scale, minimum;
  };

  // The factors of a chunk, where its scales have some.
  struct Factors {
    Float scale, minimum;

    explicit Factors(const std::uint8_t* head) : scale(V::zero()), minimum(V::zero()) {
      if constexpr (t.scales == Scales::super || t.scales == Scales::super_half)
        scale = V::half(head);
      if constexpr (t.scales == Scales::super) minimum = V::half(head + 32);
    }
  };

  static Scaled scaled(const std::uint8_t* head, const Factors& factors, int group) {
    const auto offset = V::set(static_cast<float>(t.offset));
    if constexpr (t.scales == Scales::half) {
      const auto scale = V::half(head + 32 * group);
      return {scale, V::mul(scale, offset)};
    } else if constexpr (t.scales == Scales::half_pair) {
      const std::uint8_t* at = head + 64 * group;
      return {V::half(at), V::sub(V::zero(), V::half(at + 32))};
    } else if constexpr (t.scales == Scales::super) {
      const std::uint8_t* at = head + 64 + 32 * group;
      return {V::mul(factors.scale, V::unsigned8(at)),
              V::mul(factors.minimum, V::unsigned8(at + 16))};
    } else {
      const auto scale = V::mul(factors.scale, V::signed8(head + 32 + 16 * group));
      return {scale, V::mul(scale, offset)};
    }
  }

  // The upper bits of a unit's codes.
  struct Top {
    Bytes planes[2];

    explicit Top(const std::uint8_t* unit) : planes{} {
      if constexpr (t.bits == 5 || t.bits == 6) planes[0] = V::load(unit + 4 * kVector);
      if constexpr (t.bits == 6) planes[1] = V::load(unit + 5 * kVector);
    }
  };

  template <int Vector>
  static Bytes with_top(Bytes low, const Top& top) {
    if constexpr (t.bits == 5) {
      return V::either(low, V::both(V::template left<4 - Vector>(top.planes[0]), 0x10));
    } else if constexpr (t.bits == 6) {
      return V::either(
          low, V::both(V::template left<4 - 2 * (Vector % 4)>(top.planes[Vector / 4]), 0x30));
    } else {
      return low;
    }
  }

  // Vectors 2 * Pair and the next of a unit, a byte a code.
  template <int Pair>
  static void unpack(const std::uint8_t* unit, const Top& top, Bytes (&to)[2]) {
    if constexpr (t.bits == 8) {
      to[0] = V::load(unit + 2 * Pair * kVector);
      to[1] = V::load(unit + (2 * Pair + 1) * kVector);
    } else {
      const auto both = V::load(unit + Pair * kVector);
      to[0] = with_top<2 * Pair>(V::both(both, 0x0f), top);
      to[1] = with_top<2 * Pair + 1>(V::both(V::template right<4>(both), 0x0f), top);
    }
  }

  // Pairs of vectors from Pair up to End for R rows: they stay in registers.
  template <int Pair, int End, int G, int R>
  static void dot(const std::uint8_t* unit, const Top& top, const std::int8_t* codes,
                  Int (&dots)[R]) {
    if constexpr (Pair < End) {
      Bytes vectors[2];
      unpack<Pair>(unit, top, vectors);
      for (int i = 0; i < 2; ++i)
        for (int r = 0; r < R; ++r)
          dots[r] = V::template dot<t.bits>(dots[r], vectors[i], codes + (i * G + r) * 4);
      dot<Pair + 1, End, G, R>(unit, top, codes + 2 * G * 4, dots);
    }
  }

  // One chunk for the first R rows of a group of G: sums[r] += scale of row r * (codes . codes,
  // scaled).
  template <int G, int R>
  static void add(const std::uint8_t* chunk, int units, const std::int8_t* codes,
                  const float* scales, const float* code_sums, float* sums) {
    Float found[R];
    for (int r = 0; r < R; ++r) found[r] = V::zero();
    const Factors factors(chunk);
    const std::uint8_t* unit = chunk + head_bytes(K, units);
    for (int at = 0; at < units; ++at, unit += plane_bytes(K)) {
      // The processor's own prefetching stops at each page; a unit takes longer to compute than
      // to fetch, so asking this far ahead is enough. Beyond the matrix it asks for nothing.
      for (std::size_t line = 0; line < plane_bytes(K) + 64; line += 64)
        __builtin_prefetch(unit + kAhead + line);
      const Top top(unit);
      half<0, G>(unit, top, chunk, factors, at, codes, code_sums, found);
      if constexpr (kGroups == 2) half<1, G>(unit, top, chunk, factors, at, codes, code_sums, found);
      codes += kUnit * G;
      code_sums += kGroups * G;
    }
    for (int r = 0; r < R; ++r) {
      float* sum = sums + r * kLanes;
      V::store(sum, V::fma(found[r], V::set(scales[r]), V::load(sum)));
    }
  }

  // The part of a unit that has one scale: all of it or a half.
  template <int Half, int G, int R>
  static void half(const std::uint8_t* unit, const Top& top, const std::uint8_t* head,
                   const Factors& factors, int at, const std::int8_t* codes,
                   const float* code_sums, Float (&found)[R]) {
    constexpr int kPairs = kVectors / 2 / kGroups;
    Int dots[R];
    for (int r = 0; r < R; ++r) dots[r] = V::no_dots();
    dot<Half * kPairs, (Half + 1) * kPairs, G, R>(unit, top, codes + Half * kUnit / 2 * G, dots);
    const Scaled by = scaled(head, factors, at * kGroups + Half);
    for (int r = 0; r < R; ++r) {
      found[r] = V::fma(V::from_int(dots[r]), by.scale, found[r]);
      found[r] = V::fnma(by.minimum, V::set(code_sums[Half * G + r]), found[r]);
    }
  }

  // The rows of one group that there are, as many at a time as there are registers for; an odd
  // number of them counts as one more.
  template <int G>
  static void add_some(int there, const std::uint8_t* chunk, int units, const std::int8_t* codes,
                       const float* scales, const float* code_sums, float* sums) {
    constexpr int kMost = std::min(G, V::kProducts);
    for (int r = 0; r < std::min(there, G); r += kMost) {
      const auto some = [&]<int R>() {
        add<G, R>(chunk, units, codes + 4 * r, scales + r, code_sums + r, sums + r * kLanes);
      };
      if (G == 8 && there - r <= 2) some.template operator()<std::min(2, kMost)>();
      else if (G == 8 && there - r <= 4) some.template operator()<std::min(4, kMost)>();
      else if (G == 8 && there - r <= 6) some.template operator()<std::min(6, kMost)>();
      else some.template operator()<kMost>();
    }
  }

  template <int G>
  static void multiply(const Matrix& matrix, const Rows& rows, int first, int last, int panel,
                       const Output& out) {
    thread_local std::vector<float> memory;
    const int count = (last - first) * G;
    memory.assign(static_cast<std::size_t>(count) * kLanes + 16, 0.0F);
    float* sums = reinterpret_cast<float*>(
        (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
    const float* all_sums = kGroups == 1 ? rows.sums.data() : rows.half_sums.data();
    const int width = matrix.width, chunks = matrix.chunks();
    const int per_group = width / kUnit * kGroups;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int units = matrix.units_of(chunk);
      for (int group = first; group < last; ++group) {
        const auto row = static_cast<std::size_t>(group) * G;
        add_some<G>(rows.count - group * G, matrix.chunk(panel, chunk), units,
                    rows.codes.data() + row * width + chunk * kChunk * G,
                    rows.scales.data() + row * chunks + chunk * G,
                    all_sums + row * per_group + chunk * kChunkUnits * kGroups * G,
                    sums + static_cast<std::size_t>(group - first) * G * kLanes);
      }
    }
    put(matrix, sums, first * G, std::min(rows.count, last * G), panel, out);
  }

  static void put(const Matrix& matrix, float* sums, int first, int last, int panel,
                  const Output& out) {
    const int start = panel * kLanes, lanes = std::min(kLanes, matrix.outputs - start);
    alignas(64) float bias[kLanes] = {};
    if (out.bias != nullptr) std::memcpy(bias, out.bias + start, lanes * sizeof(float));
    for (int row = first; row < last; ++row) {
      float* at = sums + static_cast<std::size_t>(row - first) * kLanes;
      V::store(at, V::add(V::load(at), V::load(bias)));
      std::memcpy(out.values + row * out.stride + start, at, lanes * sizeof(float));
    }
  }
};

template <class V, Kind K>
void multiply_kind(const Matrix& m, const Rows& rows, int first, int last, int panel,
                   const Output& out) {
  switch (rows.group) {
    case 1: return Panel<V, K>::template multiply<1>(m, rows, first, last, panel, out);
    case 2: return Panel<V, K>::template multiply<2>(m, rows, first, last, panel, out);
    case 4: return Panel<V, K>::template multiply<4>(m, rows, first, last, panel, out);
    default: return Panel<V, K>::template multiply<8>(m, rows, first, last, panel, out);
  }
}

template <class V>
void multiply_panel(const Matrix& m, const Rows& rows, int first, int last, int panel,
                    const Output& out) {
  switch (m.kind) {
    case Kind::Q4_0: return multiply_kind<V, Kind::Q4_0>(m, rows, first, last, panel, out);
    case Kind::Q4_1: return multiply_kind<V, Kind::Q4_1>(m, rows, first, last, panel, out);
    case Kind::Q5_0: return multiply_kind<V, Kind::Q5_0>(m, rows, first, last, panel, out);
    case Kind::Q5_1: return multiply_kind<V, Kind::Q5_1>(m, rows, first, last, panel, out);
    case Kind::Q8_0: return multiply_kind<V, Kind::Q8_0>(m, rows, first, last, panel, out);
    case Kind::Q4_K: return multiply_kind<V, Kind::Q4_K>(m, rows, first, last, panel, out);
    case Kind::Q5_K: return multiply_kind<V, Kind::Q5_K>(m, rows, first, last, panel, out);
    case Kind::Q6_K: return multiply_kind<V, Kind::Q6_K>(m, rows, first, last, panel, out);
  }
}

// The sum of 16 lanes, always in the same order.
template <class V>
float total(typename V::Float lanes) {
  alignas(64) float at[kLanes];
  V::store(at, lanes);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) at[i] += at[i + half];
  return at[0];
}

template <class V>
float largest(typename V::Float lanes) {
  alignas(64) float at[kLanes];
  V::store(at, lanes);
  return *std::max_element(at, at + kLanes);
}

template <class V>
float least(typename V::Float lanes) {
  alignas(64) float at[kLanes];
  V::store(at, lanes);
  return *std::min_element(at, at + kLanes);
}

// e^x by splitting off a power of two and a polynomial; relative error below 2e-7.
template <class V>
typename V::Float exponential(typename V::Float x) {
  x = V::min(V::max(x, V::set(-87.0F)), V::set(88.0F));
  const auto power = V::round(V::mul(x, V::set(1.44269504F)));
  auto rest = V::fnma(power, V::set(0.693359375F), x);
  rest = V::fnma(power, V::set(-2.12194440e-4F), rest);
  auto found = V::set(1.0F / 5040);
  for (const float term : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    found = V::fma(found, rest, V::set(term));
  return V::mul(found, V::power_of_two(power));
}

// The numbers of one row, as the source says.
template <class V>
void produce(const Source& source, const float* from, int width, float* to) {
  if (source.kind == Source::Kind::plain) {
    std::memcpy(to, from, width * sizeof(float));
  } else if (source.kind == Source::Kind::normed) {
    auto squares = V::zero();
    for (int i = 0; i < width; i += kLanes) {
      const auto x = V::load(from + i);
      squares = V::fma(x, x, squares);
    }
    const float mean = total<V>(squares) / static_cast<float>(width);
    const auto factor = V::set(1.0F / std::sqrt(mean + source.epsilon));
    for (int i = 0; i < width; i += kLanes)
      V::store(to + i, V::mul(V::mul(V::load(from + i), factor), V::load(source.weight + i)));
  } else {  // silu(gate) * up
    for (int i = 0; i < width; i += kLanes) {
      const auto gate = V::load(from + i);
      const auto below = V::add(V::set(1.0F), exponential<V>(V::sub(V::zero(), gate)));
      V::store(to + i, V::mul(V::div(gate, below), V::load(from + width + i)));
    }
  }
}

// Signed 8-bit codes of a row, a scale for each chunk: the largest magnitude over 127.
template <class V>
void quantise(const float* from, int row, Rows& rows) {
  const int width = rows.width, r = row % rows.group;
  const auto group = static_cast<std::size_t>(row / rows.group) * rows.group;
  std::int8_t* codes = rows.codes.data() + group * width + 4 * r;
  float* scales = rows.scales.data() + group * rows.chunks() + r;
  float* sums = rows.sums.data() + group * (width / 32) + r;
  float* half_sums = rows.half_sums.data() + group * (width / 16) + r;
  for (int start = 0; start < width; start += kChunk) {
    const int end = std::min(start + kChunk, width);
    auto peaks = V::zero();
    for (int i = start; i < end; i += kLanes) peaks = V::max(peaks, V::abs(V::load(from + i)));
    const float peak = largest<V>(peaks);
    scales[start / kChunk * rows.group] = peak / 127.0F;
    const auto inverse = V::set(peak > 0 ? 127.0F / peak : 0.0F);
    for (int i = start; i < end; i += kLanes) {
      const auto rounded = V::round(V::mul(V::load(from + i), inverse));
      alignas(16) std::int8_t bytes[kLanes];
      V::store_bytes(bytes, rounded);
      for (int quad = 0; quad < 4; ++quad)
        std::memcpy(codes + (i / 4 + quad) * 4 * rows.group, bytes + 4 * quad, 4);
      const float sum = total<V>(rounded);
      half_sums[i / 16 * rows.group] = sum;
      float& whole = sums[i / 32 * rows.group];
      whole = i % 32 == 0 ? sum : whole + sum;
    }
  }
}

// Codes around 128 and one scale for the whole row: what 8-bit products of other libraries read.
template <class V>
void encode_row(const Source& source, int row, int width, std::uint8_t* codes, float* scale) {
  thread_local std::vector<float> memory;
  memory.resize(width);
  produce<V>(source, source.values + row * source.stride, width, memory.data());
  auto peaks = V::zero();
  for (int i = 0; i < width; i += kLanes) peaks = V::max(peaks, V::abs(V::load(memory.data() + i)));
  const float peak = largest<V>(peaks);
  *scale = peak / 127.0F;
  const auto inverse = V::set(peak > 0 ? 127.0F / peak : 0.0F);
  for (int i = 0; i < width; i += kLanes) {
    alignas(16) std::int8_t bytes[kLanes];
    V::store_bytes(bytes, V::round(V::mul(V::load(memory.data() + i), inverse)));
    for (int lane = 0; lane < kLanes; ++lane)
      codes[i + lane] = static_cast<std::uint8_t>(bytes[lane]) ^ 0x80;
  }
}

template <class V>
void take_row(const Source& source, int row, Rows& rows) {
  thread_local std::vector<float> memory;
  memory.resize(rows.width);
  produce<V>(source, source.values + row * source.stride, rows.width, memory.data());
  quantise<V>(memory.data(), row, rows);
}

}  // namespace edvac
