"""An encoder that remembers on disk what it has encoded."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock

from tokenizers import Tokenizer

from openrag_core.errors import ConfigError
from openrag_core.retrieval.encoders import DenseEncoder

_READ = 500  # keys in one statement


class CachedEncoder:
    """Satisfies `DenseEncoder`; a text is encoded once, as passage and as question.

    Args:
        encoder: Asked for what is not remembered.
        file: An SQLite database, made where it is not there; encoders may share it, for the key
            holds their name.

    Raises:
        ConfigError: The file is no such database.
    """

    def __init__(self, encoder: DenseEncoder, file: Path) -> None:
        self.encoder = encoder
        self._file = file
        self._lock = Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, check_same_thread=False)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)"
                )
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"{file} cannot be used as a cache of vectors ({error}): name another file"
            ) from error

    @property
    def name(self) -> str:
        """That of the encoder inside."""
        return self.encoder.name

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.encoder.dimension

    @property
    def tokenizer(self) -> Tokenizer | None:
        """That of the encoder inside."""
        return self.encoder.tokenizer

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return self._encode("passage", self.encoder.encode_passages, texts)

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return self._encode("question", self.encoder.encode_questions, texts)

    def _encode(
        self,
        kind: str,
        encode: Callable[[Sequence[str]], list[list[float]]],
        texts: Sequence[str],
    ) -> list[list[float]]:
        try:
            return self._encoded(kind, encode, texts)
        except sqlite3.Error as error:
            raise ConfigError(
                f"{self._file} cannot be used as a cache of vectors ({error}): wait for whoever "
                "uses it, or name another file"
            ) from error

    def _encoded(
        self,
        kind: str,
        encode: Callable[[Sequence[str]], list[list[float]]],
        texts: Sequence[str],
    ) -> list[list[float]]:
        named = (f"{self.name}\0{kind}\0{text}" for text in texts)
        keys = [sha256(one.encode(errors="surrogatepass")).digest() for one in named]
        known = self._read(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            made = {
                key: array("f", vector).tobytes()
                for key, vector in zip(missing, encode(list(missing.values())), strict=True)
            }
            with self._lock, self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?)", made.items()
                )
            known |= made
        return [array("f", known[key]).tolist() for key in keys]

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _READ):
            part = keys[start : start + _READ]
            marks = ",".join("?" * len(part))
            with self._lock:
                rows = self._database.execute(
                    f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part
                )
                found.update(rows)
        return found
