"""Devices, links, nodes and network topologies, as data with a source per field.

- ``devices.toml``, ``links.toml``  the catalogue; a default source per entry, overridden by field.
- ``catalogue.py``  reads it into ``HardwareSpec``; an unknown name lists the nearest ones.
- ``links.py``      ``Link``: a wire's peak and what collectives reach on it, in two regimes.
- ``cluster.py``    ``Cluster``: devices, the link inside a node and the one between; "H100x64".
- ``topology.py``   fat tree, torus, dragonfly, rail: hops and bisection in closed form.
- ``graph.py``      the same networks as graphs, by which the closed forms are proven.
- ``ascend.py``     importer for the platform files of Ascend toolkits.

Peak figures are dense and never include sparsity. The shares that kernels reach are fitted to
published kernel measurements, not to whole training or serving runs.
"""
