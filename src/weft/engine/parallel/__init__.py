"""An engine on several processes: each layer's weights are shared out among ranks.

Rank 0 has scheduler, queue and text. Every plan it makes goes to all ranks, which execute it with
the ordinary ``ModelRunner`` on their part of the model (``weft.models.sharded``) and meet in the
model's collectives. Each draws every token itself: from the same gathered scores, with the same
counter-based numbers, and with grammars compiled by each; so no token travels, and steps may
overlap. Plans, not tensors, cross between Python programs, and nothing is pickled.

- ``config.py``    ``ParallelConfig``, a part of ``EngineConfig``.
- ``start.py``     starting the ranks, or joining torchrun's; loading; agreeing on block numbers.
- ``__main__.py``  what a started rank runs.
- ``lead.py``      ``LeadRunner``: rank 0's runner. ``follow.py``: ``Follower``, the other ranks'.
- ``codec.py``     plans as bytes. ``channel.py``: frames over sockets of the local host.
- ``lockstep.py``  ``Lockstep``: collectives that are refused outside of a step.
- ``ranks.py``     ``Ranks``: watching and ending the others; ``RankError`` names who failed.

A rank that dies, raises or stays silent breaks the group: requests of that step end with ERROR and
the reason, the engine is unhealthy, its loop and the server live on. Ranks end with rank 0.
"""
