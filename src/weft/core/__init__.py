"""Floor 0: errors, configuration, console, events, run directories. Imports nothing of ours.

- ``errors``       the exception tree; every message has the offending value and the fix.
- ``config``       frozen dataclass ↔ TOML ↔ ``--section.key value`` flags, unknown keys refused.
- ``runs``         the run directory that every computing command leaves behind.
- ``events``       metric events and where they go; ``metrics.jsonl`` is the truth.
- ``files``        writing so that a crash or a full disk never leaves half a file.
- ``console``      tables, live lines, numbers for people.
- ``environment``  machine, Python and package versions: the content of ``env.json``.
- ``optional``     the one gate for optional dependencies.
"""
