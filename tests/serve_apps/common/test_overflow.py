import pytest

from serve_apps.common import overflow


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested 2100.", True),
        ("The decoder prompt (length 2100) is longer than the maximum model length of 2048.", True),
        ("max_tokens=4000 cannot be greater than max_model_len=2048", True),
        ("prompt is too long: 210000 tokens > 200000 maximum", True),
        ("temperature must be at most 2, however long the prompt is", False),
    ],
)
def test_a_prompt_beyond_the_window_is_told_from_other_refusals(message: str, said: bool) -> None:
    assert overflow.is_said(message) is said
