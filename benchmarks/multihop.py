"""Do chains hold both gold passages more often than a single search?

OPENRAG_TEST_DATA=... python benchmarks/multihop.py

Over questions with two gold passages. A single search counts if both are among its passages, chains
if one of them is made of both. 2Wiki is asked over corpus_wiki_eval; HotpotQA over the passages of
those questions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from corpora import FOLDER, index
from squad import rows

from openrag_core.build import Settings, open_index
from openrag_core.records import Passage
from openrag_core.reranking.maxsim import MaxSimReranker
from openrag_core.retrieval import MultihopRetriever, PassageIndex, document_from_text
from openrag_core.search import SearchOptions

FILE = Path(__file__).with_suffix(".json")
DEPTHS = (1, 2, 5, 10)
QUESTIONS = 300  # of HotpotQA
WHOLE = SearchOptions(max_per_document=1)


Task = tuple[PassageIndex, list[str], list[set[str]], list[str]]


def two_wiki() -> Task:
    """The index, questions with two gold passages, the ids of those, and the questions' kinds."""
    asked = [row for row in rows("2wiki_dev") if len(row["gold_ids"]) == 2]
    gold = [set(row["gold_ids"]) for row in asked]
    return index("wiki"), [r["question"] for r in asked], gold, [r["type"] for r in asked]


def hotpot() -> Task:
    """The same; a passage is known by its title."""
    asked = [row for row in rows("hotpotqa_distractor_devB") if len(row["gold"]) == 2]
    asked = asked[:QUESTIONS]
    texts = {p["title"]: p["text"] for row in asked for p in (*row["gold"], *row["distractors"])}
    settings = Settings(index=FOLDER / "hotpot-title", encoder_cache=FOLDER / "vectors.db")
    made = open_index(settings)
    made.add_documents(
        document_from_text(text, title, title=title) for title, text in texts.items()
    )
    gold = [{passage["title"] for passage in row["gold"]} for row in asked]
    return made, [row["question"] for row in asked], gold, [row["type"] for row in asked]


def main() -> None:
    """Measure both sets."""
    results: dict[str, Any] = {}
    for name, read in (("2Wiki", two_wiki), ("HotpotQA", hotpot)):
        passages, questions, gold, kinds = read()
        passages.options = WHOLE
        reranker = MaxSimReranker(passages.encoder.encoder)  # type: ignore[attr-defined]
        chained = MultihopRetriever(passages)
        reranked = MultihopRetriever(passages, reranker=reranker)
        found = passages.retrieve(questions, max(DEPTHS))
        single = [[{_document(p) for p in own[:depth]} for depth in DEPTHS] for own in found]
        both = zip(gold, single, strict=True)
        held = [[wanted <= documents for documents in own] for wanted, own in both]
        table = {"single search": _shares(held)}
        table |= _by_kind("single search", held, kinds)
        for label, retriever in (("chains", chained), ("chains, MaxSim", reranked)):
            start = perf_counter()
            chains = retriever.chains(questions, max(DEPTHS))
            seconds = (perf_counter() - start) / len(questions)
            sets = [[{_document(p) for p in chain} for chain in own] for own in chains]
            both = zip(gold, sets, strict=True)
            held = [[wanted in own[:depth] for depth in DEPTHS] for wanted, own in both]
            table[label] = _shares(held)
            table |= _by_kind(label, held, kinds)
            print(f"{name} {label}: {seconds * 1000:.0f} ms per question")
        results[f"{name} ({len(gold)} questions, {passages.count()} passages)"] = table
        passages.close()
    FILE.write_text(json.dumps({"depths": DEPTHS, **results}, indent=1) + "\n", encoding="utf-8")
    for title, table in results.items():
        print(f"\n{title:50}" + "".join(f"{f'@{depth}':>8}" for depth in DEPTHS))
        for label, values in table.items():
            print(f"{label:50}" + "".join(f"{value:8.3f}" for value in values))


def _shares(held: Sequence[Sequence[bool]]) -> list[float]:
    """Of the questions, by depth."""
    return [round(fmean(column), 3) for column in zip(*held, strict=True)]


def _by_kind(
    label: str, held: Sequence[Sequence[bool]], kinds: Sequence[str]
) -> dict[str, list[float]]:
    return {
        f"{label}, {kind} ({kinds.count(kind)})": _shares(
            [own for own, its in zip(held, kinds, strict=True) if its == kind]
        )
        for kind in sorted(set(kinds))
    }


def _document(passage: Passage) -> str:
    return str(passage.metadata["doc_id"])


if __name__ == "__main__":
    main()
