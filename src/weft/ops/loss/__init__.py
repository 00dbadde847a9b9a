"""Losses over a vocabulary that never keep the whole matrix of logits.

``reference.py`` defines them with full logits, ``chunked.py`` computes loss and gradient chunk
by chunk, ``rows.py`` is the row pass (logits to loss and gradient) in C, ``softcap.py`` what
some families do to logits first.
"""
