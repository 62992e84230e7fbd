"""What tokens cost."""

from pydantic import Field

from serve_apps.common.config import Config


class Price(Config):
    """What a model costs, in any one currency, per million tokens."""

    prompt: float = Field(0, ge=0)
    """Per million prompt tokens."""
    completion: float = Field(0, ge=0)
    """Per million generated tokens."""


def cost(price: Price | None, prompt_tokens: int, completion_tokens: int) -> float:
    """What tokens cost, in the currency of the price; nothing without one."""
    if price is None:
        return 0.0
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / 1_000_000
