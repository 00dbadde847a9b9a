"""Sequences longer than what is kept of them: two policies of constant memory.

- ``policy.py``        ``SinkWindow`` and ``HeavyHitter``, what they can be used with, and what a
  cache then holds (``cache_spec``).
- ``sink_window.py``   StreamingLLM: the first tokens and a window. Every layer keeps the same
  positions, so they stay in blocks: those of the first tokens and a ring.
- ``heavy_hitter.py``  H2O: each head keeps the tokens that were attended to most. No two heads keep
  the same ones, so they live in a state per sequence, like a recurrence's.
- ``reference.py``     both as masks over all keys of a sequence: what they compute, by definition.

A token is computed the same however its prompt is cut, because either policy decides token by
token. Both forget: what is evicted cannot be asked for again.
"""
