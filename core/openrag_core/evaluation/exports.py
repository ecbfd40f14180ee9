"""Results as the test cases of DeepEval and Ragas.

The dictionaries need neither package; the functions named after one need its extra.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from openrag_core._extras import need
from openrag_core.evaluation.cases import Case, cases_of
from openrag_core.evaluation.summary import Way

if TYPE_CHECKING:
    from deepeval.test_case import LLMTestCase
    from ragas import EvaluationDataset

Records = Iterable[Case | Mapping[str, Any]]


def deepeval_dicts(records: Records, way: Way | None = None) -> list[dict[str, Any]]:
    """Arguments of DeepEval's `LLMTestCase`.

    Args:
        records: Cases, or what `read_results` gives.
        way: Which answers of the results; by default those from reading, where there are any.

    Returns:
        Of each: the first reference is `expected_output`, all are in `metadata`; what was read is
        `retrieval_context`, the best first, and None where nothing was.

    Raises:
        EvaluationError: A record is malformed.
    """
    return [
        {
            "name": case.id,
            "input": case.question,
            "actual_output": case.answer,
            "expected_output": next(iter(case.references), None),
            "retrieval_context": list(case.passages) or None,
            "metadata": {"id": case.id, "references": list(case.references)},
        }
        for case in cases_of(records, way)
    ]


def ragas_dicts(records: Records, way: Way | None = None) -> list[dict[str, Any]]:
    """Arguments of Ragas's `SingleTurnSample`, which knows no ids: they stand in their order.

    Args and errors as in `deepeval_dicts`. Ragas knows one reference as well: the first.
    """
    return [
        {
            "user_input": case.question,
            "response": case.answer,
            "reference": next(iter(case.references), None),
            "retrieved_contexts": list(case.passages) or None,
        }
        for case in cases_of(records, way)
    ]


def to_deepeval(records: Records, way: Way | None = None) -> list[LLMTestCase]:
    """Test cases for DeepEval's metrics (extra: deepeval, in an environment without transformers).

    Args and errors as in `deepeval_dicts`. DeepEval reports its use unless the environment says
    DEEPEVAL_TELEMETRY_OPT_OUT=1, which is set here where it is not.

    Raises:
        MissingExtraError: The package is absent.
    """
    need("deepeval", "deepeval")
    os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "1")
    from deepeval.test_case import LLMTestCase  # noqa: PLC0415  (an extra)

    return [LLMTestCase(**one) for one in deepeval_dicts(records, way)]


def to_ragas(records: Records, way: Way | None = None) -> EvaluationDataset:
    """A dataset for Ragas's `evaluate` (extra: ragas).

    Args and errors as in `deepeval_dicts`. Ragas reports its use unless the environment says
    RAGAS_DO_NOT_TRACK=true, which is set here where it is not.

    Raises:
        MissingExtraError: The package is absent.
    """
    need("ragas", "ragas")
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    from ragas import EvaluationDataset, SingleTurnSample  # noqa: PLC0415  (an extra)

    return EvaluationDataset(samples=[SingleTurnSample(**one) for one in ragas_dicts(records, way)])
