// Sixteen floats as one value, in the compiler's own vector type: one AVX-512 register, or two or
// four of a narrower machine.

#ifndef WEFT_LANES_H
#define WEFT_LANES_H

#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { WEFT_LANES = 16 };

typedef float weft_lanes __attribute__((vector_size(64)));
typedef float weft_lanes8 __attribute__((vector_size(32)));
typedef float weft_lanes4 __attribute__((vector_size(16)));

static inline weft_lanes weft_get(const float *source) {
    weft_lanes lanes;
    memcpy(&lanes, source, sizeof lanes);
    return lanes;
}

static inline void weft_put(float *target, weft_lanes lanes) {
    memcpy(target, &lanes, sizeof lanes);
}

// Return a * b + c, rounded once where that is one instruction, whatever surrounds the call: left
// to the compiler, the same sum may be fused in one function and not in another.
static inline weft_lanes weft_fma(weft_lanes a, weft_lanes b, weft_lanes c) {
#ifdef __AVX512F__
    return (weft_lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    return a * b + c;
#endif
}

static inline weft_lanes weft_splat(float value) { return (weft_lanes){0} + value; }

// Add the sixteen lanes by halves: a fixed order.
static inline float weft_sum(weft_lanes lanes) {
    weft_lanes8 halves[2];
    memcpy(halves, &lanes, sizeof halves);
    weft_lanes8 eight = halves[0] + halves[1];
    weft_lanes4 quarters[2];
    memcpy(quarters, &eight, sizeof quarters);
    weft_lanes4 four = quarters[0] + quarters[1];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

// Return the inner product; `width` is a multiple of 16 and best a constant.
static inline __attribute__((always_inline)) float weft_dot(const float *a, const float *b,
                                                            int64_t width) {
    weft_lanes sum = weft_get(a) * weft_get(b);
    for (int64_t d = WEFT_LANES; d < width; d += WEFT_LANES)
        sum = weft_fma(weft_get(a + d), weft_get(b + d), sum);
    return weft_sum(sum);
}

#endif
