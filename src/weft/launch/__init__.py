"""Floor 9: files for whatever runs jobs. We render and obey their contracts; we schedule nothing.

- ``job.py``       ``Job``: a command, its nodes and processes.
- ``torchrun.py``  one machine or several that see each other.
- ``slurm.py``     a batch script that asks to be warned before it is stopped and requeued.
"""
