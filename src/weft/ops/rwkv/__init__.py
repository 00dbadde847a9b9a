"""What RWKV carries from token to token.

WKV of RWKV-4 is an exponentially decaying softmax average per channel:

- ``reference.py``  token by token, with a running maximum.
- ``chunkwise.py``  all pairs inside a chunk, one state between chunks.

RWKV-5 and RWKV-6 keep a matrix per head:

- ``matrix.py``     linear attention with a bonus for the present token.
"""
