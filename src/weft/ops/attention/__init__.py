"""Attention over packed documents (training) and over a paged cache (serving).

- ``layout.py``     ``PagedLayout``: which slots each sequence of a step attends to.
- ``rule.py``       ``ScoreRule``: scale, window, causality, soft-capping, sinks, biases.
- ``reference.py``  both ops as dense softmax, one sequence at a time.
- ``softmax.py``    the batched torch form of everything a rule can ask for.
- ``packed.py``     documents of equal length share one batched SDPA call.
- ``padded.py``     many short documents of many lengths share one padded call.
- ``paged.py``      decode rows share one masked SDPA call, prefill chunks run one by one.
- ``segments.py``   long sequences in shifted groups (LongLoRA), with a memory (Transformer-XL) or
  with global tokens (Longformer).
- ``split_kv.py``   parts of a context, each with its largest score and sum, merged to the whole.
- ``triton_paged.py``, ``triton_kernels.py``  decode steps on a GPU, in splits of a fixed size.
- ``native.py``     the paged op in C: no gather, and the same bits for a token in any batch or
  chunk, which is why it also runs prefill.
- ``native_packed.py``  the packed op in C, forward and backward.

The C ops know plain rules (scale, window, causal) and give a row the same bits
(``native/softmax.h`` says how), so that what the engine samples has exactly the probability that
training computes.
"""
