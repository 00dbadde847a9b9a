// RMSNorm: y = weight * round(x * rstd), rstd = 1 / sqrt(mean(x^2) + eps).
//
// Rows are x[outer][inner][width] with free strides of the two leading axes, so that the query
// and key heads inside a merged projection need no copy.

#include "kernels.h"

static float sum_of_squares(const void *x, int type, int64_t offset, int64_t width) {
    float buffer[WEFT_BLOCK], total = 0.0f;
    for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
        int64_t n = weft_min(WEFT_BLOCK, width - start);
        const float *block = weft_load(x, type, offset + start, n, buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; ++i) sum += block[i] * block[i];
        total += sum;
    }
    return total;
}

static void scale_row(const void *x, int64_t x_offset, const void *weight, void *y,
                      int64_t y_offset, int64_t width, float rstd, int x_type, int weight_type,
                      int y_type) {
    float x_buffer[WEFT_BLOCK], weight_buffer[WEFT_BLOCK], y_buffer[WEFT_BLOCK];
    for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
        int64_t n = weft_min(WEFT_BLOCK, width - start);
        const float *x_block = weft_load(x, x_type, x_offset + start, n, x_buffer);
        const float *w_block = weft_load(weight, weight_type, start, n, weight_buffer);
        float *y_block = weft_out(y, y_type, y_offset + start, y_buffer);
        if (x_type == WEFT_F32)
            for (int64_t i = 0; i < n; ++i) y_block[i] = w_block[i] * (x_block[i] * rstd);
        else
            for (int64_t i = 0; i < n; ++i)
                y_block[i] = w_block[i] * weft_round(x_block[i] * rstd, WEFT_BF16);
        weft_store(y, y_type, y_offset + start, n, y_block);
    }
}

void weft_rms_norm_forward(const void *x, const void *weight, void *y, float *rstd,
                           int64_t num_outer, int64_t num_inner, int64_t outer_stride,
                           int64_t inner_stride, int64_t width, float eps, int x_type,
                           int weight_type, int y_type, int num_threads) {
    int64_t num_rows = num_outer * num_inner;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        int64_t offset = row / num_inner * outer_stride + row % num_inner * inner_stride;
        float mean = sum_of_squares(x, x_type, offset, width) / (float)width;
        float scale = 1.0f / sqrtf(mean + eps);
        if (rstd) rstd[row] = scale;
        scale_row(x, offset, weight, y, row * width, width, scale, x_type, weight_type, y_type);
    }
}

// Rows whose share of the weight's gradient is summed before the shares are: fixed, so that the
// order of the sum does not depend on the number of threads.
enum { ROWS_PER_PART = 64 };

int64_t weft_rms_norm_num_parts(int64_t num_rows) {
    return (num_rows + ROWS_PER_PART - 1) / ROWS_PER_PART;
}

// dx = rstd * (g - xhat * mean(g * xhat)), g = dy * weight, xhat = x * rstd;
// dweight adds dy * round(xhat) to `part`.
static void backward_row(const void *dy, int64_t dy_offset, const void *x, int64_t x_offset,
                         const void *weight, void *dx, float rstd, float *part, int64_t width,
                         int x_type, int weight_type, int dy_type) {
    float dy_buffer[WEFT_BLOCK], x_buffer[WEFT_BLOCK], w_buffer[WEFT_BLOCK], dx_buffer[WEFT_BLOCK];
    float dot = 0.0f;
    for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
        int64_t n = weft_min(WEFT_BLOCK, width - start);
        const float *g = weft_load(dy, dy_type, dy_offset + start, n, dy_buffer);
        const float *v = weft_load(x, x_type, x_offset + start, n, x_buffer);
        const float *w = weft_load(weight, weight_type, start, n, w_buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; ++i) sum += g[i] * w[i] * (v[i] * rstd);
        dot += sum;
    }
    float mean = dot / (float)width;
    for (int64_t start = 0; start < width; start += WEFT_BLOCK) {
        int64_t n = weft_min(WEFT_BLOCK, width - start);
        const float *g = weft_load(dy, dy_type, dy_offset + start, n, dy_buffer);
        const float *v = weft_load(x, x_type, x_offset + start, n, x_buffer);
        const float *w = weft_load(weight, weight_type, start, n, w_buffer);
        float *out = weft_out(dx, x_type, dy_offset + start, dx_buffer);
        for (int64_t i = 0; i < n; ++i) out[i] = rstd * (g[i] * w[i] - v[i] * rstd * mean);
        weft_store(dx, x_type, dy_offset + start, n, out);
        if (x_type == WEFT_F32)
            for (int64_t i = 0; i < n; ++i) part[start + i] += g[i] * (v[i] * rstd);
        else
            for (int64_t i = 0; i < n; ++i)
                part[start + i] += g[i] * weft_round(v[i] * rstd, WEFT_BF16);
    }
}

void weft_rms_norm_backward(const void *dy, const void *x, const void *weight, const float *rstd,
                            void *dx, float *parts, float *dweight, int64_t num_outer,
                            int64_t num_inner, int64_t outer_stride, int64_t inner_stride,
                            int64_t width, int x_type, int weight_type, int dy_type,
                            int num_threads) {
    int64_t num_rows = num_outer * num_inner;
    int64_t num_parts = weft_rms_norm_num_parts(num_rows);
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t index = 0; index < num_parts; ++index) {
        float *part = parts + index * width;
        memset(part, 0, (size_t)width * sizeof *part);
        int64_t last = weft_min(num_rows, (index + 1) * ROWS_PER_PART);
        for (int64_t row = index * ROWS_PER_PART; row < last; ++row) {
            int64_t offset = row / num_inner * outer_stride + row % num_inner * inner_stride;
            backward_row(dy, row * width, x, offset, weight, dx, rstd[row], part, width, x_type,
                         weight_type, dy_type);
        }
    }
    memset(dweight, 0, (size_t)width * sizeof *dweight);
    for (int64_t index = 0; index < num_parts; ++index)
        for (int64_t i = 0; i < width; ++i) dweight[i] += parts[index * width + i];
}
