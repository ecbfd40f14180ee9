"""Model -> checkpoint folder, in one of three layouts."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from openrag_core.errors import CheckpointError, ConfigError
from openrag_core.model.checkpoints.adapter import save_adapter
from openrag_core.model.checkpoints.files import new_folder
from openrag_core.model.checkpoints.published import save_published
from openrag_core.model.modeling import OpenRAGForCausalLM

Layout = Literal["merged", "adapter", "published"]


def save(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | PathLike[str],
    *,
    layout: Layout = "merged",
    base: str | PathLike[str] | None = None,
) -> None:
    """Save a mixture of experts; the folder appears when all of it is written.

    Args:
        model: An `OpenRAGForCausalLM`; for "adapter" also one with LoRA by peft around it.
        tokenizer: Of that model.
        folder: Must not exist, or be empty.
        layout: "merged" is complete; "adapter" leaves out the base; "published" is that of the
            released Open-RAG code, for bases that it computes rightly.
        base: For "adapter": the dense model that the mixture was made from.

    Raises:
        ConfigError: The layout is unknown, or a base is missing or not wanted.
        CheckpointError: The model does not fit the layout, or the folder cannot be written.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"layout must be one of {', '.join(get_args(Layout))}; got {layout!r}")
    if (layout == "adapter") != (base is not None):
        raise ConfigError(
            'layout "adapter" needs a base (--base), the dense model that it leaves out, and no '
            f"other layout takes one; got layout {layout!r} and base {base!r}"
        )
    with new_folder(Path(folder)) as made:
        if base is not None:
            save_adapter(model, tokenizer, made, base=base)
        elif not isinstance(model, OpenRAGForCausalLM):
            raise CheckpointError(
                f"{type(model).__name__} is no mixture of experts as it stands: upcycle a dense "
                'model; merge a LoRA, or save it with the layout "adapter"'
            )
        elif layout == "published":
            if getattr(model, "is_quantized", False):
                raise CheckpointError(
                    "the published layout has no weights in 4 bits: load the model without"
                )
            save_published(model, tokenizer, made)
        else:
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
