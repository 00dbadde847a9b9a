// Softmax over rows of logits: statistics in one pass with a running maximum (Milakov and
// Gimelshein 2018, arXiv:1805.02867), then the gradient of the target's log-probability in place.

#include "kernels.h"

// lse = log sum exp(scale * logits), target_logp = scale * logits[target] - lse; rows whose target
// is `ignore` get target_logp 0. Row r has scales[r * scale_stride]. The largest logit is taken off
// before anything is scaled, so large logits cost target_logp no digits. Returns how many targets
// lie outside the vocabulary.
int64_t weft_softmax_stats(const void *logits, int type, const int64_t *targets, int64_t ignore,
                           const float *scales, int64_t scale_stride, int64_t num_rows,
                           int64_t vocab_size, float *lse, float *target_logp, int num_threads) {
    int64_t num_bad = 0;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static) \
    reduction(+ : num_bad)
    for (int64_t row = 0; row < num_rows; ++row) {
        float buffer[WEFT_BLOCK], highest = -INFINITY, scale = scales[row * scale_stride];
        double total = 0.0;
        for (int64_t start = 0; start < vocab_size; start += WEFT_BLOCK) {
            int64_t n = weft_min(WEFT_BLOCK, vocab_size - start);
            const float *x = weft_load(logits, type, row * vocab_size + start, n, buffer);
            float top = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : top)
            for (int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
            if (top > highest) {
                total *= exp((double)(scale * (highest - top)));
                highest = top;
            }
            float offset = highest == -INFINITY ? 0.0f : highest;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < n; ++i) sum += weft_exp(scale * (x[i] - offset));
            total += sum;
        }
        float log_total = (float)log(total);
        lse[row] = scale * highest + log_total;
        int64_t target = targets[row];
        target_logp[row] = 0.0f;
        if (target == ignore) continue;
        if (target < 0 || target >= vocab_size) {
            ++num_bad;
            continue;
        }
        float one;
        one = *weft_load(logits, type, row * vocab_size + target, 1, &one);
        target_logp[row] = scale * (one - highest) - log_total;
    }
    return num_bad;
}

// logits <- row_grad * d target_logp / d logits = row_grad * scale * (onehot - softmax).
void weft_softmax_gradient(void *logits, int type, const int64_t *targets, int64_t ignore,
                           float scale, int64_t num_rows, int64_t vocab_size, const float *lse,
                           const float *row_grad, int num_threads) {
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        float x_buffer[WEFT_BLOCK], y_buffer[WEFT_BLOCK];
        int64_t target = targets[row];
        float factor = target == ignore ? 0.0f : scale * row_grad[row], minus = lse[row];
        for (int64_t start = 0; start < vocab_size; start += WEFT_BLOCK) {
            int64_t n = weft_min(WEFT_BLOCK, vocab_size - start), at = row * vocab_size + start;
            float *out = weft_out(logits, type, at, y_buffer);
            if (target == ignore) {
                for (int64_t i = 0; i < n; ++i) out[i] = 0.0f;
            } else {
                const float *x = weft_load(logits, type, at, n, x_buffer);
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) out[i] = -factor * weft_exp(scale * x[i] - minus);
            }
            if (target >= start && target < start + n) out[target - start] += factor;
            weft_store(logits, type, at, n, out);
        }
    }
}
