"""How good are the answers, and what is found for them? (extra: eval)."""

from openrag_core._extras import need

need("eval", "filelock", "ranx", "rouge_score", "scipy")

from openrag_core.evaluation.examples import Example, read_examples  # noqa: E402
from openrag_core.evaluation.results import Results  # noqa: E402
from openrag_core.evaluation.results import read as read_results  # noqa: E402
from openrag_core.evaluation.retrieval import (  # noqa: E402
    Query,
    evaluate_retriever,
    score_rankings,
)
from openrag_core.evaluation.run import Evaluated, evaluate  # noqa: E402
from openrag_core.evaluation.summary import mean_with_interval, summarise  # noqa: E402
from openrag_core.evaluation.tasks import TASKS, Said, Task, task  # noqa: E402

__all__ = [
    "TASKS",
    "Evaluated",
    "Example",
    "Query",
    "Results",
    "Said",
    "Task",
    "evaluate",
    "evaluate_retriever",
    "mean_with_interval",
    "read_examples",
    "read_results",
    "score_rankings",
    "summarise",
    "task",
]
