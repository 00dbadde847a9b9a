"""Compare the planner with published measurements and print how wrong it is.

- ``rows.py``          rows of a CSV file, checked.
- ``architecture.py``  short architecture strings to ``ModelSpec``.
- ``golden.py``        formula values: every one must hold.
- ``training.py``      throughput, step time and peak memory of training runs.
- ``inference.py``     static batches, closed loops and maximum load.
- ``table.py``         errors by source, quantiles, interval coverage, worst rows.

Constants are fitted beforehand and shipped in ``weft.plan.data``; a file that is judged is never
fitted to. ``config_complete`` rows make the headline, partial ones are shown apart.
"""
