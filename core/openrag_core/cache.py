"""Answers that took long to get, kept on disk so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any


class JsonCache:
    """A dictionary in a file of JSON lines, written through at once; threads may share it.

    Args:
        file: Made where it is not there; None keeps everything in memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = Lock()
        self._values: dict[str, Any] = {}
        if file is not None and file.is_file():
            # Not splitlines: a reply may hold the other characters that end a line for it. The
            # last line of a run that was stopped may end anywhere, within a character too.
            for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
                with suppress(ValueError, TypeError):  # the latter for JSON that is none of ours
                    key, value = json.loads(line)
                    self._values[key] = value

    def get(self, *parts: Any) -> Any:  # noqa: ANN401  (whatever was put)
        """What was put under these parts, or None."""
        return self._values.get(_key(parts))

    def put(self, value: object, *parts: Any) -> None:
        """Keep a value that JSON can hold.

        Args:
            value: Not None.
            *parts: What it depends on, all of it; whatever JSON can hold.
        """
        key = _key(parts)
        with self._lock:
            self._values[key] = value
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                # Half a character becomes its escape in JSON.
                with self._file.open("a", encoding="utf-8", errors="backslashreplace") as out:
                    # The line before may have been cut off; a blank one hurts nobody.
                    out.write(f"\n{json.dumps([key, value], ensure_ascii=False)}")


def _key(parts: tuple[Any, ...]) -> str:
    return sha256(json.dumps(parts, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()
