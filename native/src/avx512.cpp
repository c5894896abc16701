#include <immintrin.h>

#include "attend_kernel.hpp"

namespace edvac {
namespace {

struct V {
  using Bytes = __m512i;
  using Int = __m512i;
  using Float = __m512;

  static Bytes load(const std::uint8_t* at) { return _mm512_loadu_si512(at); }
  static void store(std::uint8_t* at, Bytes x) { _mm512_store_si512(at, x); }
  static Bytes both(Bytes x, int mask) {
    return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  static Bytes either(Bytes x, Bytes y) { return _mm512_or_si512(x, y); }
  template <int N>
  static Bytes right(Bytes x) { return _mm512_srli_epi16(x, N); }
  template <int N>
  static Bytes left(Bytes x) {
    if constexpr (N >= 0) return _mm512_slli_epi16(x, N);
    else return _mm512_srli_epi16(x, -N);
  }

  static Int no_dots() { return _mm512_setzero_si512(); }
  template <int Bits>
  static Int dot(Int sum, Bytes weights, const std::int8_t* four) {
    std::int32_t x;
    std::memcpy(&x, four, 4);
    return _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x));
  }

  static Float zero() { return _mm512_setzero_ps(); }
  static Float set(float x) { return _mm512_set1_ps(x); }
  static Float load(const float* at) { return _mm512_loadu_ps(at); }
  static void store(float* at, Float x) { _mm512_storeu_ps(at, x); }
  static Float add(Float x, Float y) { return _mm512_add_ps(x, y); }
  static Float sub(Float x, Float y) { return _mm512_sub_ps(x, y); }
  static Float mul(Float x, Float y) { return _mm512_mul_ps(x, y); }
  static Float div(Float x, Float y) { return _mm512_div_ps(x, y); }
  static Float max(Float x, Float y) { return _mm512_max_ps(x, y); }
  static Float min(Float x, Float y) { return _mm512_min_ps(x, y); }
  static Float abs(Float x) { return _mm512_abs_ps(x); }
  static Float fma(Float x, Float y, Float z) { return _mm512_fmadd_ps(x, y, z); }
  static Float fnma(Float x, Float y, Float z) { return _mm512_fnmadd_ps(x, y, z); }
  static Float round(Float x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
  static Float from_int(Int x) { return _mm512_cvtepi32_ps(x); }
  static Float power_of_two(Float x) {
    const auto biased = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
  }
  static Float half(const void* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
  }
  static void store_half(std::uint16_t* at, Float x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  // The first `count` lanes of x, and `other` beyond.
  static Float first(int count, Float x, float other) {
    const unsigned kept = count <= 0 ? 0U : count >= kLanes ? 0xffffU : (1U << count) - 1;
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), static_cast<__mmask16>(kept), x);
  }
  // Rows become columns.
  static void turn(Float (&x)[kLanes]) {
    Float y[kLanes];
    for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 2; ++j) {
        x[i + 2 * j] = pair(y[i + j], y[i + j + 2], true);
        x[i + 2 * j + 1] = pair(y[i + j], y[i + j + 2], false);
      }
    }
    for (int i = 0; i < 16; i += 8) {
      for (int j = 0; j < 4; ++j) {
        y[i + j] = _mm512_shuffle_f32x4(x[i + j], x[i + j + 4], 0x88);
        y[i + j + 4] = _mm512_shuffle_f32x4(x[i + j], x[i + j + 4], 0xdd);
      }
    }
    for (int j = 0; j < 8; ++j) {
      x[j] = _mm512_shuffle_f32x4(y[j], y[j + 8], 0x88);
      x[j + 8] = _mm512_shuffle_f32x4(y[j], y[j + 8], 0xdd);
    }
  }
  static Float pair(Float x, Float y, bool low) {
    const auto a = _mm512_castps_pd(x), b = _mm512_castps_pd(y);
    return _mm512_castpd_ps(low ? _mm512_unpacklo_pd(a, b) : _mm512_unpackhi_pd(a, b));
  }
  static constexpr int kProducts = 8;  // rows that are multiplied at a time
  static constexpr int kRows = 6;  // that attention scores at a time: 12 sums stay in registers
  static Float unsigned8(const std::uint8_t* at) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
  }
  static Float signed8(const std::uint8_t* at) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
  }
  // `count` words, zeros beyond; they are no numbers yet.
  static Float words(const std::uint8_t* at, int count) {
    const unsigned kept = count >= kLanes ? 0xffffU : (1U << count) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(kept), at));
  }
  // Of the codes that each word holds, the one from bit `Shift` on.
  template <int Shift, int Mask>
  static Float code(Float words) {
    const auto moved = _mm512_srli_epi32(_mm512_castps_si512(words), Shift);
    return _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(Mask)));
  }
  // 16 codes of 4 bits, the low half of each byte first.
  static Float nibbles(const std::uint8_t* at) {
    const auto x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    const auto low = _mm_set1_epi8(15);
    const auto codes = _mm_unpacklo_epi8(_mm_and_si128(x, low),
                                         _mm_and_si128(_mm_srli_epi16(x, 4), low));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
  }
  static void store_bytes(std::int8_t* at, Float x) {
    _mm_store_si128(reinterpret_cast<__m128i*>(at),
                    _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
  }
};

}  // namespace

const Level kAvx512{"avx512",        take_row<V>, encode_row<V>,      multiply_panel<V>,
                    prepare_row<V>,   Mixer<V>::mix,    Mixer<V>::join};

}  // namespace edvac
