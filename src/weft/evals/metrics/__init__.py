"""Scores of a text against references, held equal to the field's reference implementations.

- ``tokenize``  the tokenisation of WMT's mteval-v13a that BLEU figures are quoted with
- ``bleu``      corpus BLEU with exponential smoothing
- ``chrf``      corpus chrF2

Each is a sum of per-sentence counts and one formula over the sums, so that a corpus can be scored
in parts.
"""
