// Causal attention inside packed documents, forward and backward (Dao 2023, arXiv:2307.08691).
//
// One task is one document and one key head with all its query heads: keys and values are copied
// once to float32, also transposed, and every product is then a small dense one over blocks of
// SIDE positions. A task adds its sums in a fixed order, so nothing depends on the threads.
// Forward, a row is what attention.c computes for the same token, to the bit: see softmax.h.

#include <stdlib.h>

#include "kernels.h"
#include "lanes.h"
#include "softmax.h"

enum { SIDE = WEFT_SPAN, TILE_ROWS = 4 };

// A [tokens, heads, width] tensor with free strides of the first two axes.
typedef struct {
    void *data;
    int64_t token_stride, head_stride;
    int type;
} Heads;

// Everything one thread needs for one document and key head; `padded` is its length rounded up.
typedef struct {
    int64_t length, padded, width, window;
    float *keys, *keys_t, *values, *values_t, *dkeys, *dvalues;  // [padded, width] or transposed
    float *query, *mixed, *grad, *dquery;                        // [SIDE, width]
    float *scores, *dscores;                                     // [SIDE, SIDE]
} Task;

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// C [4, 16 nv] (+)= A [4, depth] B [depth, 16 nv]; A is read one number at a time.
static inline __attribute__((always_inline)) void multiply_tile(
    int64_t nv, int64_t depth, const float *a, int64_t a_row, int64_t a_column, const float *b,
    int64_t b_row, float *c, int64_t c_row, int add) {
    weft_lanes sums[TILE_ROWS][4];
    for (int64_t r = 0; r < TILE_ROWS; ++r)
        for (int64_t v = 0; v < nv; ++v)
            sums[r][v] = add ? weft_get(c + r * c_row + v * WEFT_LANES) : (weft_lanes){0};
    for (int64_t k = 0; k < depth; ++k) {
        weft_lanes row[4];
        for (int64_t v = 0; v < nv; ++v) row[v] = weft_get(b + k * b_row + v * WEFT_LANES);
        for (int64_t r = 0; r < TILE_ROWS; ++r) {
            weft_lanes factor = weft_splat(a[r * a_row + k * a_column]);
            for (int64_t v = 0; v < nv; ++v) sums[r][v] = weft_fma(row[v], factor, sums[r][v]);
        }
    }
    for (int64_t r = 0; r < TILE_ROWS; ++r)
        for (int64_t v = 0; v < nv; ++v) weft_put(c + r * c_row + v * WEFT_LANES, sums[r][v]);
}

// C [rows, columns] (+)= A B; rows is a multiple of 4, columns of 16.
static void multiply(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row,
                     int64_t a_column, const float *b, int64_t b_row, float *c, int64_t c_row,
                     int add) {
    for (int64_t j = 0; j < columns;) {
        int64_t left = columns - j, nv = left >= 64 ? 4 : left >= 32 ? 2 : 1;
        for (int64_t i = 0; i < rows; i += TILE_ROWS) {
            const float *a_tile = a + i * a_row;
            float *c_tile = c + i * c_row + j;
            if (nv == 4)
                multiply_tile(4, depth, a_tile, a_row, a_column, b + j, b_row, c_tile, c_row, add);
            else if (nv == 2)
                multiply_tile(2, depth, a_tile, a_row, a_column, b + j, b_row, c_tile, c_row, add);
            else
                multiply_tile(1, depth, a_tile, a_row, a_column, b + j, b_row, c_tile, c_row, add);
        }
        j += nv * WEFT_LANES;
    }
}

// Copy one head of `count` tokens to float32 rows, times `factor`; rows up to `padded` become 0.
static void load_rows(const Heads *from, int64_t token, int64_t head, int64_t count,
                      int64_t padded, int64_t width, float factor, float *rows) {
    float buffer[WEFT_BLOCK];
    for (int64_t i = 0; i < count; ++i) {
        int64_t offset = (token + i) * from->token_stride + head * from->head_stride;
        const float *source = weft_load(from->data, from->type, offset, width, buffer);
        for (int64_t d = 0; d < width; ++d) rows[i * width + d] = factor * source[d];
    }
    memset(rows + count * width, 0, (size_t)((padded - count) * width) * sizeof(float));
}

static void store_rows(const Heads *to, int64_t token, int64_t head, int64_t count, int64_t width,
                       float factor, const float *rows) {
    float buffer[WEFT_BLOCK];
    for (int64_t i = 0; i < count; ++i) {
        int64_t offset = (token + i) * to->token_stride + head * to->head_stride;
        float *target = weft_out(to->data, to->type, offset, buffer);
        for (int64_t d = 0; d < width; ++d) target[d] = factor * rows[i * width + d];
        weft_store(to->data, to->type, offset, width, target);
    }
}

