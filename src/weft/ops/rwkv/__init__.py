"""WKV, the recurrence of RWKV-4: an exponentially decaying softmax average per channel.

- ``reference.py``  token by token, with a running maximum.
- ``chunkwise.py``  all pairs inside a chunk, one state between chunks.
"""
