"""Texts that others wrote, in prompts: they stand in a fence as data, which they can neither close nor step out of.

A model's server makes tokens of a whole conversation at once, so ``<|im_end|>`` in a document would end the user's
message as the chat template's own does, and what follows it would speak in any role.
"""

import re

#: What begins the control tokens of models: ChatML, Llama, Mistral, Gemma, DeepSeek; and the places of their images.
_CONTROL = re.compile(
    r"<(?=[|\uff5c])"
    r"|<(?=<?/?(?:s|bos|eos|pad|unk|think|tools?|tool_\w+|(?:start|end)_of_\w+|SYS)>)"
    r"|<(?=/?(?:image|img|video|audio)\w*>)"
    r"|\[(?=/?(?-i:INST|THINK|SYSTEM_PROMPT|MODEL_SETTINGS|AVAILABLE_TOOLS|TOOL_[A-Z]+|ARGS|CALL_ID|IMG|IMG_[A-Z]+|"
    r"AUDIO|BEGIN_AUDIO)\])",
    re.IGNORECASE,
)


def fenced(tag: str, attributes: str, text: str) -> str:
    """``text`` between ``<tag attributes>`` and ``</tag>``, unable to leave it; ``attributes`` are to be inert."""
    fence = re.compile(rf"<(?=\s*/?\s*{tag}\b)", re.IGNORECASE)
    return f"<{tag}{attributes}>\n{fence.sub('(', inert(text))}\n</{tag}>"


def inert(text: str) -> str:
    """``text`` without control tokens: a parenthesis stands where one would begin."""
    return _CONTROL.sub("(", text)
