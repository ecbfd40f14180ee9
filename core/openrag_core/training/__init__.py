"""From questions to training rows, and from rows to a trained model (extra: train)."""

from openrag_core._extras import need

need("train", "accelerate", "matplotlib", "peft", "pydantic", "tenacity", "torch", "yaml")

from openrag_core.cache import JsonCache  # noqa: E402
from openrag_core.training.critic import (  # noqa: E402
    ChatCritic,
    Critic,
    Judgement,
)
from openrag_core.training.dataset import Dataset, Helpers, build_dataset  # noqa: E402
from openrag_core.training.distractors import mine_distractors  # noqa: E402
from openrag_core.training.examples import Mix, make_rows, without_reflection  # noqa: E402
from openrag_core.training.instructions import instructions  # noqa: E402
from openrag_core.training.knowledge import label_known  # noqa: E402
from openrag_core.training.misreading import misread  # noqa: E402
from openrag_core.training.questions import (  # noqa: E402
    Question,
    Text,
    read_passages,
    read_questions,
    write_questions,
)
from openrag_core.training.recipe import (  # noqa: E402
    LoRA,
    Mixture,
    Recipe,
    read_recipe,
    write_recipe,
)
from openrag_core.training.rows import (  # noqa: E402
    Row,
    read_rows,
    write_json_lines,
    write_rows,
)
from openrag_core.training.train import Trained, train  # noqa: E402

__all__ = [
    "ChatCritic",
    "Critic",
    "Dataset",
    "Helpers",
    "JsonCache",
    "Judgement",
    "LoRA",
    "Mix",
    "Mixture",
    "Question",
    "Recipe",
    "Row",
    "Text",
    "Trained",
    "build_dataset",
    "instructions",
    "label_known",
    "make_rows",
    "mine_distractors",
    "misread",
    "read_passages",
    "read_questions",
    "read_recipe",
    "read_rows",
    "train",
    "without_reflection",
    "write_json_lines",
    "write_questions",
    "write_recipe",
    "write_rows",
]
