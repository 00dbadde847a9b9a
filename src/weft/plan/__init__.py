"""Floor 3: know what a run costs before it starts. Counts come from ``ModelSpec``, never torch.

- ``figure.py``      ``Figure``: a number with its unit, its 80 % interval and its grade
  (``spec``, ``fit`` or ``measured``).
- ``parameters.py``  parameters by part; tests hold them equal to the real modules.
- ``flops.py``       forward and training FLOPs, causal or not; held equal to torch's counter.
- ``memory.py``      the ledger: weights, gradients, optimizer, activations, logits, KV cache. The
  trainer's out-of-memory guard and the engine's block count read the same ledger.
- ``training.py``    step time, tokens per second and duration of a training run.
- ``cluster.py``     a training run on many devices: FLOPs, days, sharded state.
- ``simulate.py``    the engine's own serving loop on a virtual clock with a runner that only
  knows how long a step takes.
"""