static void transpose(const float *rows, int64_t num_rows, int64_t width, float *columns) {
    for (int64_t i = 0; i < num_rows; ++i)
        for (int64_t d = 0; d < width; ++d) columns[d * num_rows + i] = rows[i * width + d];
}

// Sixteen rows at a time: [num_rows / 16, width, 16], which score_tile reads front to back.
static void transpose_lanes(const float *rows, int64_t num_rows, int64_t width, float *columns) {
    for (int64_t i = 0; i < num_rows; i += WEFT_LANES)
        transpose(rows + i * width, WEFT_LANES, width, columns + i * width);
}

// The first and one past the last key that row `position` may see.
static int64_t first_key(const Task *task, int64_t position) {
    int64_t first = task->window > 0 ? position + 1 - task->window : 0;
    return first > 0 ? first : 0;
}

// Which part of the block of keys at `start` row `position` sees: columns low .. high - 1.
static void visible(const Task *task, int64_t position, int64_t start, int64_t columns,
                    int64_t *low, int64_t *high) {
    *low = first_key(task, position) - start;
    *high = position + 1 - start;
    *low = *low < 0 ? 0 : weft_min(*low, columns);
    *high = *high < *low ? *low : weft_min(*high, columns);
}

// Four queries' share of one lane in weft_dot: products d = lane, lane + 16, ... in that order.
typedef struct {
    weft_lanes row[TILE_ROWS];
} Lane;

static inline __attribute__((always_inline)) Lane lane_of(const float *query, const float *keys,
                                                          int64_t width, int64_t lane) {
    Lane sums;
    for (int64_t r = 0; r < TILE_ROWS; ++r)
        sums.row[r] = weft_get(keys + lane * WEFT_LANES) * query[r * width + lane];
    for (int64_t d = lane + WEFT_LANES; d < width; d += WEFT_LANES)
        for (int64_t r = 0; r < TILE_ROWS; ++r)
            sums.row[r] = weft_fma(weft_get(keys + d * WEFT_LANES),
                                   weft_splat(query[r * width + d]), sums.row[r]);
    return sums;
}

static inline __attribute__((always_inline)) Lane add(Lane a, Lane b) {
    for (int64_t r = 0; r < TILE_ROWS; ++r) a.row[r] += b.row[r];
    return a;
}

static inline __attribute__((always_inline)) Lane quarter_of(const float *query, const float *keys,
                                                             int64_t width, int64_t lane) {
    Lane even = add(lane_of(query, keys, width, lane), lane_of(query, keys, width, lane + 8));
    Lane odd = add(lane_of(query, keys, width, lane + 4), lane_of(query, keys, width, lane + 12));
    return add(even, odd);
}

// Inner products of four queries and sixteen keys ([width, 16]), added up in weft_dot's order.
static inline __attribute__((always_inline)) void score_tile(const float *query, const float *keys,
                                                             int64_t width, float *scores) {
    Lane even = add(quarter_of(query, keys, width, 0), quarter_of(query, keys, width, 2));
    Lane odd = add(quarter_of(query, keys, width, 1), quarter_of(query, keys, width, 3));
    Lane dots = add(even, odd);
    for (int64_t r = 0; r < TILE_ROWS; ++r) weft_put(scores + r * SIDE, dots.row[r]);
}

static void score_keys(const float *query, const float *keys, int64_t width, float *scores) {
    switch (width) {
        case 32: score_tile(query, keys, 32, scores); break;
        case 64: score_tile(query, keys, 64, scores); break;
        case 96: score_tile(query, keys, 96, scores); break;
        case 128: score_tile(query, keys, 128, scores); break;
        default: score_tile(query, keys, width, scores);
    }
}

// Four queries, the first at `position`, against the block of keys at `key`.
static void forward_tile(Task *task, int64_t position, int64_t row, int64_t key, float *highest,
                         float *total) {
    int64_t width = task->width, low, high;
    // Keys after the last of the four queries are seen by none of them.
    int64_t depth = weft_min(round_up(position + TILE_ROWS - key, WEFT_LANES), SIDE);
    depth = weft_min(depth, task->padded - key);
    float *mixed = task->mixed + row * width;
    for (int64_t j = 0; j < depth; j += WEFT_LANES)
        score_keys(task->query + row * width, task->keys_t + (key + j) * width, width,
                   task->scores + j);
    for (int64_t r = 0; r < TILE_ROWS; ++r) {
        visible(task, position + r, key, depth, &low, &high);
        float factor = weft_soften(task->scores + r * SIDE, low, high, depth, &highest[r],
                                   &total[r]);
        if (factor != 1.0f)
            for (int64_t d = 0; d < width; ++d) mixed[r * width + d] *= factor;
    }
    multiply(TILE_ROWS, width, depth, task->scores, SIDE, 1, task->values + key * width, width,
             mixed, width, 1);
}

