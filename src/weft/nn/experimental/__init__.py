"""Experimental: published ideas as plain references, held to naive definitions.

No ``ModelSpec`` describes them, no family uses them and the engine cannot serve them; names and
arguments may change. They are here so that the definitions exist as running code.

- ``hyper_connections.py``  manifold-constrained hyper-connections (mHC, DeepSeek-V4): several
  residual streams.
- ``compressed_attention.py``  attention to a window and to compressed entries (DeepSeek-V4):
  heavily compressed (HCA) and, with overlapping entries and an indexer, compressed sparse (CSA).
- ``attention_residuals.py``  branches that attend to what came before them in depth (AttnRes,
  Kimi K3).
- ``merged_memory.py``  keys and values that learn to merge (DMC).
"""
