"""Does indexing cost more than encoding, and does its memory grow with the number of documents?

OPENRAG_TEST_DATA=... python benchmarks/ingestion.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from squad import rows

from openrag_core.build import Settings, open_index
from openrag_core.retrieval import Document, EdgeStore, PassageIndex, document_from_text

PASSAGES = 1024
ROUNDS = 3
MANY = (10_000, 100_000)
FILE = Path(__file__).with_suffix(".json")


class NoEncoder:
    """Costs nothing, so that everything else shows."""

    name, dimension, tokenizer = "none", 8, None

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """The same vector for all."""
        return [[1.0] + [0.0] * 7 for _ in texts]

    encode_questions = encode_passages


def against_the_encoder() -> dict[str, Any]:
    """Indexing and encoding the same passages, in turns."""
    texts = [(row["title"], row["text"]) for row in rows("corpus_squad_dev")[:PASSAGES]]
    taken: dict[str, list[float]] = {"encoder alone": [], "indexing": []}
    for number in range(ROUNDS):
        with TemporaryDirectory() as folder:
            index = open_index(Settings(index=Path(folder) / "index"))
            documents = [
                document_from_text(text, f"{number} {n}", title=title)
                for n, (title, text) in enumerate(texts)
            ]
            pieces = [f"{c.title}\n{c.text}" for d in documents for c in index.chunk(d)]
            index.encoder.encode_passages(pieces[:64])
            start = perf_counter()
            for first in range(0, len(pieces), 512):
                index.encoder.encode_passages(pieces[first : first + 512])
            taken["encoder alone"].append(perf_counter() - start)
            report = index.add_documents(documents)
            taken["indexing"].append(report.seconds)
            index.close()
    seconds = {name: median(values) for name, values in taken.items()}
    return {
        "pieces": len(pieces),
        **{f"{name}, pieces a second": round(len(pieces) / s, 1) for name, s in seconds.items()},
        "indexing / encoder": round(seconds["indexing"] / seconds["encoder alone"], 3),
    }


def many(count: int) -> dict[str, Any]:
    """Index so many documents without an encoder."""

    def documents() -> Iterator[Document]:
        for number in range(count):
            yield document_from_text(f"This is document {number}. " * 20, str(number), title="T")

    with TemporaryDirectory() as folder:
        index = PassageIndex(EdgeStore(Path(folder) / "index"), NoEncoder())
        report = index.add_documents(documents())
        index.close()
    return {
        "documents a second": round(count / report.seconds),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Measure, the numbers of documents in processes of their own."""
    results: dict[str, Any] = {"bundled encoder": against_the_encoder()}
    for count in MANY:
        command = [sys.executable, __file__, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[f"{count} documents, no encoder"] = json.loads(done.stdout.splitlines()[-1])
    FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(many(int(sys.argv[1]))))
    else:
        main()
