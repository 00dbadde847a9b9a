// Rotary positions: turn pairs (a, b) to (a cos - b sin, b cos + a sin). `sign` -1 turns back,
// which is the gradient. Heads may lie in a wider merged row; the output is dense.

#include "kernels.h"

static void turn_half(const float *x, float *y, const float *cosine, const float *sine,
                      int64_t num_pairs, float sign) {
    for (int64_t i = 0; i < num_pairs; ++i) {
        float a = x[i], b = x[num_pairs + i], c = cosine[i], s = sign * sine[i];
        y[i] = a * c - b * s;
        y[num_pairs + i] = b * c + a * s;
    }
}

static void turn_interleaved(const float *x, float *y, const float *cosine, const float *sine,
                             int64_t num_pairs, float sign) {
    for (int64_t i = 0; i < num_pairs; ++i) {
        float a = x[2 * i], b = x[2 * i + 1], c = cosine[i], s = sign * sine[i];
        y[2 * i] = a * c - b * s;
        y[2 * i + 1] = b * c + a * s;
    }
}

// A head is at most WEFT_BLOCK wide (checked by the caller).
void weft_rotary(const void *x, void *y, const float *cosines, const float *sines,
                 int64_t num_tokens, int64_t num_heads, int64_t width, int64_t num_pairs,
                 int64_t token_stride, int64_t head_stride, float sign, int interleaved, int type,
                 int num_threads) {
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t token = 0; token < num_tokens; ++token) {
        const float *cosine = cosines + token * num_pairs, *sine = sines + token * num_pairs;
        float x_buffer[WEFT_BLOCK], y_buffer[WEFT_BLOCK];
        for (int64_t head = 0; head < num_heads; ++head) {
            int64_t from = token * token_stride + head * head_stride;
            int64_t to = (token * num_heads + head) * width;
            const float *in = weft_load(x, type, from, width, x_buffer);
            float *out = weft_out(y, type, to, y_buffer);
            if (interleaved) turn_interleaved(in, out, cosine, sine, num_pairs, sign);
            else turn_half(in, out, cosine, sine, num_pairs, sign);
            for (int64_t i = 2 * num_pairs; i < width; ++i) out[i] = in[i];
            weft_store(y, type, to, width, out);
        }
    }
}
