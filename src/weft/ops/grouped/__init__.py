"""Linear maps of rows that belong to different experts.

- ``order.py``      rows sorted by expert, and back.
- ``permute.py``    tokens to sorted rows and weighted sums back, by gathers only.
- ``reference.py``  one plain product per expert.
- ``loop.py``       the same over non-empty experts, with one weight gradient for the whole stack.
- ``device.py``     torch's grouped product on CUDA, which never tells the host the counts.
- ``shapes.py``     the meta device, where there are no counts.
- ``blocks.py``     the padded layout that fixed-size kernels want (``moe_align_block_size``).
"""
