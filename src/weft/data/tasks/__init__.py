"""Generated tasks: problems without end, each with an answer that can be checked.

``task`` holds the common shape: problems by (split, seed), a split by hash that keeps test
problems out of training, grading, demonstrations for fine-tuning. ``addition``, ``brackets`` and
``sorting`` generate problems for verifiable rewards; ``docstrings`` asks what the objects of the
standard library do. ``catalog`` opens a task by name and difficulty.
"""
