// What all kernels share: element types, block loads and stores, a vectorisable exp.
//
// Every kernel works row by row in float32. Rows are independent of each other and sums have
// an order fixed by the row alone, so results depend neither on the number of threads nor on
// which other rows are in the batch. No fast-math: NaN and infinity propagate.

#ifndef WEFT_KERNELS_H
#define WEFT_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { WEFT_F32 = 0, WEFT_BF16 = 1 };

// Elements handled at once: a block of floats stays in the first-level cache.
enum { WEFT_BLOCK = 512 };

static inline int64_t weft_min(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float weft_from_bf16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Round to nearest, ties to even; a NaN stays a NaN.
static inline uint16_t weft_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet_nan = (bits >> 16) | 0x40u;
    return (uint16_t)(value != value ? quiet_nan : rounded);
}

static inline float weft_round(float value, int type) {
    return type == WEFT_BF16 ? weft_from_bf16(weft_to_bf16(value)) : value;
}

// Return n elements at `offset` as floats; bfloat16 goes through `buffer`.
static inline const float *weft_load(const void *source, int type, int64_t offset, int64_t n,
                                     float *buffer) {
    if (type == WEFT_F32) return (const float *)source + offset;
    const uint16_t *half = (const uint16_t *)source + offset;
    for (int64_t i = 0; i < n; ++i) buffer[i] = weft_from_bf16(half[i]);
    return buffer;
}

// Return where to compute n output floats: in place for float32, else in `buffer`.
static inline float *weft_out(void *target, int type, int64_t offset, float *buffer) {
    return type == WEFT_F32 ? (float *)target + offset : buffer;
}

// Round what weft_out computed; nothing is left to do for float32.
static inline void weft_store(void *target, int type, int64_t offset, int64_t n,
                              const float *buffer) {
    if (type == WEFT_F32) return;
    uint16_t *half = (uint16_t *)target + offset;
    for (int64_t i = 0; i < n; ++i) half[i] = weft_to_bf16(buffer[i]);
}

// exp(x) to about one unit in the last place: x = n ln 2 + r, a polynomial in r, then 2^n in two
// factors so that results close to the limits neither overflow early nor lose denormals.
static inline float weft_exp(float x) {
    float clamped = x < -105.0f ? -105.0f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    float shifted = clamped * 1.44269504088896341f + shift;
    float n = shifted - shift;
    float r = clamped - n * 0.693145751953125f;
    r = r - n * 1.428606765330187045e-06f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    int32_t exponent = (int32_t)(bits & 0x7fffffu) - 0x400000;  // n sits in the low bits
    int32_t half = exponent >> 1;
    uint32_t low = (uint32_t)(half + 127) << 23, high = (uint32_t)(exponent - half + 127) << 23;
    float low_factor, high_factor;
    memcpy(&low_factor, &low, sizeof low_factor);
    memcpy(&high_factor, &high, sizeof high_factor);
    return p * low_factor * high_factor;
}

#endif
