"""How good are the answers, and what is found for them? (extra: eval)."""

from openrag_core._extras import need

need("eval", "filelock", "matplotlib", "pydantic", "ranx", "rouge_score", "scipy", "tenacity")

from openrag_core.evaluation.asking import Price, Usage  # noqa: E402
from openrag_core.evaluation.cases import Case  # noqa: E402
from openrag_core.evaluation.examples import Example, read_examples  # noqa: E402
from openrag_core.evaluation.exports import (  # noqa: E402
    deepeval_dicts,
    ragas_dicts,
    to_deepeval,
    to_ragas,
)
from openrag_core.evaluation.judge import Judge, Judged, Judgement  # noqa: E402
from openrag_core.evaluation.results import Results  # noqa: E402
from openrag_core.evaluation.results import read as read_results  # noqa: E402
from openrag_core.evaluation.retrieval import (  # noqa: E402
    Query,
    evaluate_retriever,
    score_rankings,
)
from openrag_core.evaluation.rubrics import (  # noqa: E402
    CORRECTNESS,
    FAITHFULNESS,
    RELEVANCE,
    RUBRICS,
    Rubric,
)
from openrag_core.evaluation.run import Evaluated, evaluate  # noqa: E402
from openrag_core.evaluation.summary import mean_with_interval, summarise  # noqa: E402
from openrag_core.evaluation.synthesis import (  # noqa: E402
    Synthesis,
    Synthesizer,
    SyntheticQuestion,
)
from openrag_core.evaluation.tasks import TASKS, Said, Task, task  # noqa: E402

__all__ = [
    "CORRECTNESS",
    "FAITHFULNESS",
    "RELEVANCE",
    "RUBRICS",
    "TASKS",
    "Case",
    "Evaluated",
    "Example",
    "Judge",
    "Judged",
    "Judgement",
    "Price",
    "Query",
    "Results",
    "Rubric",
    "Said",
    "Synthesis",
    "Synthesizer",
    "SyntheticQuestion",
    "Task",
    "Usage",
    "deepeval_dicts",
    "evaluate",
    "evaluate_retriever",
    "mean_with_interval",
    "ragas_dicts",
    "read_examples",
    "read_results",
    "score_rankings",
    "summarise",
    "task",
    "to_deepeval",
    "to_ragas",
]
