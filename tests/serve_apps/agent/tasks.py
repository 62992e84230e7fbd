"""Tasks for an agent with the tools ``calculate`` and ``docs``, as data: for the fake model here, and for a real one.

``calls`` is what a model that does the task well calls; a small model calls other things, and what must hold for it is
only that every call is valid.
"""

from dataclasses import dataclass
from typing import Any

#: The agent's tools, as in values.
TOOLS: dict[str, Any] = {
    "calculate": {"calculator": {}},
    "docs": {"description": "Answers questions about the product's limits and prices.", "rag": {"pipeline": "docs"}},
}
#: What the pipeline ``docs`` has to hold for the look-ups.
FACTS = """The small plan costs 12 euros a month and allows 40 requests a minute.
The large plan costs 95 euros a month and allows 600 requests a minute.
An upload may have 32 megabytes. A stream may stay silent for 300 seconds.
Support answers within 4 hours on working days.
"""


@dataclass(frozen=True)
class Task:
    """A question and how it is worked on."""

    name: str
    question: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    answer: str
    """What the answer holds."""


def _sum(name: str, question: str, expression: str, answer: str) -> Task:
    return Task(name, question, (("calculate", {"expression": expression}),), answer)


def _look_up(name: str, question: str, answer: str) -> Task:
    return Task(name, question, (("docs", {"question": question}),), answer)


def _branch(name: str, question: str, first: str, then: tuple[str, dict[str, Any]], answer: str) -> Task:
    return Task(name, question, (("calculate", {"expression": first}), then), answer)


TASKS = (
    _sum("addition", "What is 17 plus 25?", "17 + 25", "42"),
    _sum("subtraction", "What is 1000 minus 373?", "1000 - 373", "627"),
    _sum("multiplication", "What is 23 times 19?", "23 * 19", "437"),
    _sum("division", "Divide 144 by 12.", "144 / 12", "12"),
    _sum("brackets", "Work out (3 + 4) * 12.", "(3 + 4) * 12", "84"),
    _sum("power", "What is 2 to the power of 16?", "2 ** 16", "65536"),
    _sum("root", "What is the square root of 1764?", "sqrt(1764)", "42"),
    _sum("percent", "What is 19 percent of 250?", "250 * 19 / 100", "47.5"),
    _sum("remainder", "What remains when 100 is divided by 7?", "100 % 7", "2"),
    _sum("negative", "What is 5 minus 12?", "5 - 12", "-7"),
    _sum("year", "How many hours has a year of 365 days?", "365 * 24", "8760"),
    _look_up("price", "What does the small plan cost a month?", "12"),
    _look_up("rate", "How many requests a minute does the large plan allow?", "600"),
    _look_up("upload", "How large may an upload be?", "32"),
    _look_up("silence", "For how long may a stream stay silent?", "300"),
    _look_up("support", "How fast does support answer?", "4 hours"),
    Task(
        "price of a year",
        "What does the small plan cost in a year?",
        (
            ("docs", {"question": "What does the small plan cost a month?"}),
            ("calculate", {"expression": "12 * 12"}),
        ),
        "144",
    ),
    Task(
        "comparison",
        "How much more does the large plan cost than the small one?",
        (
            ("docs", {"question": "What do the small and the large plan cost?"}),
            ("calculate", {"expression": "95 - 12"}),
        ),
        "83",
    ),
    _branch(
        "branch upwards",
        "Work out 7 * 7. If it is above 40, look up how large an upload may be; otherwise say no.",
        "7 * 7",
        ("docs", {"question": "How large may an upload be?"}),
        "32",
    ),
    _branch(
        "branch downwards",
        "Work out 9 - 5. If it is below 5, look up how fast support answers; otherwise add 100 to it.",
        "9 - 5",
        ("docs", {"question": "How fast does support answer?"}),
        "4 hours",
    ),
    _branch(
        "branch to a sum",
        "Work out 6 * 6. If it is above 100, look up the price of the small plan; otherwise add 64 to it.",
        "6 * 6",
        ("calculate", {"expression": "36 + 64"}),
        "100",
    ),
    Task(
        "branch on a look-up",
        "Look up how many requests a minute the small plan allows. If it is below 50, multiply it by 10.",
        (
            ("docs", {"question": "How many requests a minute does the small plan allow?"}),
            ("calculate", {"expression": "40 * 10"}),
        ),
        "400",
    ),
)
