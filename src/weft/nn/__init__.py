"""Floor 4: the layers every model is made of, and the context that decides where keys live.

- ``context.py``   ``StepContext``: what one forward pass knows about its tokens. A mixer computes
  queries, keys and values and calls ``ctx.attend``; the context's backend decides where keys and
  values live: in the batch itself (training), or in a paged cache (engine). Modules hold weights
  only, never a cache, so two engines and a trainer can share one module.
- ``kv_cache.py``, ``stored_rows.py``  the paged key-value store of the engine and its size in
  bytes: numbers as they are, or one-byte codes with a factor per token and head.
- ``attention.py`` softmax attention with merged QKV: grouped heads, windows, QK-norm, sinks, output
  gates, ALiBi, keys shared between layers. What scores become is a ``weft.ops.ScoreRule``.
- ``cross_attention.py``, ``memory.py``  attention to what an encoder read, its keys computed once.
- ``relative.py``  trained bias by distance, one table for a stack.
- ``latent/``      multi-head latent attention, expanded or absorbed, and its sparse selection.
- ``long_context/``  what is kept of sequences too long to be kept whole.
- ``recurrent/``   mixers with a state of constant size, from linear attention to RWKV.
- ``mlp.py``       the gated feed-forward part with merged gate and up.
- ``embedding.py``, ``linear.py``  torch's own with what this package needs of them.
- ``norm.py``      RMSNorm in every family's order of rounding, and LayerNorm.
- ``positions.py`` learned and sinusoidal position vectors, ALiBi's slopes.
- ``rotary.py``, ``rotary_scaling.py``  rotary tables, also over several axes, and their stretching.
- ``experimental/``  references that no specification describes yet.

All code works on flat tokens ``[T, ...]``: there is no batch axis and no padding.
"""
