"""Parts and settings that do not go together are refused when a pipeline is made of them."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from openrag_core.calibration import CalibratedGate
from openrag_core.errors import ConfigError
from openrag_core.gate import Gate
from openrag_core.ports import ChainRetriever, check_part
from openrag_core.records import check_evidence, check_hops
from openrag_core.reflection import check_weights

if TYPE_CHECKING:
    from openrag_core.pipeline import OpenRAG


def check_together(rag: OpenRAG) -> None:
    """Refuse a pipeline that could not answer, or not as its settings say.

    Raises:
        ConfigError: A setting is outside its range, or asks of a part what it cannot do.
    """
    for name in ("generator", "retriever", "reranker", "condenser"):
        check_part(name, getattr(rag, name))
    amounts = (rag.top_k, rag.fetch_k)
    if not all(isinstance(k, Integral) for k in amounts) or not 1 <= rag.top_k <= rag.fetch_k:
        raise ConfigError(
            "top_k and fetch_k must be whole numbers, and 1 <= top_k <= fetch_k must hold; "
            f"got top_k={rag.top_k!r}, fetch_k={rag.fetch_k!r}"
        )
    check_evidence(rag.evidence)
    check_weights(rag.weights)
    if rag.speculative not in (None, True, False):
        raise ConfigError(f"speculative must be True or False; got {rag.speculative!r}")
    _check_hops(rag)
    _check_gate(rag)


def _check_hops(rag: OpenRAG) -> None:
    check_hops(rag.hops)
    if rag.hops != 1 and not isinstance(rag.retriever, ChainRetriever):
        raise ConfigError(
            f"hops={rag.hops!r} needs a retriever that finds chains: give "
            "openrag_core.retrieval.MultihopRetriever(retriever, reranker=...)"
        )
    if rag.reranker is not None and rag.judge is None:
        raise ConfigError(
            f"hops={rag.hops!r} reads chains as the retriever ranks them, and the reranker "
            "would not be asked: give MultihopRetriever(retriever, reranker=...), or none "
            '(reranker="none" in Settings)'
        )
    if rag.hops == "auto" and not rag.generator.reflection_trained:
        raise ConfigError(
            'hops="auto" needs a model with trained reflection tokens, and this one has none: '
            "give a number"
        )


def _check_gate(rag: OpenRAG) -> None:
    if not isinstance(rag.gate, Gate | CalibratedGate):
        raise ConfigError(
            f'gate must be Gate(...), such as Gate("f_minp", 0.5), or a CalibratedGate; '
            f"got {rag.gate!r}"
        )
    if rag.gate.mode == "f_ret" and not rag.generator.reflection_trained:
        raise ConfigError(
            'gate "f_ret" needs a model with trained reflection tokens, and this one has none: '
            'use "f_minp", "f_meanp", "always" or "never"'
        )
    if not isinstance(rag.gate, CalibratedGate):
        return
    if rag.evidence != "each" or rag.hops != 1:
        raise ConfigError(
            "a calibrated gate knows answers from single passages: leave evidence and hops as "
            f"they are; got evidence={rag.evidence!r}, hops={rag.hops!r}"
        )
    rag.gate.check_fit(rag.top_k, rag.score_weights)
