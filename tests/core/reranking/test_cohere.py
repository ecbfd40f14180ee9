"""core/openrag_core/reranking/cohere.py, against a local server that speaks the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from openrag_core import ConfigError, Passage, Reranker, RerankerError
from openrag_core.reranking.cohere import CohereReranker

PASSAGES = [Passage(id=str(n), title=f"T{n}", text=f"text {n}") for n in range(3)]


@dataclass
class Service:
    """What the server was asked, and with which status it answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body | {"path": self.path, "key": self.headers["Authorization"]})
            status = state.statuses.pop(0) if state.statuses else 200
            best_last = range(len(body["documents"]) - 1, -1, -1)
            results = [{"index": n, "relevance_score": (n + 1) / 10} for n in best_last]
            reply: dict[str, Any] = {
                "id": "1",
                "results": results[: body["top_n"]],
                "message": "no",
            }
            reply["meta"] = {"billed_units": {"search_units": 1}}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_best_passages_come_back_with_their_scores(service: Service) -> None:
    reranker = CohereReranker(api_key="secret", base_url=service.url)
    assert isinstance(reranker, Reranker)
    ranked = reranker.rerank(["When?", "Where?"], [PASSAGES, []], 2)
    assert [[p.id for p in own] for own in ranked] == [["2", "1"], []]
    assert ranked[0][0].rerank_score == pytest.approx(0.3)
    (request,) = service.requests
    assert request["path"] == "/v2/rerank"
    assert request["key"] == "Bearer secret"
    assert request["query"] == "When?"
    assert request["documents"][0] == "T0\ntext 0"


def test_a_busy_service_is_asked_again(service: Service) -> None:
    service.statuses = [429, 503]
    reranker = CohereReranker(api_key="secret", base_url=service.url)
    assert len(reranker.rerank(["When?"], [PASSAGES], 3)[0]) == 3
    assert len(service.requests) == 3


def test_a_refusal_is_told(service: Service) -> None:
    service.statuses = [401]
    reranker = CohereReranker(api_key="wrong", base_url=service.url)
    with pytest.raises(RerankerError, match=r"Cohere refused \(401\).*--reranker maxsim"):
        reranker.rerank(["When?"], [PASSAGES], 3)
    assert len(service.requests) == 1


def test_a_service_that_is_not_there_is_told() -> None:
    reranker = CohereReranker(api_key="x", base_url="http://127.0.0.1:9", max_retries=0, timeout=2)
    with pytest.raises(RerankerError, match="did not answer: ConnectError"):
        reranker.rerank(["When?"], [PASSAGES], 3)


def test_without_a_key_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CO_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="CO_API_KEY"):
        CohereReranker()


def test_what_is_billed_is_counted_and_the_length_is_bounded(service: Service) -> None:
    reranker = CohereReranker(api_key="x", base_url=service.url, max_tokens_per_doc=99)
    ranked = reranker.rerank([f"{n}?" for n in range(20)], [PASSAGES] * 20, 1)
    assert [own[0].id for own in ranked] == ["2"] * 20
    assert reranker.search_units == 20
    assert {request["max_tokens_per_doc"] for request in service.requests} == {99}
    with pytest.raises(ConfigError, match="at least 1"):
        CohereReranker(api_key="x", concurrency=0)


async def test_event_loops_ask_side_by_side(service: Service) -> None:
    reranker = CohereReranker(api_key="x", base_url=service.url)
    questions, passages = ["When?", "Where?", "Who?"], [PASSAGES, [], PASSAGES[:1]]
    assert await reranker.arerank(questions, passages, 2) == reranker.rerank(questions, passages, 2)
    service.statuses = [429]
    await reranker.arerank(["When?"], [PASSAGES], 2)
    service.statuses = [401]
    with pytest.raises(RerankerError, match=r"refused \(401\)"):
        await reranker.arerank(["When?"], [PASSAGES], 2)
    gone = CohereReranker(api_key="x", base_url="http://127.0.0.1:9", max_retries=0, timeout=2)
    with pytest.raises(RerankerError, match="did not answer: ConnectError"):
        await gone.arerank(["When?"], [PASSAGES], 2)
