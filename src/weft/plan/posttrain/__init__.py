"""What a step of reinforcement learning from verifiable rewards takes (GRPO and its relatives).

- ``rollout.py``  how long an engine needs for all samples of a step, long ones to the end.
- ``step.py``     the whole step, on the same devices or on two groups of them.
"""
