"""A tokenizer of few words."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def tokenizer() -> PreTrainedTokenizerFast:
    """Three entries, of which two are words; the reflection tokens are not among them."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "[": 1, "supported": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
