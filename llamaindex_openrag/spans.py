"""Stages as spans of LlamaIndex's instrumentation, which tracing shows as a tree."""

from __future__ import annotations

from inspect import signature
from typing import Any
from uuid import uuid4

from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.events.span import SpanDropEvent
from llama_index_instrumentation.span import active_span_id

dispatcher = get_dispatcher(__name__)


class StageSpan:
    """A span that is open from now on: other spans and events belong to it until it has ended.

    LlamaIndex's own decorator makes spans of methods; a stage is begun and ended by events.

    Args:
        part: What does the work; it names the span.
        method: Of the part, as is the custom.
        query: What is asked.
    """

    def __init__(self, part: object, method: str, query: QueryBundle) -> None:
        self._around = active_span_id.get()
        self._span: dict[str, Any] = {
            "id_": f"{type(part).__name__}.{method}-{uuid4()}",
            "bound_args": signature(_asked).bind(query),
            "instance": part,
        }
        tags = active_instrument_tags.get()
        dispatcher.span_enter(**self._span, parent_id=self._around, tags=tags)
        active_span_id.set(self._span["id_"])

    def end(self, result: object) -> None:
        """It is done.

        Args:
            result: What came of it.
        """
        dispatcher.span_exit(**self._span, result=result)
        active_span_id.set(self._around)

    def fail(self, error: BaseException) -> None:
        """It will not be done."""
        dispatcher.event(SpanDropEvent(span_id=self._span["id_"], err_str=str(error)))
        dispatcher.span_drop(**self._span, err=error)
        active_span_id.set(self._around)


def _asked(query_bundle: QueryBundle) -> None:
    """What a stage is called with, for those who show it."""
