"""Mixtures of experts. The router decides, the experts compute, the context keeps the record.

- ``layer.py``    ``MoE``: router, experts, shared expert, projections of a latent mixture;
  ``build_moe`` picks the class of a ``MoESpec``.
- ``router.py``   ``Router``: outputs, noise, scores, choice, weights; given choices are replayed.
- ``choice.py``   the rules as functions of scores: group limits, top-k, random second, capacity,
  hash, expert choice.
- ``experts.py``  ``Experts``: stacked weights, computed dropless by ``weft.ops.grouped_linear``.
- ``fused.py``    ``FusedMoE``: a shared expert as further routed ones, in one grouped product.
- ``spread.py``   ``SpreadExperts``: experts on ranks that each have tokens of their own.
- ``soft.py``     ``SoftMoE``: slots that mix all tokens of a sequence.
- ``record.py``   ``RoutingRecord``: what a layer decided in one pass, for losses, loads, replay.
- ``losses.py``   balancing losses, z-loss, the updates of the correction bias, imbalance.

A layer writes its record into ``StepContext.routing`` and forgets it; whoever wants a loss or a
load computes it from there, so inference pays nothing. Router outputs and weights are float32 in
every precision (Zoph et al. 2022, arXiv:2202.08906, section 3.4).
"""
