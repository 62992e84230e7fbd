"""Prompts that are longer than a model's window: how its server says so."""

import re

#: vLLM 0.29 (in each of its stages), OpenAI's own, Anthropic's.
_SAID = re.compile(
    r"maximum context length|longer than the maximum\s+model length"
    r"|exceeds the max_model_len|cannot be greater than max_(model_len|total_tokens)|prompt is too long"
)


def is_said(message: str) -> bool:
    """Whether an error's message says that the prompt, with the tokens asked for, is longer than the window."""
    return bool(_SAID.search(message))
