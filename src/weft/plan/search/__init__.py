"""Search: every valid way to train or serve a model on given devices, ranked.

- ``rules.py``     what makes a training layout impossible, whatever the memory.
- ``space.py``     all training layouts of a number of devices, each checked by the rules.
- ``training.py``  memory first, then step time; the best, why others fell, single changes.
- ``serving.py``   replicas, parallel sizes and split pools under a service level; Pareto front.
"""
