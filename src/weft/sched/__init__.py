"""Floor 2: decisions without tensors. Serving takes turns here; torch is never imported.

One loop serves and simulates: ``schedule`` writes a plan, a runner executes it, ``settle`` reads
the result. Clock and runner are arguments, so the planner runs the very scheduler that serves.

- ``plan``: the words between scheduler, runner and front end (``StepPlan``, ``StepResult``, ...).
- ``config``: sizes and limits.
- ``loop``: the loop and the clocks; ``launch``: how a plan gets to the runner, and in a thread.
- ``scheduler``: the decisions as one object; ``invariants``: what holds between its calls.
- ``roster``: the live requests, in queues: how they enter, start, give way and end.
- ``planner``: who computes how many tokens next; ``settle``: what a step's result means.
- ``policy``: who is admitted next; ``admission``: refusals with numbers and a way out.
- ``budget``: tokens of a step for a time per output token; ``drafts``: where guesses fit.
- ``forks``: requests that begin with the blocks of another one (copy on write).
- ``sequence``, ``waiting``, ``stats``: one request; order of service; counters.
- ``manager``: block tables of sequences: match, allocate, commit, truncate, free.
- ``blocks``: reference counts and the free list that doubles as the cache.
- ``prefix``: hash-chained blocks, one structure seen as hash map and as radix tree.
- ``tiers``: which of them are in host memory and on disk; ``tier_policy``: when reading pays.
- ``snapshots``: where copies of recurrent states are, so that models with states share prefixes.
- ``keyed_slots``: slots by key, least recently used first; tiers and snapshots are made of it.
- ``routing``: which replica gets a request; ``eplb``: which device gets which experts.
- ``pipeline``: training schedules as data: who computes which micro batch when.
- ``slots``, ``sizing``: block table to slot numbers; memory to number of blocks.

Why phase-free: a plan says how many tokens of which request, and nothing else. Chunked prefill,
mixed steps, prefix hits, forks and resuming after preemption are then the same arithmetic.
Why steps may overlap: positions are counted when they are planned, tokens when they are settled.
The runner keeps the order of plans, so blocks go back at once, even while a step writes to them.
Why keys carry salt, adapter and weight version: what a block's content depends on is in its key,
so nothing has to be flushed to stay correct.
"""
