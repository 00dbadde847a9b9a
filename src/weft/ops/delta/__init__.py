"""The gated delta rule: a state is corrected towards each new value rather than added to.

S = decay_t S_{t-1}; u_t = beta_t (v_t - S^T k_t); S_t = S + k_t u_t^T; o_t = S_t^T q_t. With one
decay per token and head it is Gated DeltaNet (arXiv:2412.06464), with one per key channel Kimi
Delta Attention (arXiv:2510.26692), without decay DeltaNet (arXiv:2406.06484).

- ``reference.py``  the recurrence, token by token.
- ``chunkwise.py``  the WY form by chunks; what prefill and training run. Single tokens take
  ``linear_attention/step.py``.
"""
