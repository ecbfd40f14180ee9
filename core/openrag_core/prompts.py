"""Question, evidence and messages -> token ids: the one way into the model.

Questions and passages are untrusted. A document that contains `[Fully supported]`,
`</paragraph>` or `</s>` must not be able to speak for the model, so text is tokenised by a
private copy of the tokenizer that knows no special tokens at all; the special ids of the prompt
are placed between its stretches. (`split_special_tokens=True` would switch state on the shared
tokenizer, which other threads see, and leaves added tokens with `special=False` in force.)

Layout: Asai et al., Self-RAG (arXiv:2310.11511), and the released Open-RAG code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4
from weakref import WeakKeyDictionary

from openrag_core.errors import ConfigError
from openrag_core.reflection import END_PARAGRAPH, NO_RETRIEVAL, PARAGRAPH, RETRIEVAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

PromptMode = Literal["bare", "no_retrieval", "retrieval"]

_SEPARATOR = uuid4().hex  # stands for a special token while encoding; no document can guess it


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    *,
    question: str,
    mode: PromptMode = "bare",
    evidence: Sequence[Mapping[str, str]] = (),
    instruction: str | None = None,
) -> list[int]:
    """Encode a question for a model with reflection tokens.

    Args:
        tokenizer: Of the model, with the reflection tokens added.
        question: Encoded as plain text, whatever it contains.
        mode: "bare" ends where the model decides whether to retrieve; "no_retrieval" makes it
            answer without reading; "retrieval" makes it answer from `evidence`.
        evidence: For "retrieval": one passage as {"title", "text"}, or several as one chain. An
            absent or empty title leaves the text alone. Encoded as plain text.
        instruction: Put in front of the prompt as it is, for instance how long an answer to give.

    Returns:
        Token ids, the tokenizer's begin token first if it has one; shape (T,).

    Raises:
        ConfigError: The mode is unknown, evidence is missing or not wanted, or the tokenizer
            lacks a reflection token.
    """
    if mode not in get_args(PromptMode):
        raise ConfigError(f"mode must be one of {', '.join(get_args(PromptMode))}; got {mode!r}")
    if (mode == "retrieval") != bool(evidence):
        raise ConfigError(f'mode "retrieval" takes evidence and no other does; got {mode!r}')
    pieces: list[str | int] = [
        *_begin(tokenizer),
        f"{instruction or ''}### Instruction:\n{question}\n\n### Response:\n",
    ]
    if mode == "no_retrieval":
        pieces += [token_id(tokenizer, NO_RETRIEVAL)]
    elif mode == "retrieval":
        opening = [token_id(tokenizer, token) for token in (RETRIEVAL, PARAGRAPH)]
        pieces += [*opening, _paragraph(evidence), token_id(tokenizer, END_PARAGRAPH)]
    return _encode(tokenizer, pieces)


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Encode a conversation with the model's own chat template, ready for its next turn.

    Args:
        tokenizer: With a chat template.
        messages: Each {"role", "content"}; the content is encoded as plain text.

    Returns:
        Token ids; shape (T,).

    Raises:
        ConfigError: The tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "this model has no chat template, and its reflection tokens are not trained: "
            "choose an instruction-tuned model, or an Open-RAG checkpoint"
        )
    names = {uuid4().hex: message["content"] for message in messages}
    masked = [
        {"role": message["role"], "content": name}
        for name, message in zip(names, messages, strict=True)
    ]
    rendered = _render(tokenizer, masked)
    vocabulary = tokenizer.get_added_vocab()
    tokens = sorted(filter(str.strip, vocabulary), key=len, reverse=True)
    pieces: list[str | int] = []
    for stretch in re.split(f"({'|'.join(map(re.escape, tokens))})", rendered):
        if stretch in vocabulary:
            pieces.append(vocabulary[stretch])
        else:
            pieces.append(re.sub("|".join(names), lambda name: names[name[0]], stretch))
    return _encode(tokenizer, pieces)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """Apply the chat template; one without a system role gets that text before the user's."""
    from jinja2 import TemplateError  # noqa: PLC0415  (prompts import without extras)

    def render(turns: list[dict[str, str]]) -> str:
        rendered = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(rendered)

    try:
        return render(messages)
    except TemplateError:
        if len(messages) < 2 or messages[0]["role"] != "system":
            raise
    system, first, *others = messages
    return render([first | {"content": f"{system['content']}\n\n{first['content']}"}, *others])


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a special token.

    Raises:
        ConfigError: The tokenizer does not have it.
    """
    found: int | None = tokenizer.get_added_vocab().get(token)
    if found is None:
        raise ConfigError(f"the tokenizer has no token {token!r}: upcycle the model first")
    return found


def _paragraph(evidence: Sequence[Mapping[str, str]]) -> str:
    titled = [
        f"{title}\n{passage['text']}" if (title := passage.get("title")) else passage["text"]
        for passage in evidence
    ]
    if len(titled) == 1:
        return titled[0]
    return "\n[SEP]\n".join(f"Knowledge {n}: {text}" for n, text in enumerate(titled, start=1))


def _begin(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    begins = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return [tokenizer.bos_token_id] if begins else []


def _encode(tokenizer: PreTrainedTokenizerBase, pieces: Iterable[str | int]) -> list[int]:
    """Encode in one go, so that ids at the seams equal those of the whole tokenizer."""
    pieces = list(pieces)
    specials = iter([piece for piece in pieces if isinstance(piece, int)])
    plain = _plain(tokenizer)
    text = "".join(_SEPARATOR if isinstance(piece, int) else piece for piece in pieces)
    ids = plain.tokenizer.encode(text, add_special_tokens=False).ids
    return [next(specials) if n == plain.separator else plain.ids.get(n, n) for n in ids]


@dataclass(frozen=True, slots=True)
class _Plain:
    """A copy of a tokenizer in which the separator is the only special token."""

    size: int
    """Of the original when it was copied."""
    tokenizer: Tokenizer
    separator: int
    ids: Mapping[int, int]
    """Ids of the original, where the copy has others."""


_PLAIN: WeakKeyDictionary[PreTrainedTokenizerBase, _Plain] = WeakKeyDictionary()


def _plain(tokenizer: PreTrainedTokenizerBase) -> _Plain:
    plain = _PLAIN.get(tokenizer)
    if plain is None or plain.size != len(tokenizer):  # tokens were added since
        plain = _PLAIN[tokenizer] = _copy_without_special_tokens(tokenizer)
    return plain


def _copy_without_special_tokens(tokenizer: PreTrainedTokenizerBase) -> _Plain:
    from tokenizers import AddedToken, Tokenizer  # noqa: PLC0415  (prompts import without extras)

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"{type(tokenizer).__name__} is not backed by the tokenizers library")
    state = json.loads(backend.to_str())
    # Runs of white space (Gemma has them) are harmless, and the model was trained with them.
    kept = [token for token in state["added_tokens"] if not token["content"].strip()]
    removed = {token["content"] for token in state["added_tokens"] if token["content"].strip()}
    state |= {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    _hide(state["model"], removed)
    plain = Tokenizer.from_str(json.dumps(state))
    plain.add_special_tokens([AddedToken(_SEPARATOR, normalized=False, special=True)])
    vocabulary = plain.get_vocab()
    return _Plain(
        size=len(tokenizer),
        tokenizer=plain,
        separator=vocabulary[_SEPARATOR],
        ids={vocabulary[token["content"]]: token["id"] for token in kept},
    )


def _hide(model: dict[str, Any], tokens: set[str]) -> None:
    """Rename vocabulary entries, so that a model which looks whole pieces up cannot find them."""

    def hidden(piece: str) -> str:
        return f"{_SEPARATOR} {piece}" if piece in tokens else piece

    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {hidden(piece): id_ for piece, id_ in vocabulary.items()}
    else:
        model["vocab"] = [[hidden(piece), score] for piece, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = hidden(model["unk_token"])
