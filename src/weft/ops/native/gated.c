// SwiGLU: y = silu(gate) * up, rows of gate_up hold gate then up. The backward pass recomputes the
// sigmoid, so nothing but the input is kept, and writes both halves of the gradient at once.

#include "kernels.h"

void weft_swiglu_forward(const void *gate_up, void *y, int64_t num_rows, int64_t width, int type,
                         int num_threads) {
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        float gate_buffer[WEFT_BLOCK], up_buffer[WEFT_BLOCK], y_buffer[WEFT_BLOCK];
        for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
            int64_t n = weft_min(WEFT_BLOCK, width - start), at = 2 * row * width + start;
            const float *gate = weft_load(gate_up, type, at, n, gate_buffer);
            const float *up = weft_load(gate_up, type, at + width, n, up_buffer);
            float *out = weft_out(y, type, row * width + start, y_buffer);
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + weft_exp(-gate[i])) * up[i];
            weft_store(y, type, row * width + start, n, out);
        }
    }
}

void weft_swiglu_backward(const void *dy, const void *gate_up, void *dgate_up, int64_t num_rows,
                          int64_t width, int type, int num_threads) {
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        float dy_buffer[WEFT_BLOCK], gate_buffer[WEFT_BLOCK], up_buffer[WEFT_BLOCK];
        float dgate_buffer[WEFT_BLOCK], dup_buffer[WEFT_BLOCK];
        for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
            int64_t n = weft_min(WEFT_BLOCK, width - start), at = 2 * row * width + start;
            const float *g = weft_load(dy, type, row * width + start, n, dy_buffer);
            const float *gate = weft_load(gate_up, type, at, n, gate_buffer);
            const float *up = weft_load(gate_up, type, at + width, n, up_buffer);
            float *dgate = weft_out(dgate_up, type, at, dgate_buffer);
            float *dup = weft_out(dgate_up, type, at + width, dup_buffer);
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) {
                float sigmoid = 1.0f / (1.0f + weft_exp(-gate[i]));
                float silu = gate[i] * sigmoid;
                dup[i] = g[i] * silu;
                dgate[i] = g[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
            }
            weft_store(dgate_up, type, at, n, dgate);
            weft_store(dgate_up, type, at + width, n, dup);
        }
    }
}
