"""Multi-head latent attention (MLA) and its sparse selection of positions.

The cache holds one latent vector per token instead of the keys and values of every head.

- ``attention.py``  ``LatentAttention``, the mixer: projections, norms, rotation.
- ``indexer.py``    the lightning indexer of DeepSeek Sparse Attention.
- ``selection.py``  its scores, and which positions each query keeps.
- ``tokens.py``     what a layer hands to a backend: queries, latents, the map to keys and values.
- ``modes.py``      the two ways to compute it. *Expanded*: latents become keys and values, then it
  is ordinary attention. *Absorbed*: the maps to keys and from values move to the queries and to
  the result, and all heads attend to the latents themselves, as in multi-query attention.
- ``decode.py``     single tokens of many sequences, absorbed, over the cache in splits.
- ``packed.py``     training: always expanded.
- ``paged.py``      the engine: per sequence, whichever mode takes fewer FLOPs
  (``weft.plan.mla_mode``). The choice looks at the sequence's own lengths only, so that a token's
  numbers do not depend on its neighbours in the batch.
"""
