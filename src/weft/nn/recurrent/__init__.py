"""Mixers whose memory has a constant size, and the feed-forward part that has one too.

Each computes its inputs for all tokens at once and hands the recurrence to ``ctx.scan``, which
knows where states live; the arithmetic is ``weft.ops.recurrent``.

- ``linear_attention.py``  linear attention, plain, with fixed decays and gated (GLA).
- ``gated_delta_net.py``   Gated DeltaNet (Qwen3-Next, Qwen3.5).
- ``kimi_delta.py``        Kimi Delta Attention (Kimi Linear).
- ``mamba.py``, ``mamba2.py``  Mamba and Mamba-2.
- ``rwkv.py``              RWKV-4: time mixing and channel mixing.
- ``matrix_rwkv.py``       RWKV-5 and RWKV-6: time mixing with a matrix per head.
- ``short_conv.py``        a gated short convolution as mixer (LFM2).
- ``conv.py``, ``norm.py``, ``rates.py``  the convolution in front of a state, the norm behind it,
  and how forgetting starts out.
"""
