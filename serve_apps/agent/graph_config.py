"""An agent's graph (``agent.<name>.graph`` in values): named steps, and what comes after each."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from serve_apps.common.config import Config, Name

#: A step's name, which prompts and arguments name in braces.
StepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=40)]
#: The name under which they find what the user asks.
QUESTION = "question"

_KINDS = ("ask", "call", "parallel", "say")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


def filled(template: str, values: Mapping[str, str]) -> str:
    """``template`` with each name in braces replaced by its value; a step that was not done has none."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], ""), template)


def placeholders(value: Any) -> Iterator[str]:
    """The names in braces in a text, or in all texts of a JSON value."""
    if isinstance(value, str):
        yield from _PLACEHOLDER.findall(value)
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from placeholders(each)


class Ask(Config):
    """A turn of a model."""

    prompt: str = "{question}"
    """What it is asked, in place of the user's last message. ``{question}`` is that message, ``{lookup}`` the result of
    the step ``lookup``."""
    model: Name | None = None
    """A route, or a model of task generate; the agent's own unless set."""
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=50)
    """The only answers it can give, by structured output; any unless set."""


class CallTool(Config):
    """A call of one of the agent's tools."""

    function: str = Field(min_length=1)
    """The function: a tool's name, or ``<tool>_<operation>`` of one that has several."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its arguments; in texts, names in braces stand for the question and for results, as in prompts."""


class When(Config):
    """What a result must be; everything that is set must hold."""

    step: StepName | None = None
    """Whose result; that of the step itself unless set."""
    equals: str | None = None
    """Its text, less white space around it."""
    contains: str | None = Field(None, min_length=1)
    """A part of its text, in upper or lower case."""
    above: float | None = None
    """A number it is greater than; no other text is."""
    below: float | None = None
    """A number it is less than; no other text is."""
    failed: bool | None = None
    """Whether its tool failed."""

    @model_validator(mode="after")
    def _says_something(self) -> "When":
        if all(getattr(self, rule) is None for rule in ("equals", "contains", "above", "below", "failed")):
            raise ValueError("nothing to hold; set one of equals, contains, above, below, failed")
        return self

    def holds(self, text: str, failed: bool) -> bool:
        """Whether it does for a result."""
        number = _number(text) if (self.above, self.below) != (None, None) else 0.0
        return (
            (self.equals is None or text.strip() == self.equals)
            and (self.contains is None or self.contains.lower() in text.lower())
            and (self.above is None or (number is not None and number > self.above))
            and (self.below is None or (number is not None and number < self.below))
            and (self.failed is None or failed == self.failed)
        )


class Next(Config):
    """A way on from a step."""

    to: StepName
    """The step it leads to."""
    when: When | None = None
    """When it is taken; always unless set."""
    at_most: int | None = Field(None, ge=1, le=20)
    """How often it is taken; then it is passed over. A way back needs this, so that the work ends."""


class Step(Config):
    """A step: one of the kinds, and what comes after it. A step after which nothing comes gives the answer."""

    ask: Ask | None = None
    """A turn of a model."""
    call: CallTool | None = None
    """A call of a tool."""
    parallel: tuple[StepName, ...] | None = Field(None, min_length=2)
    """Steps that are done at the same time; when all are done, the work goes on after this one."""
    say: str | None = Field(None, min_length=1)
    """A text with names in braces, such as ``{draft}``: no model is asked."""
    next: tuple[Next, ...] = ()
    """Ways on; the first that may be taken is. The last has neither ``when`` nor ``atMost``."""

    @model_validator(mode="after")
    def _is_one_kind_and_always_goes_on(self) -> "Step":
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"one kind of ask, call, parallel, say; got {', '.join(kinds) or 'none'}")
        if self.next and (self.next[-1].when is not None or self.next[-1].at_most is not None):
            raise ValueError("next: the last way on must have neither when nor atMost, so that there always is one")
        if self.parallel is not None and not self.next:
            raise ValueError("next: required after parallel; name the step that goes on with the results")
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def leads_to(self) -> set[str]:
        """The steps that may come next, or are done as its branches."""
        return {each.to for each in self.next} | set(self.parallel or ())

    @property
    def names_in_braces(self) -> set[str]:
        """What its texts stand in for."""
        texts = [self.ask.prompt if self.ask else "", self.call.arguments if self.call else {}, self.say or ""]
        return set(placeholders(texts))


class Graph(Config):
    """Steps in place of the loop in which the model itself decides."""

    start: StepName
    """The first step."""
    steps: dict[StepName, Step] = Field(min_length=1, max_length=50)
    """The steps by name."""

    @model_validator(mode="after")
    def _leads_somewhere(self) -> "Graph":
        problems = [*self._unknown(), *self._wrong_branches()]
        if not problems:
            problems = [*self._unreachable(), *self._endless()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def branches(self) -> dict[str, str]:
        """The steps that are done at the same time as others, and the step that starts them."""
        return {branch: name for name, step in self.steps.items() for branch in step.parallel or ()}

    def _unknown(self) -> Iterator[str]:
        # What is done in parallel has results; the step that starts it has none.
        with_results = {name for name, step in self.steps.items() if step.parallel is None}
        if QUESTION in self.steps:
            yield f"steps.{QUESTION}: the word for what the user asks; choose another name"
        if self.start not in self.steps:
            yield f"start: no such step {self.start!r}; there are {', '.join(sorted(self.steps))}"
        for name, step in self.steps.items():
            asked_of = {each.when.step for each in step.next if each.when and each.when.step}
            for where, named, known in (
                ("next", {each.to for each in step.next}, set(self.steps)),
                ("parallel", set(step.parallel or ()), set(self.steps)),
                ("next.when.step", asked_of, with_results),
                (step.kind, step.names_in_braces - {QUESTION}, with_results),
            ):
                for unknown in sorted(named - known):
                    yield f"steps.{name}.{where}: no such step {unknown!r}; there are {', '.join(sorted(known))}"

    def _wrong_branches(self) -> Iterator[str]:
        led_to = {each.to for step in self.steps.values() for each in step.next} | {self.start}
        started = [branch for step in self.steps.values() for branch in step.parallel or ()]
        for branch in sorted({each for each in started if each in self.steps}):
            step = self.steps[branch]
            if step.next or step.parallel or branch in led_to or started.count(branch) > 1:
                yield (
                    f"steps.{branch}: is done in parallel, so it must be a single step: without next, not itself "
                    "parallel, named by one parallel and by no next"
                )

    def _unreachable(self) -> Iterator[str]:
        reached = _reached({self.start}, {name: step.leads_to for name, step in self.steps.items()})
        for name in self.steps:
            if name not in reached:
                yield f"steps.{name}: no way leads to it from {self.start!r}; lead there or take it out"

    def _endless(self) -> Iterator[str]:
        unbounded = {
            name: {each.to for each in step.next if each.at_most is None} | set(step.parallel or ())
            for name, step in self.steps.items()
        }
        endless = [name for name, there in unbounded.items() if name in _reached(there, unbounded)]
        if endless:
            yield f"steps.{', '.join(endless)}: lead in a circle without end; set atMost on a way back"


def _reached(start: set[str], leads_to: Mapping[str, set[str]]) -> set[str]:
    """Every step to which a way leads from ``start``, those included."""
    reached: set[str] = set()
    left = [*start]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += leads_to[name]
    return reached


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
