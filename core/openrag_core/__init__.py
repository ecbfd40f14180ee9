"""Open-RAG: adaptive retrieval and self-critique over a mixture-of-experts generator.

Importing this package loads the formulas and the pipeline, on the standard library alone. Models
live in `openrag_core.model`, the index in `openrag_core.retrieval`; `openrag_core.build` puts a
ready pipeline together from settings.
"""

from openrag_core.calibration import CalibratedGate
from openrag_core.chat_generator import ChatGenerator
from openrag_core.condenser import ChatCondenser
from openrag_core.conversation import (
    ChatModel,
    Condenser,
    Conversation,
    Message,
    Question,
    Reply,
)
from openrag_core.errors import (
    ChatModelError,
    CheckpointError,
    ConfigError,
    CriticError,
    DocumentError,
    EvaluationError,
    FilterError,
    GenerationError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexUnreachableError,
    MissingExtraError,
    OpenRAGError,
    PassageIndexError,
    QuestionError,
    ReflectionError,
    RerankerError,
    TrainingDataError,
    WeightsNotInstalledError,
)
from openrag_core.filters import Field, Filter
from openrag_core.gate import Gate, f_meanp, f_minp, f_ret
from openrag_core.pipeline import OpenRAG
from openrag_core.ports import ChainRetriever, Generator, Reranker, Retriever
from openrag_core.records import Answer, Candidate, Decision, Draft, Passage, Token, Written
from openrag_core.reflection import PassageScore, ScoreWeights
from openrag_core.search import SearchOptions

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "CalibratedGate",
    "Candidate",
    "ChainRetriever",
    "ChatCondenser",
    "ChatGenerator",
    "ChatModel",
    "ChatModelError",
    "CheckpointError",
    "Condenser",
    "ConfigError",
    "Conversation",
    "CriticError",
    "Decision",
    "DocumentError",
    "Draft",
    "EvaluationError",
    "Field",
    "Filter",
    "FilterError",
    "Gate",
    "GenerationError",
    "Generator",
    "IndexLockedError",
    "IndexMismatchError",
    "IndexNotFoundError",
    "IndexUnreachableError",
    "Message",
    "MissingExtraError",
    "OpenRAG",
    "OpenRAGError",
    "Passage",
    "PassageIndexError",
    "PassageScore",
    "Question",
    "QuestionError",
    "ReflectionError",
    "Reply",
    "Reranker",
    "RerankerError",
    "Retriever",
    "ScoreWeights",
    "SearchOptions",
    "Token",
    "TrainingDataError",
    "WeightsNotInstalledError",
    "Written",
    "__version__",
    "f_meanp",
    "f_minp",
    "f_ret",
]
