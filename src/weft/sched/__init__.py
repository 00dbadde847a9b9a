"""Floor 2: decisions without tensors. Serving takes turns here; torch is never imported.

One loop serves and simulates: ``schedule`` writes a plan, a runner executes it, ``settle`` reads
the result. Clock and runner are arguments, so the planner runs the very scheduler that serves.

- ``plan``: the words between scheduler, runner and front end (``StepPlan``, ``StepResult``, ...).
- ``config``: sizes and limits.
- ``loop``: the loop, the clocks, the runner's protocol.
- ``scheduler``: who computes how many tokens next, admission, preemption, every ending.
- ``admission``: refusals with numbers and a way out.
- ``sequence``, ``waiting``, ``stats``: one request; order of service; counters.
- ``manager``: block tables of sequences: match, allocate, commit, truncate, free.
- ``blocks``: reference counts and the free list that doubles as the cache.
- ``prefix``: hash-chained blocks, one structure seen as hash map and as radix tree.
- ``pipeline``: training schedules as data: who computes which micro batch when.
- ``slots``, ``sizing``: block table to slot numbers; memory to number of blocks.

Why phase-free: a plan says how many tokens of which request, and nothing else. Chunked prefill,
mixed steps, prefix hits and resuming after preemption are then the same arithmetic.
Why keys carry salt, adapter and weight version: what a block's content depends on is in its key,
so nothing has to be flushed to stay correct.
"""
