// Attention from single tokens to the paged cache they belong to, with no gather: softmax over
// blocks of positions with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022).
// A token's result depends on its own sequence only: not on the batch, on the chunk it was
// computed in, or on the threads. It is also what packed.c computes, to the bit: see softmax.h.

#include "codes.h"
#include "kernels.h"
#include "lanes.h"
#include "softmax.h"

enum { MAX_WIDTH = 256, MAX_GROUP = 16 };

typedef struct {
    const void *keys, *values;
    const float *key_scales, *value_scales;  // of one-byte codes, else null
    const int64_t *slots;
    int64_t num_kv_heads, group, width;
    float scale;
    int type;
} Context;

// One query head's running softmax.
typedef struct {
    float query[MAX_WIDTH], mixed[MAX_WIDTH], highest, total;
} State;

// Find, or convert into `block`, the rows of positions start + low .. start + high - 1.
static void point_at(const void *cache, const float *scales, const Context *context, int64_t start,
                     int64_t low, int64_t high, int64_t kv_head, float block[WEFT_SPAN][MAX_WIDTH],
                     const float **rows) {
    int64_t width = context->width;
    for (int64_t i = low; i < high; ++i) {
        int64_t row = context->slots[start + i] * context->num_kv_heads + kv_head;
        if (scales) {
            weft_decode(cache, context->type, row * width, width, scales[row], block[i]);
            rows[i] = block[i];
        } else {
            rows[i] = weft_load(cache, context->type, row * width, width, block[i]);
        }
    }
}

// `width` is a constant in every call, so that the accumulators live in registers.
static inline __attribute__((always_inline)) void add_block(State *state, const float **keys,
                                                            const float **values, int64_t low,
                                                            int64_t high, int64_t width) {
    float scores[WEFT_SPAN];
    for (int64_t i = low; i < high; ++i) scores[i] = weft_dot(state->query, keys[i], width);
    weft_lanes mixed[MAX_WIDTH / WEFT_LANES];
    float factor = weft_soften(scores, low, high, 0, &state->highest, &state->total);
    for (int64_t d = 0; d < width / WEFT_LANES; ++d)
        mixed[d] = weft_get(state->mixed + d * WEFT_LANES) * factor;
    for (int64_t i = low; i < high; ++i) {
        weft_lanes weight = weft_splat(scores[i]);
        for (int64_t d = 0; d < width / WEFT_LANES; ++d)
            mixed[d] = weft_fma(weft_get(values[i] + d * WEFT_LANES), weight, mixed[d]);
    }
    for (int64_t d = 0; d < width / WEFT_LANES; ++d)
        weft_put(state->mixed + d * WEFT_LANES, mixed[d]);
}

static void add_group(State *states, const float **keys, const float **values, int64_t low,
                      int64_t high, const Context *context) {
    for (int64_t g = 0; g < context->group; ++g) switch (context->width) {
        case 32: add_block(&states[g], keys, values, low, high, 32); break;
        case 64: add_block(&states[g], keys, values, low, high, 64); break;
        case 96: add_block(&states[g], keys, values, low, high, 96); break;
        case 128: add_block(&states[g], keys, values, low, high, 128); break;
        default: add_block(&states[g], keys, values, low, high, context->width);
    }
}

// Let the query heads of one key head see positions first .. last - 1.
static void add_positions(State *states, const Context *context, int64_t kv_head, int64_t first,
                          int64_t last) {
    float key_block[WEFT_SPAN][MAX_WIDTH], value_block[WEFT_SPAN][MAX_WIDTH];
    const float *keys[WEFT_SPAN], *values[WEFT_SPAN];
    for (int64_t start = first / WEFT_SPAN * WEFT_SPAN; start < last; start += WEFT_SPAN) {
        int64_t low = first > start ? first - start : 0;
        int64_t high = weft_min(last - start, WEFT_SPAN);
        point_at(context->keys, context->key_scales, context, start, low, high, kv_head, key_block,
                 keys);
        point_at(context->values, context->value_scales, context, start, low, high, kv_head,
                 value_block, values);
        add_group(states, keys, values, low, high, context);
    }
}

// All query heads of one key head for one token, which sees positions 0 .. num_first - 1 and
// first .. last - 1.
static void attend(const Context *context, int64_t kv_head, int64_t num_first, int64_t first,
                   int64_t last, const void *q, void *out, int64_t q_offset, int64_t q_head_stride,
                   int64_t out_offset, int q_type) {
    State states[MAX_GROUP];
    float buffer[MAX_WIDTH];
    int64_t width = context->width;
    for (int64_t g = 0; g < context->group; ++g) {
        const float *query = weft_load(q, q_type, q_offset + g * q_head_stride, width, buffer);
        for (int64_t d = 0; d < width; ++d) states[g].query[d] = context->scale * query[d];
        memset(states[g].mixed, 0, (size_t)width * sizeof(float));
        states[g].highest = -INFINITY;
        states[g].total = 0.0f;
    }
    add_positions(states, context, kv_head, 0, weft_min(num_first, first));
    add_positions(states, context, kv_head, first, last);
    for (int64_t g = 0; g < context->group; ++g) {
        int64_t offset = out_offset + g * width;
        float *result = weft_out(out, q_type, offset, buffer), inverse = 1.0f / states[g].total;
        for (int64_t d = 0; d < width; ++d) result[d] = states[g].mixed[d] * inverse;
        weft_store(out, q_type, offset, width, result);
    }
}

// Query i is row tokens[i] of q and out; it belongs to row rows[i] of `slots` and sits at
// positions[i]. `width` is a multiple of 16, at most MAX_WIDTH. Beyond a window, the first
// `num_first` positions are seen all the same (StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).
void weft_paged_attention(const void *q, const void *keys, const void *values,
                          const float *key_scales, const float *value_scales, void *out,
                          const int64_t *slots, const int64_t *tokens, const int64_t *rows,
                          const int64_t *positions, int64_t num_queries, int64_t num_heads,
                          int64_t num_kv_heads, int64_t width, int64_t slots_stride,
                          int64_t token_stride, int64_t head_stride, int64_t window,
                          int64_t num_first, float scale, int q_type, int cache_type,
                          int num_threads) {
    int64_t group = num_heads / num_kv_heads;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 4)
    for (int64_t item = 0; item < num_queries * num_kv_heads; ++item) {
        int64_t index = item / num_kv_heads, kv_head = item % num_kv_heads;
        int64_t last = positions[index] + 1, head = kv_head * group;
        int64_t first = window > 0 && last > window ? last - window : 0;
        Context context = {keys, values, key_scales, value_scales,
                           slots + rows[index] * slots_stride, num_kv_heads, group, width, scale,
                           cache_type};
        attend(&context, kv_head, num_first, first, last, q, out,
               tokens[index] * token_stride + head * head_stride, head_stride,
               (tokens[index] * num_heads + head) * width, q_type);
    }
}
