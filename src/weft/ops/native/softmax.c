// Softmax block by block with a running maximum (Milakov and Gimelshein 2018, arXiv:1805.02867).

#include "softmax.h"

#include "kernels.h"
#include "lanes.h"

float weft_soften(float *scores, int64_t low, int64_t high, int64_t columns, float *highest,
                  float *total) {
    // Whole registers without a visible score need no exponentials.
    int64_t first = low / WEFT_LANES * WEFT_LANES;
    int64_t last = high > low ? (high + WEFT_LANES - 1) / WEFT_LANES * WEFT_LANES : first;
    for (int64_t i = 0; i < first; ++i) scores[i] = 0.0f;
    for (int64_t i = last; i < columns; ++i) scores[i] = 0.0f;
    if (first == last) return 1.0f;
    for (int64_t i = first; i < low; ++i) scores[i] = -INFINITY;
    for (int64_t i = high; i < last; ++i) scores[i] = -INFINITY;
    float top = *highest, factor = 1.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last; ++i) top = scores[i] > top ? scores[i] : top;
    if (top > *highest) {
        factor = weft_exp(*highest - top);
        *highest = top;
    }
    float offset = top == -INFINITY ? 0.0f : top;
    weft_lanes sum = {0};
    for (int64_t i = first; i < last; i += WEFT_LANES) {
#pragma omp simd
        for (int64_t lane = 0; lane < WEFT_LANES; ++lane)
            scores[i + lane] = weft_exp(scores[i + lane] - offset);
        sum += weft_get(scores + i);
    }
    *total = *total * factor + weft_sum(sum);
    return factor;
}
