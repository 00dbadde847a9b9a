"""Floor 8: what a model can do, as numbers with an interval that anyone can reproduce.

Two kinds of request reach a model: the log-likelihood of a given continuation, and a generation.
Both are token ids; the rule that splits a text into context and continuation is stated once.

- ``requests``     ``LogLikelihood`` and ``Generate``; the split rule
- ``loglikelihood`` answers log-likelihood requests through the training path, packed
- ``windows``      how documents are cut: every token predicted exactly once
- ``perplexity``   perplexity and bits per byte of held-out documents
- ``exact_match``  greedy generation through the engine, judged by the task's own check
- ``choice``       multiple choice by log-likelihood, raw and per byte
- ``interval``     Wilson's interval for shares, the bootstrap for means
- ``task``         an evaluation as data: its items, its hash, its metric
- ``builtin``      offline tasks: addition and the other generated ones, docstring multiple choice
- ``metrics``      BLEU and chrF2, equal to sacrebleu; ``translation`` measures a model with them
- ``speculation``  what guesses bring: acceptance by position and speed-up, through the engine
- ``harness``      runs tasks, writes one JSON result and a table

A result holds what decides it besides the model: the hash of the items, the seed, n, the first
prompt as tokens, how generations ended. Two runs of the same configuration give the same file.
"""