// One block of queries against all keys it sees: `mixed` is the result, `lse` its log sum exp.
static void forward_block(Task *task, int64_t start, int64_t count, float *lse,
                          int64_t lse_stride) {
    int64_t width = task->width, rows = round_up(count, TILE_ROWS);
    float highest[SIDE], total[SIDE];
    memset(task->mixed, 0, (size_t)(rows * width) * sizeof(float));
    for (int64_t i = 0; i < rows; ++i) highest[i] = -INFINITY, total[i] = 0.0f;
    for (int64_t key = first_key(task, start) / SIDE * SIDE; key < start + count; key += SIDE)
        for (int64_t i = 0; i < rows; i += TILE_ROWS)
            forward_tile(task, start + i, i, key, highest + i, total + i);
    for (int64_t i = 0; i < count; ++i) {
        float inverse = 1.0f / total[i];
        for (int64_t d = 0; d < width; ++d) task->mixed[i * width + d] *= inverse;
        lse[i * lse_stride] = highest[i] + logf(total[i]);
    }
}

// scores <- weights P, dscores <- P * (dP - delta), both 0 where a key is not seen.
static void weight_row(float *scores, float *dscores, int64_t low, int64_t high, int64_t columns,
                       float lse, float delta) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) {
        float weight = weft_exp(scores[j] - lse);
        scores[j] = weight;
        dscores[j] = weight * (dscores[j] - delta);
    }
    for (int64_t j = 0; j < low; ++j) scores[j] = dscores[j] = 0.0f;
    for (int64_t j = high; j < columns; ++j) scores[j] = dscores[j] = 0.0f;
}

static void backward_block(Task *task, int64_t start, int64_t count, const float *lse,
                           int64_t lse_stride) {
    int64_t width = task->width, rows = round_up(count, TILE_ROWS);
    float delta[SIDE];
    for (int64_t i = 0; i < rows; ++i)
        delta[i] = weft_dot(task->grad + i * width, task->mixed + i * width, width);
    memset(task->dquery, 0, (size_t)(rows * width) * sizeof(float));
    for (int64_t key = first_key(task, start) / SIDE * SIDE; key < start + count; key += SIDE) {
        int64_t columns = weft_min(SIDE, task->padded - key), low, high;
        multiply(rows, columns, width, task->query, width, 1, task->keys_t + key, task->padded,
                 task->scores, SIDE, 0);
        multiply(rows, columns, width, task->grad, width, 1, task->values_t + key, task->padded,
                 task->dscores, SIDE, 0);
        for (int64_t i = 0; i < rows; ++i) {
            visible(task, start + i, key, columns, &low, &high);
            weight_row(task->scores + i * SIDE, task->dscores + i * SIDE, low, high, columns,
                       i < count ? lse[i * lse_stride] : 0.0f, delta[i]);
        }
        multiply(rows, width, columns, task->dscores, SIDE, 1, task->keys + key * width, width,
                 task->dquery, width, 1);
        multiply(columns, width, rows, task->dscores, 1, SIDE, task->query, width,
                 task->dkeys + key * width, width, 1);
        multiply(columns, width, rows, task->scores, 1, SIDE, task->grad, width,
                 task->dvalues + key * width, width, 1);
    }
}

// Lay the buffers of a task out in one allocation; returns it, or null.
static float *open_task(Task *task, int64_t length, int64_t width, int64_t window, int backward) {
    int64_t padded = round_up(length, WEFT_LANES), whole = padded * width, block = SIDE * width;
    int64_t num_whole = backward ? 6 : 4, num_block = 4;
    size_t size = (size_t)(num_whole * whole + num_block * block + 2 * SIDE * SIDE) * sizeof(float);
    float *memory = aligned_alloc(64, (size_t)round_up((int64_t)size, 64));
    if (!memory) return memory;
    float *blocks = memory + num_whole * whole;
    *task = (Task){.length = length, .padded = padded, .width = width, .window = window,
                   .keys = memory, .keys_t = memory + whole, .values = memory + 2 * whole,
                   .values_t = memory + 3 * whole, .query = blocks, .mixed = blocks + block,
                   .grad = blocks + 2 * block, .dquery = blocks + 3 * block,
                   .scores = blocks + 4 * block, .dscores = blocks + 4 * block + SIDE * SIDE};
    if (backward) {
        task->dkeys = memory + 4 * whole;
        task->dvalues = memory + 5 * whole;
        memset(task->dkeys, 0, (size_t)(2 * whole) * sizeof(float));
    }
    return memory;
}

