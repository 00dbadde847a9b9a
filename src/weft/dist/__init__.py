"""Floor 3: what several processes share, and what differs between releases of torch.

- ``compat.py``  the supported releases of torch, checked with a clear message; calls that
  differ between them belong there, so that no other file asks for a version.
- ``group.py``   ``ProcessGroup``: sum, broadcast, gather, scatter, exchange and barrier. Alone
  (world 1) it needs no rendezvous and every operation is the identity, so a trainer has one
  code path for one process and for many.
- ``collectives.py``  ``Collectives``: the few of them that a model spread over ranks needs.
- ``private_group.py``  ``PrivateGroup``: a group that is nobody's default, for engines.
- ``tensor_info.py``  names, shapes and types of tensors that are about to be sent, in buckets.
- ``ipc.py``  one tensor in several processes of a machine: shared memory, CUDA's handles.
- ``tensor_stream.py``  named tensors from one rank to the others, bucket by bucket.
- ``launch.py``  ``run_distributed``: run one function in several local processes over gloo.

Collectives that autograd must see, meshes and sharding plans join this package with the first
layout that needs them.
"""
