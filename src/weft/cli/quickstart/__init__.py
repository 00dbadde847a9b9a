"""``weft quickstart``: every stage of the stack in one command.

- ``command.py``  the verb: arguments, order of the steps, closing words, the server.
- ``steps.py``    what each step does, each a call of the same functions the other verbs use.
- ``ledger.py``   which steps are done, so that the same command continues after Ctrl-C.
- ``summary.py``  ``summary.json``: results, intervals, durations, predictions beside measurements.
"""
