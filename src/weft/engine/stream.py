"""One request from the engine's side: its tokens so far, its text, and its stop texts."""

from __future__ import annotations

from weft.engine.outputs import Completion, Delta, PromptLogprobs, TopLogprobs, Usage
from weft.sched.plan import SequenceUpdate
from weft.spec.request import FinishReason, Request
from weft.text.detokenize import StreamDetokenizer
from weft.text.stop import StopMatcher
from weft.text.tokenizer import Tokenizer


class RequestStream:
    """Turns the scheduler's updates of one request into deltas and, at the end, a completion."""

    def __init__(
        self, request: Request, tokenizer: Tokenizer | None, stop_token_ids: frozenset[int]
    ) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.weight_versions: list[int] = []
        self.num_cached_tokens = 0
        self.prompt_logprobs: PromptLogprobs | None = None
        self.finish_reason: FinishReason | None = None
        self._error: str | None = None
        self._text: list[str] = []
        self._stop_token_ids = stop_token_ids
        self._detokenizer = None
        if tokenizer is not None:
            skip = request.sampling.skip_special_tokens
            self._detokenizer = StreamDetokenizer(tokenizer, skip_special=skip)
        self._matcher = StopMatcher(request.sampling.stop) if request.sampling.stop else None

    def push(self, update: SequenceUpdate, weight_version: int) -> Delta:
        """Take one update in. A stop text in it ends the stream with ``STOP``, whatever it says."""
        self.num_cached_tokens = max(self.num_cached_tokens, update.num_cached_tokens)
        text = ""
        if update.token is not None:
            text = self._add(update.token, update, weight_version)
        reason, error = update.finish_reason, update.error
        if reason is not None and not self._stopped:
            text += self._flush()
        if self._stopped:
            reason, error = FinishReason.STOP, None
        return self._delta(update, text, weight_version, reason, error)

    def fail(self, message: str, weight_version: int) -> Delta:
        """End the stream with an error."""
        update = SequenceUpdate(self.request.id)
        return self._delta(update, "", weight_version, FinishReason.ERROR, message)

    @property
    def stop_text(self) -> str | None:
        """The stop text that was met, if one was."""
        return None if self._matcher is None else self._matcher.matched

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(len(self.request.tokens), len(self.tokens), self.num_cached_tokens)

    def completion(self) -> Completion:
        """Return everything about a request that has ended."""
        assert self.finish_reason is not None, f"request {self.request.id!r} has not ended"
        return Completion(
            request_id=self.request.id,
            index=self.request.sequence,
            prompt=self.request.tokens,
            tokens=tuple(self.tokens),
            text="".join(self._text),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top_logprobs),
            weight_versions=tuple(self.weight_versions),
            finish_reason=self.finish_reason,
            stop_text=self.stop_text,
            error=self._error,
            num_prompt_tokens=len(self.request.tokens),
            num_cached_tokens=self.num_cached_tokens,
            prompt_logprobs=self.prompt_logprobs,
        )

    @property
    def _stopped(self) -> bool:
        return self.stop_text is not None

    def _add(self, token: int, update: SequenceUpdate, weight_version: int) -> str:
        self.tokens.append(token)
        self.logprobs.append(update.logprob)
        if self.request.sampling.logprobs is not None:
            self.top_logprobs.append(update.top)
        self.weight_versions.append(weight_version)
        ends = update.finish_reason is FinishReason.STOP and token in self._stop_token_ids
        if self._detokenizer is None or ends:
            return ""
        return self._match(self._detokenizer.push(token))

    def _match(self, text: str) -> str:
        # Text drawn before min_tokens can neither be nor begin a stop text.
        if self._matcher is None or len(self.tokens) < self.request.sampling.min_tokens:
            return text
        return self._matcher.push(text)[0]

    def _flush(self) -> str:
        """Release what was held back; the last half character may still complete a stop text."""
        text = self._match(self._detokenizer.flush()) if self._detokenizer is not None else ""
        if self._matcher is not None and not self._stopped:
            text += self._matcher.flush()
        return text

    def _delta(
        self,
        update: SequenceUpdate,
        text: str,
        weight_version: int,
        reason: FinishReason | None,
        error: str | None,
    ) -> Delta:
        if text:
            self._text.append(text)
        self.finish_reason, self._error = reason, error
        return Delta(
            request_id=self.request.id,
            text=text,
            token=update.token,
            logprob=update.logprob,
            top_logprobs=update.top,
            weight_version=weight_version,
            finish_reason=reason,
            stop_text=self.stop_text,
            error=error,
            usage=self.usage,
            # The core has just put them here when the first token comes.
            prompt_logprobs=self.prompt_logprobs if len(self.tokens) == 1 else None,
        )
