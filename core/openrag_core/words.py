"""Texts as words, for comparing answers."""

from __future__ import annotations

import re
import string

_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces.

    Source: the official SQuAD evaluation script; HotpotQA's, MuSiQue's and Self-RAG's say the same.
    """
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLE.sub(" ", plain).split())
