"""Corpora with relevance judgements, indexed as users would, for the retrieval benchmarks.

Everything is read from $OPENRAG_TEST_DATA; indexes and vectors are kept in `.openrag-corpora`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from squad import rows

from openrag_core.build import Settings, open_index
from openrag_core.evaluation import Query
from openrag_core.retrieval import (
    Contextualizer,
    Document,
    NoContext,
    PassageIndex,
    Section,
    TitleContext,
)

FOLDER = Path(".openrag-corpora")
CORPORA = {"squad": "corpus_squad_dev", "scifact": "scifact_corpus", "wiki": "corpus_wiki_eval"}
WIKI = ("nq_qed_dev", "popqa_passages_dev", "2wiki_dev")
CONTEXTS: Mapping[str, Contextualizer] = {"title": TitleContext(), "none": NoContext()}


def documents(corpus: str) -> Iterator[Document]:
    """Every document of a corpus."""
    for row in rows(CORPORA[corpus]):
        yield Document(row["id"], row["id"], "0", (Section(row["title"], row["text"]),))


def index(corpus: str, context: str = "title") -> PassageIndex:
    """A corpus, indexed at the first call; vectors are remembered."""
    settings = Settings(index=FOLDER / f"{corpus}-{context}", encoder_cache=FOLDER / "vectors.db")
    made = open_index(settings, context=CONTEXTS[context])
    report = made.add_documents(documents(corpus))
    if report.passages:
        print(f"{corpus}: {report.passages} passages in {report.seconds:.0f} s")
    return made


def questions(corpus: str) -> list[Query]:
    """Those of a corpus."""
    if corpus == "scifact":
        return [
            Query(str(row["id"]), row["question"], row["qrels"])
            for row in rows("scifact_queries_qrels")
        ]
    if corpus == "squad":
        ids = {row["text"]: row["id"] for row in rows(CORPORA[corpus])}
        return [
            Query(row["id"], row["question"], {ids[row["gold"][0]["text"]]: 1})
            for row in rows("squad_v11_dev")
        ]
    return [
        Query(f"{name} {row['id']}", row["question"], dict.fromkeys(row["gold_ids"], 1))
        for name in WIKI
        for row in rows(name)
    ]
