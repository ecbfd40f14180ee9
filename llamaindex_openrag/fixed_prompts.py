"""What LlamaIndex asks of whatever has prompts, of those that are the training's."""

from __future__ import annotations

from llama_index.core.prompts.mixin import PromptDictType, PromptMixin, PromptMixinType

from openrag_core import ConfigError


class FixedPrompts(PromptMixin):
    """It has no prompts that could be changed, and says so."""

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        if prompts_dict:
            raise ConfigError(
                f"there is no prompt {', '.join(map(repr, prompts_dict))}, and none that can be "
                "changed: an Open-RAG model is asked in the layout that it was trained on"
            )
