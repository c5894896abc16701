// 16 lanes as two registers of 8. Included by the two translation units that differ in the product
// of bytes; everything is in a namespace of its own there.
#include <immintrin.h>

#include "attend_kernel.hpp"

namespace edvac {
namespace {

struct V {
  struct Bytes { __m256i a, b; };
  using Int = Bytes;
  struct Float { __m256 a, b; };

  static const __m256i* wide(const void* at) { return static_cast<const __m256i*>(at); }
  static Bytes load(const std::uint8_t* at) {
    return {_mm256_loadu_si256(wide(at)), _mm256_loadu_si256(wide(at + 32))};
  }
  static void store(std::uint8_t* at, Bytes x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(at), x.a);
    _mm256_store_si256(reinterpret_cast<__m256i*>(at + 32), x.b);
  }
  static Bytes both(Bytes x, int mask) {
    const auto m = _mm256_set1_epi8(static_cast<char>(mask));
    return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
  }
  static Bytes either(Bytes x, Bytes y) {
    return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
  }
  template <int N>
  static Bytes right(Bytes x) { return {_mm256_srli_epi16(x.a, N), _mm256_srli_epi16(x.b, N)}; }
  template <int N>
  static Bytes left(Bytes x) {
    if constexpr (N >= 0) return {_mm256_slli_epi16(x.a, N), _mm256_slli_epi16(x.b, N)};
    else return right<-N>(x);
  }

  static Int no_dots() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  template <int Bits>
  static Int dot(Int sum, Bytes weights, const std::int8_t* four) {
    std::int32_t bits;
    std::memcpy(&bits, four, 4);
    const auto x = _mm256_set1_epi32(bits);
    return {dot4<Bits>(sum.a, weights.a, x), dot4<Bits>(sum.b, weights.b, x)};
  }
  template <int Bits>
  static __m256i dot4(__m256i sum, __m256i weights, __m256i x) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sum, weights, x);
#else
    if constexpr (Bits == 8) {  // pairs of full bytes would pass 16 bits: the top bit goes apart
      const auto top = _mm256_set1_epi8(static_cast<char>(0x80));
      return pairs(pairs(sum, _mm256_andnot_si256(top, weights), x),
                   _mm256_and_si256(weights, top), x);
    } else {
      return pairs(sum, weights, x);
    }
#endif
  }
  static __m256i pairs(__m256i sum, __m256i weights, __m256i x) {
    const auto two = _mm256_maddubs_epi16(weights, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
  }

  static Float zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Float set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Float load(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
  static void store(float* at, Float x) {
    _mm256_storeu_ps(at, x.a);
    _mm256_storeu_ps(at + 8, x.b);
  }
  static Float add(Float x, Float y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static Float sub(Float x, Float y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static Float mul(Float x, Float y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static Float div(Float x, Float y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static Float max(Float x, Float y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static Float min(Float x, Float y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static Float abs(Float x) {
    const auto sign = _mm256_set1_ps(-0.0F);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
  }
  static Float fma(Float x, Float y, Float z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static Float fnma(Float x, Float y, Float z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
  }
  static Float round(Float x) {
    constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, how), _mm256_round_ps(x.b, how)};
  }
  static Float from_int(Int x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static Float power_of_two(Float x) { return {power8(x.a), power8(x.b)}; }
  static __m256 power8(__m256 x) {
    const auto biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  static __m128i narrow(const void* at) {
    return _mm_loadu_si128(static_cast<const __m128i*>(at));
  }
  static Float half(const void* at) {
    const auto* bytes = static_cast<const std::uint8_t*>(at);
    return {_mm256_cvtph_ps(narrow(bytes)), _mm256_cvtph_ps(narrow(bytes + 16))};
  }
  static void store_half(std::uint16_t* at, Float x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                     _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 8),
                     _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
  }
  // The first `count` lanes of x, and `other` beyond.
  static Float first(int count, Float x, float other) {
    return {first8(count, x.a, other), first8(count - 8, x.b, other)};
  }
  static __m256 first8(int count, __m256 x, float other) {
    const auto lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
    return _mm256_blendv_ps(_mm256_set1_ps(other), x, _mm256_castsi256_ps(kept));
  }
  // Rows become columns: four squares of 8, the two off the diagonal change places.
  static void turn(Float (&x)[kLanes]) {
    __m256 square[4][8];
    for (int i = 0; i < 8; ++i) {
      square[0][i] = x[i].a;
      square[1][i] = x[i].b;
      square[2][i] = x[i + 8].a;
      square[3][i] = x[i + 8].b;
    }
    for (auto& one : square) turn8(one);
    for (int i = 0; i < 8; ++i) {
      x[i] = {square[0][i], square[2][i]};
      x[i + 8] = {square[1][i], square[3][i]};
    }
  }
  static void turn8(__m256 (&x)[8]) {
    __m256 y[8];
    for (int i = 0; i < 8; i += 2) {
      y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
      y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; ++j) {
        x[i + 2 * j] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0x44);
        x[i + 2 * j + 1] = _mm256_shuffle_ps(y[i + j], y[i + j + 2], 0xee);
      }
    }
    for (int j = 0; j < 4; ++j) {
      y[j] = _mm256_permute2f128_ps(x[j], x[j + 4], 0x20);
      y[j + 4] = _mm256_permute2f128_ps(x[j], x[j + 4], 0x31);
    }
    std::copy(y, y + 8, x);
  }
  static constexpr int kProducts = 4;  // rows that are multiplied at a time
  static constexpr int kRows = 3;  // that attention scores at a time: 12 sums stay in registers
  static Float unsigned8(const std::uint8_t* at) {
    const auto x = narrow(at);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)))};
  }
  static Float signed8(const std::uint8_t* at) {
    const auto x = narrow(at);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
  }
  // `count` words, zeros beyond; they are no numbers yet.
  static Float words(const std::uint8_t* at, int count) {
    return {words8(at, count), words8(at + 32, count - 8)};
  }
  static __m256 words8(const std::uint8_t* at, int count) {
    const auto lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
    return _mm256_castsi256_ps(_mm256_maskload_epi32(reinterpret_cast<const int*>(at), kept));
  }
  // Of the codes that each word holds, the one from bit `Shift` on.
  template <int Shift, int Mask>
  static Float code(Float words) {
    return {code8<Shift, Mask>(words.a), code8<Shift, Mask>(words.b)};
  }
  template <int Shift, int Mask>
  static __m256 code8(__m256 words) {
    const auto moved = _mm256_srli_epi32(_mm256_castps_si256(words), Shift);
    return _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32(Mask)));
  }
  // 16 codes of 4 bits, the low half of each byte first.
  static Float nibbles(const std::uint8_t* at) {
    const auto x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    const auto low = _mm_set1_epi8(15);
    const auto codes = _mm_unpacklo_epi8(_mm_and_si128(x, low),
                                         _mm_and_si128(_mm_srli_epi16(x, 4), low));
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)))};
  }
  static void store_bytes(std::int8_t* at, Float x) {
    alignas(32) std::int32_t whole[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(whole), _mm256_cvtps_epi32(x.a));
    _mm256_store_si256(reinterpret_cast<__m256i*>(whole + 8), _mm256_cvtps_epi32(x.b));
    for (int i = 0; i < kLanes; ++i) at[i] = static_cast<std::int8_t>(whole[i]);
  }
};

}  // namespace
}  // namespace edvac
