"""Many low-rank adapters on one model, row by row in the same step.

The engine computes every step with the module it was given; behind each linear layer that some
loaded adapter changes, a hook adds to a row what the row's own adapter says. No module knows of it,
and a trainer or another engine that calls the same module gets no updates.

- ``config.py``   ``AdapterConfig``: how many at a time, how large.
- ``engine.py``   ``EngineAdapters``: load, unload, list; what ``EngineCore.adapters`` is.
- ``store.py``    ``AdapterStore``: names and generations, copies in host memory, who uses which.
- ``slots.py``    ``DeviceSlots``: the stacked pairs a step computes with; the least recently used
  adapter gives way.
- ``step.py``     ``StepAdapters``: which row of a step has which slot, and steps that need more
  adapters than there are slots.
- ``hooks.py``    ``UpdateHooks``: hooks that act only in this engine's own step.
- ``update.py``   the sum itself: rows grouped by adapter (the segmented product of Punica, Chen et
  al. 2023, arXiv:2310.18547, and S-LoRA, Sheng et al. 2023, arXiv:2311.03285), and row by row.
- ``reach.py``    which layers of a model can have an adapter at all.

A request has a key, "name#generation". It is part of every prefix's key, so a name that is loaded
again with other numbers never meets keys and values of the old ones.

Why unloading waits for nobody: the name is gone at once, and requests that were accepted keep their
generation until they end.
"""
