"""Floor 11: the ``weft`` command.

``app.py`` is the table of verbs; each names its module as text, so that ``weft --help`` imports
neither the verbs nor torch. ``main.py`` runs one command and turns exceptions into a message and
an exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted with everything saved. Options of a
verb that has a configuration are the configuration's own keys (``--optimizer.lr 1e-3``), read from
the dataclass, so no default is typed twice.
"""
