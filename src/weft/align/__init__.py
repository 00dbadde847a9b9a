"""Floor 8: reinforcement learning on verifiable rewards, with the engine inside the trainer.

The policy *is* the engine's model: rollouts read the very tensors the optimizer writes, so a
weight update moves 0 bytes; it only bumps the weight version, which makes cached prefixes of the
old weights unreachable. Everything between the two is token ids: a sample keeps the ids, the
log-probability each was drawn with and the version that drew it; nothing is tokenized again.

- ``types``        what flows: ``Sample`` and ``Group``
- ``grade``        correct, wrong or unscorable; the last leaves its group
- ``rollout``      groups of samples through the engine, whose sampling must be reproducible by
                   the trainer (no top-p, top-k, min-p, penalties)
- ``advantage``    rewards to advantages: group, batch and leave-one-out baselines
- ``kl``           the estimators k1, k2, k3
- ``policy_loss``  ratio, clip and aggregation as pure functions that return (sum, count, stats)
- ``objective``    an algorithm is a frozen dataclass of choices; GRPO, DAPO, GSPO ... are presets
- ``mismatch``     how far trainer and sampler are apart, always logged; TIS and MIS correct it
- ``policy_batch`` samples to packed batches without padding
- ``policy_step``  log-probabilities of actions; the objective that ``train.step`` minimises
- ``health``       stops a run whose reward or entropy has collapsed
- ``grpo``         the loop: roll out, grade, advantages, pack, train, bump the version

Losses never divide; ``weft.train.step`` divides once, by the global count.
"""
