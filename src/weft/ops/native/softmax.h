// The one softmax of both attentions. Training (packed.c) and serving (attention.c) reach a row's
// result along different ways through memory but by the same operations in the same order:
// blocks of WEFT_SPAN positions from position 0, scores by weft_dot's order of sums with the query
// scaled beforehand, this function, and values added one position after another. A row is then
// the same to the bit on both sides, however it was batched or cut.

#ifndef WEFT_SOFTMAX_H
#define WEFT_SOFTMAX_H

#include <stdint.h>

enum { WEFT_SPAN = 64 };

// Turn scores low .. high - 1 of a block into weights exp(score - highest) and the other of its
// `columns` (a multiple of 16) into 0; add the weights to `total`. Returns what the values that
// were added up before must be multiplied with. One compiled copy: two inlined ones could differ
// in which products the compiler fuses with a sum.
__attribute__((visibility("hidden"))) float weft_soften(float *scores, int64_t low, int64_t high,
                                                        int64_t columns, float *highest,
                                                        float *total);

#endif
