"""Worked examples of public LLM-systems courses, reproduced to the digit.

Each file is one worked example. Where a course is wrong, ``strict=False`` gives the printed value
and ``strict=True`` the right one; the docstring names the slip. Nothing here predicts anything:
general laws live one package up, and tests compare the two wherever both speak.

- ``counting.py``      parameters, FLOPs and activations of a small decoder; mixture counts.
- ``mfu.py``           four MFU calculators for one configuration.
- ``deepseek_mfu.py``  DeepSeek-V3's training step.
- ``latent.py``        latent attention: memory of two modes, prefill with a prefix cache.
- ``transfer.py``      moving keys and values against computing them again.
- ``linear_cache.py``  states of linear attention against key-value caches.
- ``serving.py``       time to first token and speed from peak FLOPs.
"""
