"""The tokenizer that everything above uses: ``tokenizer.json`` run by the ``tokenizers`` library.

Text is data: unless a caller says ``special=True``, the text ``<|im_end|>`` is a few ordinary
tokens and never the end of a turn.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from weft.core.errors import RequestError, TokenizerError, UserError
from weft.text import hf_format
from weft.text.chat import ChatTemplate
from weft.text.token_bytes import TokenDecoder

_PROBE = "weft probe"
_TRIM_OFFSETS = re.compile(r'"trim_offsets"\s*:\s*true')


class Tokenizer:
    """Text to token ids and back.

    Args:
        tokenizer_json: the text of a Hugging Face ``tokenizer.json``.
        config: ``tokenizer_config.json``: names of the special tokens and more, kept on saving.
        chat_template: Jinja2 source.
        eos_token_ids: end tokens besides the configured one and the template's end of turn.
        name: where this is from, for messages.

    Raises:
        TokenizerError: the JSON is damaged, or the chat template is not valid Jinja2.
        UnsupportedError: tokens of this kind cannot be decoded one by one.
    """

    def __init__(
        self,
        tokenizer_json: str,
        *,
        config: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
        eos_token_ids: Sequence[int] = (),
        name: str = "the tokenizer",
    ) -> None:
        config = dict(config or {})
        self._files = hf_format.TokenizerFiles(
            tokenizer_json, config, chat_template, tuple(eos_token_ids)
        )
        self.name = name
        self.backend = _build(tokenizer_json, name)
        added = self.backend.get_added_tokens_decoder()
        self._special_texts = {id: token.content for id, token in added.items() if token.special}
        self._added_texts = {id: token.content for id, token in added.items() if not token.special}
        self._decoder = TokenDecoder.from_json(json.loads(tokenizer_json).get("decoder"))
        roles = {key: hf_format.token_text(value) for key, value in config.items()}
        self._roles = {key: text for key, text in roles.items() if text and key.endswith("_token")}
        self.special_ids = frozenset(self._special_texts)
        self.bos_id = self._role_id("bos_token")
        self.pad_id = self._role_id("pad_token")
        self.chat_template = (
            None
            if chat_template is None
            else ChatTemplate(
                chat_template,
                special_tokens=self._roles,
                name=f"the chat template of {name}",
            )
        )

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Load a folder with a ``tokenizer.json``, or the file alone.

        Raises:
            InputFileError: there is no such file.
            TokenizerError: a file is damaged.
        """
        files = hf_format.read_tokenizer(path)
        return cls(
            files.tokenizer_json,
            config=files.config,
            chat_template=files.chat_template,
            eos_token_ids=files.eos_token_ids,
            name=str(path),
        )

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``."""
        extra = {"eos_token_ids": list(self.eos_ids)} if len(self.eos_ids) > 1 else {}
        hf_format.write_tokenizer(
            folder, replace(self._files, config={**self._files.config, **extra})
        )

    def encode(
        self, text: str, *, special: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: any Unicode text.
            special: special tokens written in the text become their ids; else they are text.
            add_special_tokens: also add what the tokenizer puts around a text, such as BOS.

        Raises:
            RequestError: the text has half a surrogate pair, which is not Unicode text.
        """
        return self.encoding(text, special=special, add_special_tokens=add_special_tokens).ids

    def encoding(
        self, text: str, *, special: bool, add_special_tokens: bool = False
    ) -> tokenizers.Encoding:
        """Return the library's encoding, whose ``offsets`` are character spans of the text."""
        backend = self.backend if special else self._literal_backend
        try:
            return backend.encode(text, add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError) as error:
            raise _not_text(text) from error

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as ``encode`` does, on all cores."""
        try:
            encodings = self._literal_backend.encode_batch_fast(
                list(texts), add_special_tokens=False
            )
        except (UnicodeEncodeError, TypeError):
            return [self.encode(text) for text in texts]  # names the text that is at fault
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        special = {} if skip_special else self._special_texts
        data = b"".join(
            special[id].encode() if id in special else self.token_bytes(id) for id in ids
        )
        if self.strips_first_space:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes a token stands for; none for special and for unknown ids."""
        return self._byte_table[id] if 0 <= id < len(self._byte_table) else b""

    def special_text(self, id: int) -> str | None:
        """Return the text of a special token, or None for any other."""
        return self._special_texts.get(id)

    def special_texts(self) -> tuple[str, ...]:
        """Return the texts of all special tokens."""
        return tuple(self._special_texts.values())

    def token_id(self, text: str) -> int | None:
        """Return the id of a token given as it stands in the vocabulary, or None."""
        return self.backend.token_to_id(text)

    def to_json(self) -> str:
        """Return the text of ``tokenizer.json``."""
        return self._files.tokenizer_json

    def with_json(self, tokenizer_json: str) -> Tokenizer:
        """Return a tokenizer with another ``tokenizer.json`` and everything else the same."""
        return Tokenizer(
            tokenizer_json,
            config=self._files.config,
            chat_template=self._files.chat_template,
            eos_token_ids=self._files.eos_token_ids,
            name=self.name,
        )

    def check_model(self, vocab_size: int) -> None:
        """Check that a model's embedding has a row for every token.

        Raises:
            TokenizerError: it has fewer.
        """
        if vocab_size < self.vocab_size:
            raise TokenizerError(
                f"{self.name} has {self.vocab_size} tokens; the model's embedding has "
                f"{vocab_size} rows",
                fix="use the tokenizer that the model was trained with",
            )

    @property
    def strips_first_space(self) -> bool:
        """Whether one space at the start of a text is the tokenizer's, not the text's."""
        return self._decoder.strips_first_space

    @functools.cached_property
    def vocab_size(self) -> int:
        """Number of rows a model needs: the largest id plus one."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical ``tokenizer.json``: equal fingerprints, equal ids."""
        canonical = hf_format.canonical(self._files.tokenizer_json)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @functools.cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a generation: configured ones and the template's end of turn."""
        configured = self._files.config.get("eos_token_ids") or ()
        ids = [self._role_id("eos_token"), *self._files.eos_token_ids, *configured]
        return tuple(dict.fromkeys(id for id in [*ids, self.end_of_turn_id] if id is not None))

    @functools.cached_property
    def end_of_turn_id(self) -> int | None:
        """The special token that the chat template writes after an assistant's content."""
        if self.chat_template is None:
            return None
        messages = [{"role": "user", "content": "."}, {"role": "assistant", "content": _PROBE}]
        try:
            text = self.chat_template.render(messages)
        except UserError:  # a template that wants another kind of conversation tells nothing
            return None
        _, found, rest = text.rpartition(_PROBE)
        after = self.encode(rest, special=True) if found else []
        return next((id for id in after if id in self.special_ids), None)

    @functools.cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        """A second instance for plain text: the switch is not safe to flip between threads."""
        backend = _build(self._files.tokenizer_json, self.name)
        backend.encode_special_tokens = True
        return backend

    @functools.cached_property
    def _byte_table(self) -> list[bytes]:
        table = [b""] * self.vocab_size
        for token, id in self.backend.get_vocab(with_added_tokens=True).items():
            if id in self._added_texts and self._decoder.byte_level:
                table[id] = token.encode("utf-8")  # written in full, not in stand-ins for bytes
            elif id not in self._special_texts:
                table[id] = self._decoder.to_bytes(token)
        return table

    def _role_id(self, role: str) -> int | None:
        text = self._roles.get(role)
        return None if text is None else self.token_id(text)


def _build(tokenizer_json: str, name: str) -> tokenizers.Tokenizer:
    # Trimmed offsets leave out the space before a word, which belongs to the token (ids are equal).
    tokenizer_json = _TRIM_OFFSETS.sub('"trim_offsets": false', tokenizer_json)
    try:
        backend = tokenizers.Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{name} is damaged: its tokenizer.json cannot be read ({error})",
            fix="copy the file again from its source, or train it again: weft tokenizer train",
        ) from error
    # A file may ask for cutting or filling texts; callers here always want all and only the text.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _not_text(text: Any) -> RequestError:
    if not isinstance(text, str):
        return RequestError(
            f"the text to encode is a {type(text).__name__}; it must be a str", fix="pass text"
        )
    at = next(index for index, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    return RequestError(
        f"the text has half a surrogate pair ({text[at]!a}) at character {at}",
        fix="remove it; it is not Unicode text",
    )
