"""Floor 4: the layers every model is made of, and the context that decides where keys live.

- ``context.py``   ``StepContext``: what one forward pass knows about its tokens. A mixer computes
  queries, keys and values and calls ``ctx.attend``; the context's backend decides where keys and
  values live: in the batch itself (training), or in a paged cache (engine). Modules hold weights
  only, never a cache, so two engines and a trainer can share one module.
- ``kv_cache.py``  the paged key-value store of the engine and its size in bytes.
- ``attention.py`` multi-head, multi-query and grouped-query attention with merged QKV.
- ``mlp.py``       the gated feed-forward part with merged gate and up.
- ``norm.py``, ``rotary.py``  RMSNorm and rotary position tables.

All code works on flat tokens ``[T, ...]``: there is no batch axis and no padding.
"""
