"""Texts as words, for comparing answers; and numbers of things."""

from __future__ import annotations

import re
import string

UNSPACED_TEXT = re.compile("[぀-ヿ㐀-䶿一-鿿가-힯]+")
"""Stretches of text whose words white space does not tell: kana, CJK ideographs with extension A,
Hangul syllables."""
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def count_words(text: str) -> int:
    """By white space; where that does not tell them, two characters are a word."""
    return len(UNSPACED_TEXT.sub(lambda run: " x" * -(-len(run.group()) // 2) + " ", text).split())


def within(words: str, text: str) -> bool:
    """Whether words stand in a text as they are, both normalised; nothing stands nowhere."""
    if UNSPACED_TEXT.search(words):
        return words in text
    return bool(words) and f" {words} " in f" {text} "


def well_formed(text: str) -> str:
    """The text with U+FFFD in place of surrogates that stand alone, which no tokenizer takes.

    Half a character is what a JSON string that was cut, or a file's name, may leave in a passage.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def counted(number: int, noun: str) -> str:
    """Such as "1 question" and "1,200 questions"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces.

    Source: the official SQuAD evaluation script; HotpotQA's, MuSiQue's and Self-RAG's say the same.
    """
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLE.sub(" ", plain).split())
