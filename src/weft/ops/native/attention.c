// Attention from single tokens to the paged cache they belong to, with no gather: softmax over
// tiles of positions with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022).
// Tiles start at multiples of TILE from position 0, so a token's result depends on its own
// sequence only: not on the batch, on the chunk it was computed in, or on the threads.

#include "kernels.h"
#include "lanes.h"

enum { TILE = 32, MAX_WIDTH = 256, MAX_GROUP = 16 };

typedef struct {
    const void *keys, *values;
    const int64_t *slots;
    int64_t first, last;  // attends to positions first .. last - 1
    int64_t num_kv_heads, group, width;
    float scale;
    int type;
} Context;

// One query head's running softmax.
typedef struct {
    float query[MAX_WIDTH], mixed[MAX_WIDTH], highest, total;
} State;

static void point_at(const void *cache, const Context *context, int64_t start, int64_t n,
                     int64_t kv_head, float tile[TILE][MAX_WIDTH], const float **rows) {
    for (int64_t i = 0; i < n; ++i) {
        int64_t row = context->slots[start + i] * context->num_kv_heads + kv_head;
        rows[i] = weft_load(cache, context->type, row * context->width, context->width, tile[i]);
    }
}

// Turn scores into weights exp(score - highest), rescaling what was summed so far.
static float update_softmax(State *state, float scores[TILE], int64_t n) {
    float top = -INFINITY, factor = 1.0f, sum = 0.0f;
    for (int64_t i = 0; i < n; ++i) top = scores[i] > top ? scores[i] : top;
    if (top > state->highest) {
        factor = weft_exp(state->highest - top);
        state->highest = top;
    }
    float offset = state->highest == -INFINITY ? 0.0f : state->highest;
    for (int64_t i = n; i < TILE; ++i) scores[i] = -INFINITY;
#pragma omp simd
    for (int64_t i = 0; i < TILE; ++i) scores[i] = weft_exp(scores[i] - offset);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < TILE; ++i) sum += scores[i];
    state->total = state->total * factor + sum;
    return factor;
}

// `width` is a constant in every call, so that the accumulators live in registers.
static inline __attribute__((always_inline)) void add_tile(State *state, const float **keys,
                                                           const float **values, int64_t n,
                                                           float scale, int64_t width) {
    float scores[TILE];
    for (int64_t i = 0; i < n; ++i) scores[i] = weft_dot(state->query, keys[i], width) * scale;
    float factor = update_softmax(state, scores, n);
    weft_lanes mixed[MAX_WIDTH / WEFT_LANES];
    for (int64_t d = 0; d < width / WEFT_LANES; ++d)
        mixed[d] = weft_get(state->mixed + d * WEFT_LANES) * factor;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t d = 0; d < width / WEFT_LANES; ++d)
            mixed[d] += weft_get(values[i] + d * WEFT_LANES) * scores[i];
    for (int64_t d = 0; d < width / WEFT_LANES; ++d)
        weft_put(state->mixed + d * WEFT_LANES, mixed[d]);
}

static void add_group(State *states, const float **keys, const float **values, int64_t n,
                      const Context *context) {
    for (int64_t g = 0; g < context->group; ++g) switch (context->width) {
        case 32: add_tile(&states[g], keys, values, n, context->scale, 32); break;
        case 64: add_tile(&states[g], keys, values, n, context->scale, 64); break;
        case 96: add_tile(&states[g], keys, values, n, context->scale, 96); break;
        case 128: add_tile(&states[g], keys, values, n, context->scale, 128); break;
        default: add_tile(&states[g], keys, values, n, context->scale, context->width);
    }
}

// All query heads of one key head for one token.
static void attend(const Context *context, int64_t kv_head, const void *q, void *out,
                   int64_t q_offset, int64_t q_head_stride, int64_t out_offset, int q_type) {
    State states[MAX_GROUP];
    float key_tile[TILE][MAX_WIDTH], value_tile[TILE][MAX_WIDTH], buffer[MAX_WIDTH];
    const float *keys[TILE], *values[TILE];
    int64_t width = context->width;
    for (int64_t g = 0; g < context->group; ++g) {
        const float *query = weft_load(q, q_type, q_offset + g * q_head_stride, width, buffer);
        memcpy(states[g].query, query, (size_t)width * sizeof(float));
        memset(states[g].mixed, 0, (size_t)width * sizeof(float));
        states[g].highest = -INFINITY;
        states[g].total = 0.0f;
    }
    for (int64_t start = context->first; start < context->last;) {
        int64_t end = weft_min(context->last, (start / TILE + 1) * TILE), n = end - start;
        point_at(context->keys, context, start, n, kv_head, key_tile, keys);
        point_at(context->values, context, start, n, kv_head, value_tile, values);
        add_group(states, keys, values, n, context);
        start = end;
    }
    for (int64_t g = 0; g < context->group; ++g) {
        int64_t offset = out_offset + g * width;
        float *result = weft_out(out, q_type, offset, buffer), inverse = 1.0f / states[g].total;
        for (int64_t d = 0; d < width; ++d) result[d] = states[g].mixed[d] * inverse;
        weft_store(out, q_type, offset, width, result);
    }
}

// Query i is row tokens[i] of q and out; it belongs to row rows[i] of `slots` and sits at
// positions[i]. `width` is a multiple of 16, at most MAX_WIDTH.
void weft_paged_attention(const void *q, const void *keys, const void *values, void *out,
                          const int64_t *slots, const int64_t *tokens, const int64_t *rows,
                          const int64_t *positions, int64_t num_queries, int64_t num_heads,
                          int64_t num_kv_heads, int64_t width, int64_t slots_stride,
                          int64_t token_stride, int64_t head_stride, int64_t window, float scale,
                          int q_type, int cache_type, int num_threads) {
    int64_t group = num_heads / num_kv_heads;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 4)
    for (int64_t item = 0; item < num_queries * num_kv_heads; ++item) {
        int64_t index = item / num_kv_heads, kv_head = item % num_kv_heads;
        int64_t last = positions[index] + 1, head = kv_head * group;
        int64_t first = window > 0 && last > window ? last - window : 0;
        Context context = {keys, values, slots + rows[index] * slots_stride, first, last,
                           num_kv_heads, group, width, scale, cache_type};
        attend(&context, kv_head, q, out, tokens[index] * token_stride + head * head_stride,
               head_stride, (tokens[index] * num_heads + head) * width, q_type);
    }
}
