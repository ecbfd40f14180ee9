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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4
from weakref import WeakKeyDictionary

from openrag_core.errors import ConfigError
from openrag_core.reflection import END_PARAGRAPH, NO_RETRIEVAL, PARAGRAPH, RETRIEVAL
from openrag_core.words import well_formed

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

PromptMode = Literal["bare", "no_retrieval", "retrieval"]

READING = "Answer the question from the text. Use the words of the text."
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
    pieces = opening(tokenizer, question, instruction)
    if mode == "no_retrieval":
        pieces += [token_id(tokenizer, NO_RETRIEVAL)]
    elif mode == "retrieval":
        before = [token_id(tokenizer, token) for token in (RETRIEVAL, PARAGRAPH)]
        pieces += [*before, paragraph(evidence), token_id(tokenizer, END_PARAGRAPH)]
    return encode(tokenizer, pieces)


def opening(
    tokenizer: PreTrainedTokenizerBase, question: str, instruction: str | None = None
) -> list[str | int]:
    """What stands before the response, for `encode`; arguments as in `encode_prompt`."""
    begins = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    text = f"{instruction or ''}### Instruction:\n{question}\n\n### Response:\n"
    return [tokenizer.bos_token_id, text] if begins else [text]


def paragraph(evidence: Sequence[Mapping[str, str]]) -> str:
    """One passage, or a chain of them, as it stands between the paragraph tokens.

    Args:
        evidence: As in `encode_prompt`.
    """
    titled = [
        f"{title}\n{passage['text']}" if (title := passage.get("title")) else passage["text"]
        for passage in evidence
    ]
    if len(titled) == 1:
        return titled[0]
    return "\n[SEP]\n".join(f"Knowledge {n}: {text}" for n, text in enumerate(titled, start=1))


def reading_messages(question: str, evidence: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """How a chat model is asked to answer from passages; arguments as in `encode_prompt`."""
    text = "\n\n".join(f"{p.get('title') or ''}\n{p['text']}".strip() for p in evidence)
    return [
        {"role": "system", "content": READING},
        {"role": "user", "content": f"Text: {text}\n\nQuestion: {question}"},
    ]


def encode(tokenizer: PreTrainedTokenizerBase, pieces: Iterable[str | int]) -> list[int]:
    """Encode stretches of plain text with special tokens between them.

    It is done in one go, so that ids at the seams equal those of the whole tokenizer.

    Args:
        tokenizer: Of the model.
        pieces: Text, encoded as plain text whatever it contains, and ids of special tokens.

    Returns:
        Token ids; shape (T,).
    """
    (ids,) = encode_all(tokenizer, [list(pieces)])
    return ids


def encode_all(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[str | int]]
) -> list[list[int]]:
    """The same of many, on all cores.

    Args:
        tokenizer: Of the model.
        prompts: Pieces of each, as `encode` takes them.

    Returns:
        Token ids, in the order of the prompts.
    """
    plain = _plain(tokenizer)
    texts = [
        well_formed("".join(_SEPARATOR if isinstance(piece, int) else piece for piece in pieces))
        for pieces in prompts
    ]
    if len(texts) == 1:  # no threads for one, of which a process that forks later would be warned
        encoded = [plain.tokenizer.encode(texts[0], add_special_tokens=False)]
    else:
        encoded = plain.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    made = []
    for pieces, encoding in zip(prompts, encoded, strict=True):
        specials = iter([piece for piece in pieces if isinstance(piece, int)])
        ids = encoding.ids
        made.append([next(specials) if n == plain.separator else plain.ids.get(n, n) for n in ids])
    return made


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Encode a conversation with the model's own chat template, ready for its next turn.

    Args:
        tokenizer: With a chat template.
        messages: Each {"role", "content"}; the content, without surrounding white space, is
            encoded as plain text.

    Returns:
        Token ids; shape (T,).

    Raises:
        ConfigError: The tokenizer has no chat template, or one that does not take the messages.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "this model has no chat template, and its reflection tokens are not trained: "
            "choose an instruction-tuned model, or an Open-RAG checkpoint"
        )
    names = {uuid4().hex: message["content"].strip() for message in messages}
    masked = [
        {"role": message["role"], "content": name}
        for name, message in zip(names, messages, strict=True)
    ]
    rendered = _render(tokenizer, masked)
    unmask = partial(re.sub, "|".join(names), lambda name: names[name[0]])
    stretches = _split_at_special_tokens(tokenizer, rendered)
    return encode(tokenizer, [s if isinstance(s, int) else unmask(s) for s in stretches])


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """Apply the chat template; one without a system role gets that text before the user's.

    Raises:
        ConfigError: The template refuses the messages, or does not pass their text on as it is.
    """
    from jinja2 import TemplateError  # noqa: PLC0415  (prompts import without extras)

    attempts = [messages]
    if len(messages) > 1 and messages[0]["role"] == "system":
        system, first, *others = messages
        merged = f"{system['content']}\n\n{first['content']}"
        attempts.append([first | {"content": merged}, *others])
    for attempt in attempts:
        with suppress(TemplateError):
            rendered = tokenizer.apply_chat_template(
                attempt, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            if all(str(rendered).count(message["content"]) == 1 for message in attempt):
                return str(rendered)
    roles = ", ".join(message["role"] for message in messages)
    raise ConfigError(f"the model's chat template does not pass on messages of the roles {roles}")


def _split_at_special_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[str | int]:
    """Text and the ids between it; a token that swallows white space beside it does so here."""
    tokens = {str(t): (id_, t) for id_, t in tokenizer.added_tokens_decoder.items()}
    longest_first = sorted(tokens.items(), key=lambda item: -len(item[0]))
    patterns = [_pattern(content, token) for content, (_, token) in longest_first]
    for stretch in re.split(f"({'|'.join(filter(None, patterns))})", text):
        found = tokens.get(stretch.strip())
        yield found[0] if found else stretch


def _pattern(content: str, token: AddedToken) -> str:
    before, after = (r"\s*" if swallows else "" for swallows in (token.lstrip, token.rstrip))
    return f"{before}{re.escape(content)}{after}" if content.strip() else ""


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """How many tokens a text takes in a prompt, where nothing in it is a special token."""
    plain = _plain(tokenizer).tokenizer
    return len(plain.encode(well_formed(text), add_special_tokens=False).ids)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a special token.

    Raises:
        ConfigError: The tokenizer does not have it.
    """
    found: int | None = tokenizer.get_added_vocab().get(token)
    if found is None:
        raise ConfigError(f"the tokenizer has no token {token!r}: upcycle the model first")
    return found


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
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) not in tokens]


def _merged(pair: str | list[str]) -> str:
    return "".join(pair.split(" ") if isinstance(pair, str) else pair)
