"""The bodies of OpenAI's completion and chat endpoints, plus vLLM's sampling extras.

Types are checked here and nowhere coerced; ranges are checked once, by ``SamplingParams``. A
field we do not know is refused. A field that OpenAI has and this server cannot honour is accepted
only with a value that asks for nothing (``"tools": []``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from weft.core.errors import RequestError
from weft.engine.beam import BeamParams
from weft.serve.body import Body, Int64, RequestBody
from weft.serve.errors import from_validation
from weft.serve.messages import MessageBody, ToolBody
from weft.serve.structured import StructuredFields, blame
from weft.serve.tool_choice import check_tool_choice
from weft.spec.sampling import SamplingParams

# OpenAI's documented default for completions; chat generates up to the context length.
DEFAULT_COMPLETION_TOKENS = 16

# Known fields this server cannot honour, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
}


# Text to token ids.
Encode = Callable[[str], Sequence[int]]


# Fields that change what is drawn, which a search for the likeliest texts does not.
_SHAPING = (
    "presence_penalty", "frequency_penalty", "logit_bias", "allowed_token_ids", "bad_words", "stop",
    "stop_token_ids", "min_tokens", "prompt_logprobs", "response_format", "structured_outputs",
    "guided_json", "guided_regex", "guided_choice", "guided_grammar",
)  # fmt: skip


class StreamOptions(Body):
    """What else a stream carries."""

    include_usage: bool = False


class SamplingBody(RequestBody, StructuredFields):
    """The fields both endpoints share."""

    n: Int64 = 1
    max_tokens: Int64 | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = SamplingParams.temperature
    top_p: float = SamplingParams.top_p
    top_k: Int64 | None = SamplingParams.top_k
    min_p: float = SamplingParams.min_p
    typical_p: float = SamplingParams.typical_p
    seed: Int64 | None = None
    presence_penalty: float = SamplingParams.presence_penalty
    frequency_penalty: float = SamplingParams.frequency_penalty
    repetition_penalty: float = SamplingParams.repetition_penalty
    logit_bias: dict[str, float] = {}
    allowed_token_ids: list[Int64] = []
    bad_words: list[str] = []
    stop: str | list[str] = Field([], description="a text or a list of texts")
    stop_token_ids: list[Int64] = []
    ignore_eos: bool = False
    min_tokens: Int64 = SamplingParams.min_tokens
    priority: Int64 = 0
    cache_salt: str = ""
    return_token_ids: bool = False
    skip_special_tokens: bool = SamplingParams.skip_special_tokens
    # vLLM's beam search: n is the width.
    use_beam_search: bool = False
    length_penalty: float = BeamParams.length_penalty
    early_stopping: bool = False
    prompt_logprobs: Int64 | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "stream_options is set but stream is false",
                fix="set stream to true or leave stream_options out",
                param="stream_options",
            )
        if self.prompt_logprobs is not None and self.stream:
            raise RequestError(
                "prompt_logprobs is set and stream is true",
                fix="set stream to false; /v1/completions streams them with echo and logprobs",
                param="prompt_logprobs",
            )
        return self

    @model_validator(mode="after")
    def _check_beams(self) -> Self:
        if not self.use_beam_search:
            return self
        for name in (*_SHAPING, "stream", "logprobs", "return_token_ids", "tools", "echo"):
            if name in self.model_fields_set and getattr(self, name):
                raise RequestError(
                    f"{name!r} cannot be combined with use_beam_search",
                    fix="leave one of them out",
                    param=name,
                )
        return self

    def beams(self, *, max_tokens: int) -> BeamParams:
        """Return how beams are searched."""
        return BeamParams(
            width=self.n,
            max_tokens=max_tokens,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            ignore_eos=self.ignore_eos,
        )

    @property
    def structured_field(self) -> str | None:
        """The field that says what the answer must look like."""
        structure = self.structure()
        return None if structure is None else structure.field

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def num_asked_tokens(self) -> int | None:
        """The length the client itself has set."""
        return self.max_tokens

    @property
    def prompt_only(self) -> bool:
        """Whether the client wants to hear about its prompt and nothing else."""
        return False

    def sampling(
        self,
        encode: Encode,
        *,
        max_tokens: int | None,
        logprobs: int | None,
        prompt_logprobs: int | None,
    ) -> SamplingParams:
        """Return the engine's parameters; ``encode`` turns bad words into tokens.

        Raises:
            RequestError: a value is out of range.
        """
        structure = self.structure()
        with blame(self.structured_field):
            return SamplingParams(
                max_tokens=max_tokens,
                temperature=self.temperature,
                # 0 and -1 are vLLM's and SGLang's ways to say "all".
                top_k=None if self.top_k in (0, -1) else self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                typical_p=self.typical_p,
                logit_bias=_token_biases(self.logit_bias),
                allowed_token_ids=tuple(self.allowed_token_ids),
                bad_words=_bad_words(self.bad_words, encode),
                seed=self.seed,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                repetition_penalty=self.repetition_penalty,
                stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
                stop_token_ids=tuple(self.stop_token_ids),
                ignore_eos=self.ignore_eos,
                min_tokens=self.min_tokens,
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
                skip_special_tokens=self.skip_special_tokens,
                structured=None if structure is None else structure.spec,
            )


class CompletionBody(SamplingBody):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[Int64] | list[list[Int64]] = Field(
        description="a text, a list of texts, a list of token ids or a list of such lists"
    )
    logprobs: Int64 | None = None
    echo: bool = False

    @model_validator(mode="after")
    def _check_prompt_only(self) -> Self:
        if self.prompt_only and self.stream:
            raise RequestError(
                "max_tokens is 0 and stream is true: there is nothing to stream",
                fix="set stream to false",
                param="stream",
            )
        return self

    @property
    def prompt_only(self) -> bool:
        """Whether the client wants to hear about its prompt and nothing else."""
        return self.max_tokens == 0 and (self.echo or self.prompt_logprobs is not None)

    @property
    def num_asked_tokens(self) -> int | None:
        """The length the client itself has set; an engine draws a token in any case."""
        return 1 if self.prompt_only else self.max_tokens

    @property
    def num_prompt_logprobs(self) -> int | None:
        """Alternatives wanted for each prompt token, by either field."""
        echoed = self.logprobs if self.echo else None
        asked = [count for count in (echoed, self.prompt_logprobs) if count is not None]
        return max(asked, default=None)

    def to_sampling(self, encode: Encode) -> SamplingParams:
        """Return the engine's parameters."""
        limit = self.num_asked_tokens
        return self.sampling(
            encode,
            max_tokens=DEFAULT_COMPLETION_TOKENS if limit is None else limit,
            logprobs=self.logprobs,
            prompt_logprobs=self.num_prompt_logprobs,
        )


