"""Stop strings in a stream: release text as soon as it cannot become part of one."""

from __future__ import annotations


class StopMatcher:
    """Find the first of several stop strings in text that arrives in pieces.

    The text from the stop string on is never released. Which string counts: the one that is
    complete first; among those that end together, the one that starts first. So the result does not
    depend on how the text is cut into pieces.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(dict.fromkeys(text for text in stop if text))
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return what is safe to show and whether a stop string has been met."""
        if self.matched is not None:
            return "", True
        self._held += text
        found = self._find(len(self._held) - len(text))
        if found is not None:
            start, self.matched = found
            released, self._held = self._held[:start], ""
            return released, True
        keep = self._num_held_back()
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released, False

    def flush(self) -> str:
        """Return what is still held back; the stream has ended without a stop string."""
        released, self._held = self._held, ""
        return released

    def _find(self, num_old: int) -> tuple[int, str] | None:
        """Return start and text of the first stop string that ends after ``num_old`` characters."""
        best: tuple[int, int, str] | None = None
        for text in self._stop:
            start = self._held.find(text, max(0, num_old - len(text) + 1))
            if start >= 0:
                candidate = (start + len(text), start, text)
                best = candidate if best is None else min(best, candidate)
        return None if best is None else (best[1], best[2])

    def _num_held_back(self) -> int:
        """Return the length of the longest suffix that is the beginning of a stop string."""
        for size in range(min(self._longest - 1, len(self._held)), 0, -1):
            suffix = self._held[-size:]
            if any(text.startswith(suffix) for text in self._stop):
                return size
        return 0
