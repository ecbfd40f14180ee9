"""How fast is a hybrid query, without encoding: our homes and the frameworks' own stores?

pip install langchain-qdrant llama-index-vector-stores-qdrant
python benchmarks/engine.py

Random points of 384 dense dimensions and 70 sparse terms. All that go through qdrant-client (its
own store in memory) search the same collection; the stores of LangChain and LlamaIndex cannot use
the embedded engine. Each size has a process of its own, so that its peak memory can be told.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
from langchain_qdrant import SparseVector as LangChainSparse
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexStore
from qdrant_client import QdrantClient

from openrag_core.retrieval import EdgeStore, PointStore, ServerStore
from openrag_core.retrieval.store import DENSE, Point, Query, SparseVector
from openrag_core.search import SearchOptions

SIZES = (10_000, 50_000, 200_000)
LARGEST_CLIENT = 50_000  # its own store takes seconds a query, and gigabytes
DIMENSION, TERMS, VOCABULARY = 384, 70, 30_000
BATCH = 1000
TOP_K = 10
FILE = Path(__file__).with_suffix(".json")
DESCRIPTION = {"dimension": DIMENSION, "sparse": "bm25/english", "idf": True}


def points(count: int) -> Iterator[list[Point]]:
    """Batches of points; terms are as frequent as words are."""
    random = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        dense = random.standard_normal((BATCH, DIMENSION), dtype=np.float32)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        terms = np.minimum(random.zipf(1.2, (BATCH, TERMS)), VOCABULARY)
        yield [
            Point(
                str(UUID(int=start + n)), _payload(start + n), dense[n].tolist(), _sparse(terms[n])
            )
            for n in range(BATCH)
        ]


def queries(count: int) -> list[Query]:
    """Questions of eight terms."""
    random = np.random.default_rng(1)
    dense = random.standard_normal((count, DIMENSION))
    terms = random.integers(2, 2000, (count, 8))
    return [Query(dense[n].tolist(), _sparse(terms[n])) for n in range(count)]


def _payload(number: int) -> dict[str, Any]:
    text = f"This is the text of passage {number}. " * 12
    return {"text": text, "page_content": text, "doc_id": str(number), "chunk": 0, "metadata": {}}


def _sparse(terms: Any) -> SparseVector:  # noqa: ANN401  (an array's own types)
    return SparseVector(sorted({int(term) for term in terms}), [1.0] * len(set(terms.tolist())))


def measure(size: int) -> dict[str, Any]:
    """Every home that can hold so many points."""
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        store = EdgeStore(Path(folder) / "index")
        found["written a second"] = round(size / _fill(store, size))
        ask = queries(200)
        found["Edge"] = _times(lambda query: store.search([query], TOP_K, SearchOptions()), ask)
        start = perf_counter()
        store.search(ask, TOP_K, SearchOptions())
        found["Edge"]["a second, 200 in one request"] = round(200 / (perf_counter() - start))
        found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        store.close()
    if size <= LARGEST_CLIENT:
        found |= _through_the_client(size)
    return found


def _through_the_client(size: int) -> dict[str, Any]:
    client = QdrantClient(":memory:")
    ours = ServerStore(client, "points")
    _fill(ours, size)
    few = queries(12)
    asked: list[Query] = []

    class Dense(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise NotImplementedError

        def embed_query(self, text: str) -> list[float]:  # noqa: ARG002
            return asked[-1].dense

    class Sparse(SparseEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[LangChainSparse]:
            raise NotImplementedError

        def embed_query(self, text: str) -> LangChainSparse:  # noqa: ARG002
            return LangChainSparse(indices=asked[-1].sparse.indices, values=asked[-1].sparse.values)

    langchain = QdrantVectorStore(
        client,
        "points",
        embedding=Dense(),
        sparse_embedding=Sparse(),
        retrieval_mode=RetrievalMode.HYBRID,
        vector_name=DENSE,
        sparse_vector_name="bm25",
        validate_collection_config=False,
    )
    llama_index = LlamaIndexStore(
        client=client,
        collection_name="points",
        enable_hybrid=True,
        dense_vector_name=DENSE,
        sparse_vector_name="bm25",
        text_key="text",
        sparse_query_fn=lambda _: ([asked[-1].sparse.indices], [asked[-1].sparse.values]),
        sparse_doc_fn=lambda _: ([], []),
    )

    def by_langchain(query: Query) -> None:
        asked.append(query)
        assert len(langchain.similarity_search("", k=TOP_K)) == TOP_K

    def by_llama_index(query: Query) -> None:
        asked.append(query)
        wanted = VectorStoreQuery(
            query_embedding=query.dense,
            query_str="",
            similarity_top_k=TOP_K,
            sparse_top_k=TOP_K,
            mode=VectorStoreQueryMode.HYBRID,
        )
        assert llama_index.query(wanted).nodes

    return {
        "client in memory": _times(lambda q: ours.search([q], TOP_K, SearchOptions()), few),
        "langchain-qdrant": _times(by_langchain, few),
        "LlamaIndex": _times(by_llama_index, few),
    }


def _fill(store: PointStore, size: int) -> float:
    """Seconds that writing took, without making the points."""
    store.create(DESCRIPTION)
    seconds = 0.0
    for batch in points(size):
        start = perf_counter()
        store.upsert(batch)
        seconds += perf_counter() - start
    return seconds


def _times(search: Callable[[Query], object], asked: list[Query]) -> dict[str, float]:
    search(asked[0])
    taken = []
    for query in asked:
        start = perf_counter()
        search(query)
        taken.append((perf_counter() - start) * 1000)
    median, tail = np.percentile(taken, [50, 95])
    return {"median ms": round(float(median), 2), "p95 ms": round(float(tail), 2)}


def main() -> None:
    """Measure every size in a process of its own."""
    results: dict[str, Any] = {}
    for size in SIZES:
        command = [sys.executable, __file__, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[str(size)] = json.loads(done.stdout.splitlines()[-1])
        print(size, json.dumps(results[str(size)], indent=1))
        FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
