"""Where keys, values and states live during one forward pass.

- ``base.py``    ``Backend``: what a context asks of it, and what a ``Recurrence`` is.
- ``packed.py``  whole documents side by side; nothing outlives the pass (training).
- ``choice.py``  which of the engine's backends a cache needs: the next one, or one of
  ``weft.nn.long_context``.
- ``paged.py``   sequences whose earlier keys, values and states live in a ``KVCache`` (engine).
"""
