// Vectors as wide as the registers of the instruction set that is compiled for. Arithmetic comes from the compiler.
// This file adds loads, exp2, softplus and lane shuffles.
//
// The width matters: GCC lowers comparisons and shifts on vectors that are wider than a register to scalars.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else  // SSE, NEON
constexpr int BYTES = 16;
#endif
constexpr int STATES_AT_ONCE = 8;  // states of a channel that the inner loops advance together

struct bfloat16 {
  uint16_t bits;
};

template <class R> struct Types;
template <> struct Types<float> {
  typedef float V __attribute__((vector_size(BYTES)));
  typedef int32_t M __attribute__((vector_size(BYTES)));
};
template <> struct Types<double> {
  typedef double V __attribute__((vector_size(BYTES)));
  typedef int64_t M __attribute__((vector_size(BYTES)));
};
template <class R> using Vec = typename Types<R>::V;
template <class R> using Mask = typename Types<R>::M;
template <class R> constexpr int LANES = BYTES / sizeof(R);

// `load<R>` and `store<R>` take numbers as they are stored: R itself, or bfloat16 for float.
template <class R> inline Vec<R> load(const R* from) {
  Vec<R> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class R> inline void store(R* to, Vec<R> v) { std::memcpy(to, &v, sizeof v); }

typedef uint16_t Half __attribute__((vector_size(BYTES / 2)));
typedef uint32_t Word __attribute__((vector_size(BYTES)));

template <class R> inline Vec<float> load(const bfloat16* from) {
  Half half;
  std::memcpy(&half, from, sizeof half);
  return (Vec<float>)(__builtin_convertvector(half, Word) << 16);
}
template <class R> inline void store(bfloat16* to, Vec<float> v) {  // to the nearest, ties to even, as PyTorch
  const Word bits = (Word)v;
  const Word rounded = (bits + ((bits >> 16) & 1u) + 0x7fffu) >> 16;
  const Half half = __builtin_convertvector(v == v ? rounded : rounded - rounded + 0x7fc0u, Half);
  std::memcpy(to, &half, sizeof half);
}

inline float widen(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class R> inline R widen(R x) { return x; }

template <class R> inline Vec<R> splat(R x) { return x - Vec<R>{}; }

// 2^x = 2^n * p(x - n) with n the nearest integer. p(0) is exactly 1: slow decays do not drift.
inline Vec<float> exp2(Vec<float> x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  const Vec<float> f = (Vec<float>)_mm512_reduce_ps((__m512)x, 8);
  const Vec<float> n = x - f;
#else
  x = x < -126.0f ? splat(-126.0f) : x;
  const Vec<float> shifted = x + 12582912.0f;  // 1.5 * 2^23: rounds to an integer held in the low bits
  const Vec<float> n = shifted - 12582912.0f;
  const Vec<float> f = x - n;
#endif
  // Minimax on [-1/2, 1/2], relative error 2e-9 before rounding.
  Vec<float> p = f * 0x1.41fbbcp-13f + 0x1.5f3e54p-10f;
  p = p * f + 0x1.3b2d4cp-7f;
  p = p * f + 0x1.c6aee8p-5f;
  p = p * f + 0x1.ebfbdcp-3f;
  p = p * f + 0x1.62e430p-1f;
  p = p * f + 1.0f;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return (Vec<float>)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const Mask<float> scale = ((Mask<float>)shifted) << 23;
  return (Vec<float>)(((Mask<float>)p) + scale);
#endif
}

inline Vec<double> exp2(Vec<double> x) {
  x = x < -1022.0 ? splat(-1022.0) : x;
  const Vec<double> shifted = x + 6755399441055744.0;  // 1.5 * 2^52
  const Vec<double> n = shifted - 6755399441055744.0;
  const Vec<double> f = (x - n) * 0.693147180559945309417;
  Vec<double> p = splat(1.0);  // Taylor: |f| < 0.35, so term 15 is below 1e-19
  for (int k = 15; k > 0; --k) p = p * f * (1.0 / k) + 1.0;
  const Mask<double> scale = ((Mask<double>)shifted) << 52;
  return (Vec<double>)(((Mask<double>)p) + scale);
}

template <class R> constexpr R LOG2E = R(1.442695040888963407360);

// log(1 + v) for v in [0, 1], accurate for small v: 2 artanh(v / (2 + v)).
template <class R> inline Vec<R> log1p_unit(Vec<R> v) {
  constexpr int terms = sizeof(R) == 4 ? 8 : 18;
  const Vec<R> s = v / (v + R(2)), s2 = s * s;
  Vec<R> sum = splat(R(1) / (2 * terms + 1));
  for (int k = terms - 1; k >= 0; --k) sum = sum * s2 + R(1) / (2 * k + 1);
  return s * sum * R(2);
}

// softplus, the identity above 20; its derivative goes to `slope` unless that is null.
template <class R> inline Vec<R> softplus(Vec<R> x, Vec<R>* slope = nullptr) {
  const Vec<R> v = exp2((x < R(0) ? x : -x) * LOG2E<R>);  // exp(-|x|)
  const Vec<R> smooth = (x > R(0) ? x : splat(R(0))) + log1p_unit<R>(v);
  if (slope) *slope = x > R(20) ? splat(R(1)) : (x > R(0) ? splat(R(1)) : v) / (v + R(1));
  return x > R(20) ? x : smooth;
}

template <class R> inline Vec<R> choose(Vec<R> a, Vec<R> b, Mask<R> from) {  // lane i of [a | b] is from[i]
#if defined(__GNUC__) && !defined(__clang__)
  return __builtin_shuffle(a, b, from);
#else
  Vec<R> r;
  for (int i = 0; i < LANES<R>; ++i) r[i] = from[i] < LANES<R> ? a[from[i]] : b[from[i] - LANES<R>];
  return r;
#endif
}

template <class R, int S> struct Swap {  // masks of one butterfly stage of distance S
  static inline Mask<R> low() {
    Mask<R> m;
#pragma GCC unroll 16
    for (int i = 0; i < LANES<R>; ++i) m[i] = (i & S) ? i - S + LANES<R> : i;
    return m;
  }
  static inline Mask<R> high() {
    Mask<R> m;
#pragma GCC unroll 16
    for (int i = 0; i < LANES<R>; ++i) m[i] = (i & S) ? i + LANES<R> : i + S;
    return m;
  }
};

template <class R, int S = 1> inline void transpose(Vec<R>* v) {  // LANES x LANES, in place
  if constexpr (S < LANES<R>) {
    const Mask<R> low = Swap<R, S>::low(), high = Swap<R, S>::high();
#pragma GCC unroll 16
    for (int i = 0; i < LANES<R>; ++i) {
      if (i & S) continue;
      const Vec<R> a = v[i], b = v[i + S];
      v[i] = choose<R>(a, b, low);
      v[i + S] = choose<R>(a, b, high);
    }
    transpose<R, 2 * S>(v);
  }
}

template <class R, int S = 1> inline Vec<R> lane_sums(Vec<R>* v) {  // lane i = sum over the lanes of v[i]; destroys v
  if constexpr (S < LANES<R>) {
    const Mask<R> low = Swap<R, S>::low(), high = Swap<R, S>::high();
#pragma GCC unroll 16
    for (int i = 0; i < LANES<R>; i += 2 * S) v[i] = choose<R>(v[i], v[i + S], low) + choose<R>(v[i], v[i + S], high);
    return lane_sums<R, 2 * S>(v);
  }
  return v[0];
}

}  // namespace