class ChatBody(SamplingBody):
    """``POST /v1/chat/completions``."""

    messages: list[MessageBody]
    tools: list[ToolBody] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    # Variables of the chat template, such as enable_thinking.
    chat_template_kwargs: dict[str, Any] = {}
    max_completion_tokens: Int64 | None = None
    logprobs: bool = False
    top_logprobs: Int64 | None = None

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        check_tool_choice(self.tool_choice, [tool.function.name for tool in self.tools])
        return self

    @property
    def structured_field(self) -> str | None:
        """The field that says what the answer must look like."""
        return super().structured_field or ("tools" if self.tools else None)

    @property
    def offered_tools(self) -> list[dict[str, Any]] | None:
        """The tools the model is told of, as chat templates take them."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.model_dump(exclude={"function": {"strict"}}) for tool in self.tools]

    @property
    def num_asked_tokens(self) -> int | None:
        """The length the client itself has set, under the new name or the old one."""
        new = self.max_completion_tokens
        return self.max_tokens if new is None else new

    def to_sampling(self, encode: Encode) -> SamplingParams:
        """Return the engine's parameters."""
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                f"top_logprobs is {self.top_logprobs} but logprobs is false",
                fix="set logprobs to true",
                param="top_logprobs",
            )
        limit = self.num_asked_tokens
        if self.max_tokens not in (None, limit):
            raise RequestError(
                f"max_tokens is {self.max_tokens} and max_completion_tokens is {limit}",
                fix="send only max_completion_tokens",
                param="max_tokens",
            )
        num_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self.sampling(
            encode,
            max_tokens=limit,
            logprobs=num_logprobs,
            prompt_logprobs=self.prompt_logprobs,
        )


class TokenizeBody(Body):
    """``POST /tokenize``: a text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[MessageBody] | None = None
    return_token_strs: bool = False


class DetokenizeBody(Body):
    """``POST /detokenize``."""

    model: str | None = None
    tokens: list[Int64]


def _token_biases(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """Read OpenAI's map, whose keys are token ids as text."""
    for token in biases:
        if not token.isascii() or not token.isdigit():
            raise RequestError(
                f"logit_bias has the key {token!r}; keys are token ids such as '42'",
                param="logit_bias",
            )
    return tuple((int(token), value) for token, value in biases.items())


def _bad_words(words: list[str], encode: Encode) -> tuple[tuple[int, ...], ...]:
    """Return the token sequences of each word, at the start of a text and after a space."""
    if any(not word.strip() for word in words):
        raise RequestError("bad_words has an empty word", fix="leave it out", param="bad_words")
    spellings = [form for word in words for form in (word, f" {word.lstrip()}")]
    return tuple(dict.fromkeys(tuple(encode(form)) for form in spellings))


T = TypeVar("T", bound=Body)


def parse(model: type[T], body: bytes) -> T:
    """Read a request body.

    Raises:
        RequestError: it is not JSON, has an unknown or unsupported field, or a wrong type.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        return _retry_without_neutral(model, body, error)


def _retry_without_neutral(model: type[T], body: bytes, error: ValidationError) -> T:
    """Drop unsupported fields whose value asks for nothing; refuse the others by name."""
    extra = [item for item in error.errors() if item["type"] == "extra_forbidden"]
    known = [str(item["loc"][0]) for item in extra if len(item["loc"]) == 1]
    unsupported = [name for name in known if name in UNSUPPORTED and name not in model.model_fields]
    if not unsupported:
        raise from_validation(error, model) from error
    values = {str(item["loc"][0]): item["input"] for item in extra}
    for name in unsupported:
        if values[name] not in UNSUPPORTED[name]:
            raise RequestError(
                f"{name!r} is not supported by this server",
                fix=f"leave {name!r} out",
                param=name,
            ) from error
    return parse(model, _without(body, unsupported))


def _without(body: bytes, names: list[str]) -> bytes:
    value = json.loads(body)
    return json.dumps({key: item for key, item in value.items() if key not in names}).encode()
