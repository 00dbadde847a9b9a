"""Experimental: parts of DeepSeek-V4 as plain references, held to naive definitions.

No ``ModelSpec`` describes them, no family uses them and the engine cannot serve them; names and
arguments may change. They are here so that the definitions exist as running code.

- ``hyper_connections.py``  manifold-constrained hyper-connections (mHC): several residual streams.
- ``compressed_attention.py``  attention to a window and to compressed entries: heavily compressed
  (HCA) and, with overlapping entries and an indexer, compressed sparse (CSA).
"""
