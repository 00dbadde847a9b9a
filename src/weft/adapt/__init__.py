"""Floor 6: small changes to a frozen model, applied from outside by name pattern.

- ``lora.py``     low-rank adaptation: inject, train, merge, remove.

No model class knows that adapters exist. On merged projections (QKV, gate-up) the adapter is one
low-rank pair for the merged matrix; exchange with PEFT's one-pair-per-projection layout belongs
to the fine-tuning issue.
"""