static void load_context(Task *task, const Heads *keys, const Heads *values, int64_t token,
                         int64_t kv_head, int backward) {
    int64_t length = task->length, padded = task->padded, width = task->width;
    load_rows(keys, token, kv_head, length, padded, width, 1.0f, task->keys);
    load_rows(values, token, kv_head, length, padded, width, 1.0f, task->values);
    if (backward) {
        transpose(task->keys, padded, width, task->keys_t);
        transpose(task->values, padded, width, task->values_t);
    } else {
        transpose_lanes(task->keys, padded, width, task->keys_t);
    }
}

// lse is [tokens, num_heads]. Documents are starts[i] .. starts[i + 1] - 1. Returns 0, or 1 if
// there was no memory.
int weft_packed_attention_forward(const Heads *q, const Heads *keys, const Heads *values,
                                  const Heads *out, float *lse, const int64_t *starts,
                                  int64_t num_documents, int64_t num_heads, int64_t num_kv_heads,
                                  int64_t width, int64_t window, float scale, int num_threads) {
    int64_t group = num_heads / num_kv_heads, num_tasks = num_documents * num_kv_heads;
    // Where tasks are fewer than threads, several threads take every so many blocks of one.
    int64_t parts = num_tasks ? (num_threads + num_tasks - 1) / num_tasks : 1;
    int failed = 0;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 1) \
    reduction(| : failed)
    for (int64_t item = 0; item < num_tasks * parts; ++item) {
        int64_t index = item / parts, part = item % parts, kv_head = index % num_kv_heads;
        int64_t first = starts[index / num_kv_heads];
        int64_t length = starts[index / num_kv_heads + 1] - first;
        int idle = part * SIDE >= length;
        Task task;
        float *memory = idle ? NULL : open_task(&task, length, width, window, 0);
        failed |= !idle && !memory;
        if (!memory) continue;
        load_context(&task, keys, values, first, kv_head, 0);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
            for (int64_t start = part * SIDE; start < length; start += parts * SIDE) {
                int64_t count = weft_min(SIDE, length - start);
                load_rows(q, first + start, head, count, round_up(count, TILE_ROWS), width, scale,
                          task.query);
                forward_block(&task, start, count, lse + (first + start) * num_heads + head,
                              num_heads);
                store_rows(out, first + start, head, count, width, 1.0f, task.mixed);
            }
        free(memory);
    }
    return failed;
}

int weft_packed_attention_backward(const Heads *q, const Heads *keys, const Heads *values,
                                   const Heads *out, const Heads *grad, const Heads *dq,
                                   const Heads *dkeys, const Heads *dvalues, const float *lse,
                                   const int64_t *starts, int64_t num_documents,
                                   int64_t num_heads, int64_t num_kv_heads, int64_t width,
                                   int64_t window, float scale, int num_threads) {
    int64_t group = num_heads / num_kv_heads;
    int failed = 0;
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1) schedule(dynamic, 1) \
    reduction(| : failed)
    for (int64_t item = 0; item < num_documents * num_kv_heads; ++item) {
        int64_t first = starts[item / num_kv_heads], kv_head = item % num_kv_heads;
        int64_t length = starts[item / num_kv_heads + 1] - first;
        Task task;
        float *memory = length ? open_task(&task, length, width, window, 1) : NULL;
        failed |= length && !memory;
        if (!memory) continue;
        load_context(&task, keys, values, first, kv_head, 1);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
            for (int64_t start = 0; start < length; start += SIDE) {
                int64_t count = weft_min(SIDE, length - start), token = first + start;
                int64_t rows = round_up(count, TILE_ROWS);
                load_rows(q, token, head, count, rows, width, scale, task.query);
                load_rows(out, token, head, count, rows, width, 1.0f, task.mixed);
                load_rows(grad, token, head, count, rows, width, 1.0f, task.grad);
                backward_block(&task, start, count, lse + token * num_heads + head, num_heads);
                store_rows(dq, token, head, count, width, scale, task.dquery);
            }
        store_rows(dkeys, first, kv_head, length, width, 1.0f, task.dkeys);
        store_rows(dvalues, first, kv_head, length, width, 1.0f, task.dvalues);
        free(memory);
    }
    return failed;
}

// Whether sixteen floats fit one register, without which the tiles above spill.
int weft_has_wide_registers(void) {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}
