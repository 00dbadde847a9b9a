"""Floor 3: what several processes share, and what differs between releases of torch.

- ``compat.py``  the supported releases of torch, checked with a clear message; calls that
  differ between them belong there, so that no other file asks for a version.
- ``group.py``   ``ProcessGroup``: sum, broadcast, gather, scatter, exchange and barrier. Alone
  (world 1) it needs no rendezvous and every operation is the identity, so a trainer has one
  code path for one process and for many.
- ``launch.py``  ``run_distributed``: run one function in several local processes over gloo.

Collectives that autograd must see, meshes and sharding plans join this package with the first
layout that needs them.
"""
