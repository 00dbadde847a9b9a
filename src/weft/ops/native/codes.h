// One-byte codes with a factor per row: quantized keys and values.

#ifndef WEFT_CODES_H
#define WEFT_CODES_H

#include <stdint.h>
#include <string.h>

enum { WEFT_I8 = 2, WEFT_E4M3 = 3, WEFT_E5M2 = 4 };

// Return the value of a float8 code with `mantissa` bits below its exponent. Exponents are moved
// into a float's place; codes of exponent 0 are multiples of the smallest value. Infinity and NaN
// are never stored: a row that holds one has a factor that is not finite.
static inline __attribute__((always_inline)) float weft_from_f8(uint8_t code, int mantissa,
                                                                int bias, float smallest) {
    uint32_t magnitude = code & 0x7fu, sign = (uint32_t)(code & 0x80u) << 24;
    uint32_t bits = (magnitude << (23 - mantissa)) + ((uint32_t)(127 - bias) << 23);
    float small = (float)magnitude * smallest, value;
    memcpy(&value, &bits, sizeof value);
    value = magnitude < (1u << mantissa) ? small : value;
    memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Turn n codes at `offset` into floats.
static inline void weft_decode(const void *source, int type, int64_t offset, int64_t n, float scale,
                               float *target) {
    const uint8_t *codes = (const uint8_t *)source + offset;
    if (type == WEFT_I8)
        for (int64_t i = 0; i < n; ++i) target[i] = (float)(int8_t)codes[i] * scale;
    else if (type == WEFT_E4M3)
        for (int64_t i = 0; i < n; ++i)
            target[i] = weft_from_f8(codes[i], 3, 7, 0x1p-9f) * scale;
    else
        for (int64_t i = 0; i < n; ++i)
            target[i] = weft_from_f8(codes[i], 2, 15, 0x1p-16f) * scale;
}

#endif
