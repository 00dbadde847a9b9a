"""Floor 3: know what a run costs before it starts. Counts come from ``ModelSpec``, never torch.

- ``figure.py``      ``Figure``: a number with its unit, its 80 % interval and its grade
  (``spec``, ``fit`` or ``measured``).
- ``parameters.py``  parameters by part; tests hold them equal to the real modules.
- ``flops.py``       forward and training FLOPs, causal or not; held equal to torch's counter.
- ``memory.py``      the ledger: weights, gradients, optimizer, activations, logits, KV cache. The
  trainer's out-of-memory guard and the engine's block count read the same ledger. Also cache
  bytes per token and state bytes per sequence; ``activations.py`` what a backward pass keeps.
- ``training.py``    step time, tokens per second and duration of a training run.
- ``cluster.py``     a training run on many devices: FLOPs, days, sharded state.
- ``hardware/``      devices, links, clusters and topologies as data with sources.
- ``collectives.py`` time of collectives; ``collective_traffic.py`` proves what they send.
- ``work.py``, ``matrices.py``, ``accounting.py``, ``ops.py``, ``kernels.py``, ``cost.py``  a model
  as the kernels one device runs, and how long they take.
- ``layout.py``, ``stages.py``, ``step_time.py``, ``step_communication.py``, ``ledger.py``,
  ``pipeline.py``, ``training_constants.py``  a training step on many devices: time and memory.
- ``run_estimate.py``  a whole run: rate, MFU and HFU, days, money, energy.
- ``zero.py``, ``gpt_activations.py``, ``utilization.py``, ``scaling.py``, ``economy.py``,
  ``speculation.py``  general laws in closed form; ``course/`` worked examples of courses;
  ``occupancy.py`` what limits one GPU kernel.
- ``answer.py``      what a question gives: figures with grade, interval, formula; tables, curves.
- ``search/``        the best training layouts and deployments, and why the others fell.
- ``calibration.py``, ``machine_training.py``  the machine at hand as measured, and the prices of
  its training steps; ``scaling_bootstrap.py`` intervals of fitted scaling laws.
- ``models.py``      aliases of public models; ``mla_mode.py`` when latent attention absorbs.
- ``workload/``      synthetic and recorded requests; ``simulator/`` the engine's own serving loop
  on a virtual clock, one engine or a fleet; ``simulate.py`` the short way to one engine.
- ``inference/``     what a served model costs in closed form: steps, load, pools, prices.
- ``validate/``      predictions beside published measurements.
"""
