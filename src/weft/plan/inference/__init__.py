"""What serving costs, in closed form: per step, per request, per token.

A step is a list of kernels (``weft.plan.accounting``), each the larger of its compute and memory
time, plus collectives, plus the host. Everything else is arithmetic on steps.

- ``deployment.py``   a model on devices: how it is cut, stored, and what is left for the cache.
- ``constants.py``    the few constants fitted to published measurements, shipped as data.
- ``step.py``         one step as a tree of costs; ``StepModel`` is also the simulator's step time.
- ``static.py``       one batch from start to end: prefill, decode, time to first token.
- ``load.py``         clients in a closed loop, and the most a deployment delivers.
- ``disaggregate.py`` prefill and decode apart: ratio, link, latencies.
- ``speculate.py``    speculative decoding: where it pays and where it costs.
- ``reuse.py``        prefix cache: what a hit saves; keys and values moved or computed again.
- ``states.py``       caches of linear attention: crossover with key-value caches, snapshots.
- ``experts.py``       balance of experts and of data-parallel ranks; attention and experts apart.
- ``price.py``        money and energy per million tokens, input and output.
"""
