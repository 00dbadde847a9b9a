"""Serving simulated: the engine's own loop and scheduler, many replicas, one virtual time.

Nothing is imitated but time. Every replica is a ``weft.sched.ServingLoop`` with the real
``Scheduler``; its runner, instead of computing, lets its clock pass by what a step-time model
says. Chunking, prefix cache, preemption and refusals are therefore the engine's, step for step.

- ``runner.py``    ``SimRunner`` and the simplest step-time model.
- ``replica.py``   one engine with its own clock, and what a router can know of it.
- ``fleet.py``     what is simulated: pools, routing, links, failures, changes of role.
- ``events.py``    the event loop: the earliest of arrival, step, transfer and failure goes first.
- ``roles.py``     policies that move replicas between prefill, decode and standby while it runs.
- ``result.py``    what happened to requests; percentiles, goodput, load balance.
- ``series.py``    queues over time, for plots; ``chrome.py`` the same as a Perfetto trace.
- ``capacity.py``  the highest rate that keeps a service level.
- ``replay.py``    record a real engine's schedule, run it again on a virtual clock, compare.
- ``ranks.py``     requests split over data-parallel ranks that wait for each other every step.
"""
