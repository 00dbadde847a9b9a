"""``Gate``: whether an engine computes steps and takes requests; and the ways to pause.

==========  ===========  ============  ==========================================================
engine is   steps        new requests  until
==========  ===========  ============  ==========================================================
paused      none         wait          ``resume``
asleep      none         refused       ``wake`` has given back everything that was let go
torn        none         refused       a whole update has replaced the half-written weights
==========  ===========  ============  ==========================================================

The clock runs on: a request whose deadline passes meanwhile ends with the first step behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from weft.core.errors import ConfigError, ResourceError, did_you_mean
from weft.spec.request import FinishReason

if TYPE_CHECKING:
    from weft.engine.core import EngineCore

# What becomes of requests that are under way:
#   abort     they end with ABORT;
#   retract   they wait, give back their blocks, and are computed again from their tokens;
#   in_place  they keep their keys and values and go on where they were.
PauseMode = Literal["abort", "retract", "in_place"]


class Gate:
    """Why an engine stands still, if it does.

    Attributes:
        paused: Someone asked for it.
        asleep: Tags of the memory that was let go (``weft.engine.sleep``).
        torn: A weight update broke off after it had begun to write.
    """

    def __init__(self) -> None:
        self.paused = False
        self.asleep: frozenset[str] = frozenset()
        self.torn = False

    @property
    def is_open(self) -> bool:
        """Whether steps are computed."""
        return not (self.paused or self.asleep or self.torn)

    @property
    def state(self) -> str:
        """One word: "torn", "asleep", "paused" or "running"."""
        if self.torn:
            return "torn"
        return "asleep" if self.asleep else "paused" if self.paused else "running"

    def check_takes_requests(self) -> None:
        """Refuse what would wait for memory or weights that are not there.

        Raises:
            ResourceError: the engine is asleep, or its weights are half written.
        """
        if self.torn:
            raise ResourceError(
                "a weight update broke off: the weights are half old, half new",
                fix="send a whole update, or load the weights from disk",
            )
        if self.asleep:
            raise ResourceError(
                f"the engine is asleep: it has let go of {', '.join(sorted(self.asleep))}",
                fix="wake it up first",
            )

    def check_steps(self) -> None:
        """Refuse work whose caller would wait for ever.

        Raises:
            ResourceError: the engine is asleep, torn or paused.
        """
        self.check_takes_requests()
        if self.paused:
            raise ResourceError("the engine is paused", fix="call resume() first")


def pause(core: EngineCore, mode: PauseMode = "abort") -> None:
    """Stop computing steps; what the steps under way bring is the news of the next ``core.step``.

    Pausing again may go further: a paused engine's requests can still be retracted or aborted.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in get_args(PauseMode):
        raise ConfigError(
            f"there is no pause mode {mode!r}", fix=did_you_mean(mode, get_args(PauseMode))
        )
    core.drain()
    if mode == "abort":
        core.abort_all(FinishReason.ABORT)
    elif mode == "retract":
        core.scheduler.retract()
    core.gate.paused = True


def resume(core: EngineCore) -> None:
    """Compute again; does nothing if the engine was not paused."""
    core.gate.paused = False
