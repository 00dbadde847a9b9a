"""Floor 7: the training loop and what it is made of.

- ``trainer.py``        the loop: accumulate, update, report, sample, save, stop. ``session.py`` is
  what a session starts from and saves: precision, optimizer state, random state, counters.
- ``step.py``           one step as a function. An ``objective.py`` returns a *sum* and a count; the
  step alone divides, by the count over all micro-batches.
- ``optim.py``          optimizers by name; ``muon.py`` is ours, the others are torch's, held to the
  plain formulas of ``optim_reference.py``. ``parameters.py`` sorts matrices from the rest.
- ``schedule.py``       learning rates as functions of the share of the budget used, so that a run
  limited by minutes decays like one limited by steps (``loop_config.py``).
- ``balance.py``        what routers of experts add to a step: penalties, loads, the bias update.
- ``clip.py``           one norm, one multiplication, no wait for the device.
- ``precision.py``      bf16, fp16 with loss scaling, fp32, or what a real step shows is best.
- ``checkpoint.py``     background writes that are complete or not there; ``rng.py`` random state.
- ``pretrain.py`` and ``sft.py``  the two runs of this floor: configuration in, model folder out.
- ``translation.py``     sentence pairs, for an encoder-decoder or a decoder; ``smoothing.py`` and
  ``dropout.py`` are added from outside the model.
- ``speculators.py``      drafting heads learn a model's own distributions; ``speculator_run.py`` is
  the run that trains one.
- ``metrics.py``, ``throughput.py``, ``evaluate.py``  what is measured and how it is defined.
- ``compile.py``, ``determinism.py``, ``ema.py``, ``signals.py``  one option each.

Sample order is a function of (seed, index) and all state is in the checkpoint, so a run that is
killed and started again in deterministic mode ends bit-identical to one that was not.
"""
