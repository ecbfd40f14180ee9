"""Answers, and what is known of them while they are written, in LlamaIndex's types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore

from llamaindex_openrag.nodes import to_node
from openrag_core import Answer, Candidate
from openrag_core.events import AnswerEvent, ContextEvent, Event, GateEvent, TokenEvent, rest_of


def to_response(answer: Answer) -> Response:
    """An answer as a response.

    Args:
        answer: Whose passages become the source nodes: those that were read, the answer's own
            first, each with the score of the best answer that was written from it.
    """
    growing = GrowingResponse()
    growing.hear(AnswerEvent(0, answer))
    return Response(answer.text, growing.source_nodes, growing.metadata)


class GrowingResponse:
    """What a response holds while the pipeline goes on; the lists are filled in place.

    Args:
        additional: Nodes that are only handed on.
    """

    def __init__(self, additional: Sequence[NodeWithScore] = ()) -> None:
        self.source_nodes: list[NodeWithScore] = []
        self.metadata: dict[str, Any] = {}
        self.text = ""
        self.sources_known = False
        self._additional = list(additional)

    def hear(self, event: Event) -> str:
        """Take up an event; returns the text that it adds to the answer."""
        new = ""
        match event:
            case GateEvent(decision=decision):
                self.metadata["gate"] = asdict(decision)
            case ContextEvent():
                self._show(list(map(to_node, event.passages)))
            case TokenEvent(text=new):
                self.sources_known = True
            case AnswerEvent(answer=answer):
                self._show(_sources(answer))
                self.metadata.update(_metadata(answer))
                new = rest_of(answer.text, self.text)
        self.text += new
        return new

    def _show(self, nodes: Sequence[NodeWithScore]) -> None:
        self.sources_known = True
        self.source_nodes[:] = [*nodes, *self._additional]


def _sources(answer: Answer) -> list[NodeWithScore]:
    nodes: dict[tuple[str, str], NodeWithScore] = {}
    for candidate in answer.candidates:
        for passage in candidate.evidence:
            nodes.setdefault(passage.key, to_node(passage, candidate))
    return list(nodes.values())


def _metadata(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "gate": asdict(answer.decision),
        "confidence": answer.confidence,
        "probability": answer.probability,
        "draft": answer.draft.text if answer.draft else None,
        "grounded": answer.grounded,
        "abstained": answer.abstained,
        "truncated": answer.truncated,
        "candidates": [_candidate(one) for one in answer.candidates],
        "seconds": dict(answer.seconds),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "text": candidate.text,
        "total": candidate.total,
        "score": asdict(candidate.score),
        "node_ids": [passage.id for passage in candidate.evidence],
    }
