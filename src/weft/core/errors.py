"""The exceptions a user of weft can meet.

::

    WeftError                      anything weft raises on purpose          exit code 1
    ├── UserError                  the input cannot work as given           exit code 2
    │   ├── ConfigError            unknown key, wrong type, value out of range
    │   ├── InputFileError         a file that is missing, empty or of the wrong kind
    │   ├── DataError              a corpus or shard that cannot be used
    │   ├── CheckpointError        weights or training state that cannot be read
    │   ├── TokenizerError         a tokenizer that is broken or does not match the model
    │   ├── UnsupportedError       a valid wish that this version cannot fulfil
    │   ├── MissingExtraError      an optional dependency that is not installed
    │   ├── ResourceError          disk full, port in use, not enough memory
    │   └── RequestError           one inference request is refused         HTTP 4xx
    │       ├── ContextLengthError the prompt can never fit                 HTTP 400
    │       └── QueueFullError     too many requests are waiting            HTTP 429
    └── Interrupted                Ctrl-C after everything was saved         exit code 130

A message has the offending value, the limit and the next step:

>>> raise ConfigError("batch_size is 0; it must be at least 1", fix="set train.batch_size=1")
Traceback (most recent call last):
    ...
weft.core.errors.ConfigError: batch_size is 0; it must be at least 1
  fix: set train.batch_size=1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WeftError(Exception):
    """Anything weft raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\n  fix: {self.fix}"


class UserError(WeftError):
    """The input cannot work as given; the message says what to change."""

    exit_code = 2


class ConfigError(UserError):
    """An unknown key, a wrong type or a value out of range."""


class InputFileError(UserError):
    """A file or folder that is missing, empty or of the wrong kind."""


class DataError(UserError):
    """A corpus, shard or example that cannot be used."""


class CheckpointError(UserError):
    """Weights or training state that cannot be read."""


class TokenizerError(UserError):
    """A tokenizer that is broken or does not match the model."""


class UnsupportedError(UserError):
    """A valid wish that this version cannot fulfil."""


class MissingExtraError(UserError):
    """An optional dependency that is not installed."""


class ResourceError(UserError):
    """The machine has too little of something: disk, memory, a free port."""


class RequestError(UserError):
    """One inference request is refused. ``status`` is the HTTP status, ``param`` the field."""

    status = 400

    def __init__(self, message: str, *, fix: str | None = None, param: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.param = param


class ContextLengthError(RequestError):
    """A prompt that can never fit into the model's context or the KV cache."""


class QueueFullError(RequestError):
    """Too many requests are waiting; ``retry_after_s`` says when to try again."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: int = 1, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


class Interrupted(WeftError):
    """The user pressed Ctrl-C and everything needed to continue was saved."""

    exit_code = 130


def did_you_mean(word: str, choices: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest choice, else the list of choices.

    ``otherwise`` stands in for lists too long to read.

    >>> did_you_mean("learning_rat", ["learning_rate", "steps"])
    "did you mean 'learning_rate'?"
    >>> did_you_mean("zzz", ["b", "a"])
    'choose one of: a, b'
    """
    options = sorted(set(choices))
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.55)
    if close:
        return f"did you mean {close[0]!r}?"
    return otherwise or "choose one of: " + ", ".join(options)
