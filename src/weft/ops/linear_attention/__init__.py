"""Linear attention: a matrix state per head, S_t = decay_t S_{t-1} + k_t v_t^T and o_t = S_t^T q_t.

Without decay it is causal linear attention (arXiv:2006.16236), with a constant one RetNet or
Lightning attention, with one per token and head the state-space dual of Mamba-2, with one per key
channel gated linear attention.

- ``reference.py``  the recurrence, token by token.
- ``parallel.py``   the quadratic form, whole sequences at once.
- ``chunkwise.py``  quadratic inside chunks, recurrent between them; what prefill and training run.
- ``step.py``       one token of many sequences; what decoding runs.
- ``ragged.py``     which of the two a batch of unequal sequences needs.
- ``chunks.py``, ``decay.py``  sequences cut into one batch of chunks; products of decays.
- ``features.py``   feature maps phi.
"""
