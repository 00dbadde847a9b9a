// Attention from single tokens to the paged cache they belong to, with no gather: softmax over
// tiles of positions with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022).
// Tiles start at multiples of TILE from position 0, so a token's result depends on its own
// sequence only: not on the batch, on the chunk it was computed in, or on the threads.

#include "kernels.h"

enum { TILE = 32, MAX_WIDTH = 256, MAX_GROUP = 16 };

typedef struct {
    const void *keys, *values;
    const int64_t *slots;
    int64_t row_stride, first, last;  // attends to positions first .. last - 1
    int64_t width, kv_offset;
    float scale;
    int type;
} Context;

// One query head's running softmax.
typedef struct {
    float query[MAX_WIDTH], mixed[MAX_WIDTH], highest, total;
} State;

static void load_tile(const void *cache, const Context *context, int64_t start, int64_t n,
                      float tile[TILE][MAX_WIDTH], const float **rows) {
    for (int64_t i = 0; i < n; ++i) {
        int64_t offset = context->slots[start + i] * context->row_stride + context->kv_offset;
        rows[i] = weft_load(cache, context->type, offset, context->width, tile[i]);
    }
}

static void add_tile(State *state, const float **keys, const float **values, int64_t n,
                     const Context *context) {
    float scores[TILE], top = -INFINITY, sum = 0.0f;
    int64_t width = context->width;
    for (int64_t i = 0; i < n; ++i) {
        const float *key = keys[i];
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t d = 0; d < width; ++d) dot += state->query[d] * key[d];
        scores[i] = dot * context->scale;
    }
    for (int64_t i = 0; i < n; ++i) top = scores[i] > top ? scores[i] : top;
    if (top > state->highest) {
        float factor = weft_exp(state->highest - top);
        state->total *= factor;
        for (int64_t d = 0; d < width; ++d) state->mixed[d] *= factor;
        state->highest = top;
    }
    float offset = state->highest == -INFINITY ? 0.0f : state->highest;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) scores[i] = weft_exp(scores[i] - offset);
    for (int64_t i = 0; i < n; ++i) sum += scores[i];
    state->total += sum;
    for (int64_t i = 0; i < n; ++i) {
        const float *value = values[i];
        float weight = scores[i];
        for (int64_t d = 0; d < width; ++d) state->mixed[d] += weight * value[d];
    }
}

// All query heads of one group for one token.
static void attend(const Context *context, const void *q, void *out, int64_t q_offset,
                   int64_t q_head_stride, int64_t out_offset, int64_t group, int q_type) {
    State states[MAX_GROUP];
    float key_tile[TILE][MAX_WIDTH], value_tile[TILE][MAX_WIDTH];
    const float *keys[TILE], *values[TILE];
    int64_t width = context->width;
    for (int64_t g = 0; g < group; ++g) {
        float buffer[MAX_WIDTH];
        const float *query = weft_load(q, q_type, q_offset + g * q_head_stride, width, buffer);
        memcpy(states[g].query, query, (size_t)width * sizeof(float));
        memset(states[g].mixed, 0, (size_t)width * sizeof(float));
        states[g].highest = -INFINITY;
        states[g].total = 0.0f;
    }
    for (int64_t start = context->first; start < context->last;) {
        int64_t end = weft_min(context->last, (start / TILE + 1) * TILE), n = end - start;
        load_tile(context->keys, context, start, n, key_tile, keys);
        load_tile(context->values, context, start, n, value_tile, values);
        for (int64_t g = 0; g < group; ++g) add_tile(&states[g], keys, values, n, context);
        start = end;
    }
    for (int64_t g = 0; g < group; ++g) {
        float buffer[MAX_WIDTH];
        int64_t offset = out_offset + g * width;
        float *result = weft_out(out, q_type, offset, buffer), inverse = 1.0f / states[g].total;
        for (int64_t d = 0; d < width; ++d) result[d] = states[g].mixed[d] * inverse;
        weft_store(out, q_type, offset, width, result);
    }
}

// Token t belongs to row rows[t] of `slots` and sits at positions[t].
void weft_paged_attention(const void *q, const void *keys, const void *values, void *out,
                          const int64_t *slots, const int64_t *rows, const int64_t *positions,
                          int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads,
                          int64_t width, int64_t slots_stride, int64_t token_stride,
                          int64_t head_stride, int64_t window, float scale, int q_type,
                          int cache_type, int num_threads) {
    int64_t group = num_heads / num_kv_heads;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 4)
    for (int64_t item = 0; item < num_tokens * num_kv_heads; ++item) {
        int64_t token = item / num_kv_heads, kv_head = item % num_kv_heads, head = kv_head * group;
        int64_t last = positions[token] + 1, first = window > 0 && last > window ? last - window : 0;
        Context context = {keys, values, slots + rows[token] * slots_stride,
                           num_kv_heads * width, first, last, width, kv_head * width, scale,
                           cache_type};
        attend(&context, q, out, token * token_stride + head * head_stride, head_stride,
               (token * num_heads + head) * width, group, q_type);
    }
}
