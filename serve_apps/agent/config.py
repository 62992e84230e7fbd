"""The agent app's arguments and its agents (``agent:`` in values)."""

from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from serve_apps.agent.graph_config import Graph
from serve_apps.common.config import Config, Name
from serve_apps.common.prices import Price

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

#: A tool's or operation's name. Together they make a function's name, which OpenAI's API allows 64 characters.
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=30)]

#: The file below ``tools/`` of the secrets.
Credential = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")]


def _is_network(text: str) -> str:
    ip_network(text)  # says what is wrong
    return text


Network = Annotated[str, AfterValidator(_is_network)]


class Calculator(Config):
    """Arithmetic, worked out here: + - * / // % **, parentheses, and functions such as sqrt and round."""


class Rag(Config):
    """Questions to a RAG pipeline."""

    pipeline: Name
    """The pipeline, an entry of ``rag``."""
    top_k: int | None = Field(None, ge=1, le=100)
    """Chunks it answers from; the pipeline's own number unless set."""


class Remote(Config):
    """A server that tools are called at. No other host is reached, and no redirect followed."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")
    """Its base URL."""
    allowed_networks: tuple[Network, ...] = ()
    """Address ranges the host may be in besides public ones, for example ``10.0.0.0/8`` for a server inside. Unless
    set, a host with any private, loopback or link-local address is refused."""
    credential: Credential | None = None
    """The entry of the Secret security.tools that is shown there; none unless set."""
    credential_header: str = Field("authorization", pattern=r"^[A-Za-z0-9-]+$")
    """The header that carries it."""
    credential_scheme: str = "Bearer"
    """What stands before it in the header; empty: nothing."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers of every call. No secrets."""
    timeout_s: float = Field(10, gt=0, le=600)
    """Seconds one call may take."""
    max_response_bytes: int = Field(256 * 1024, ge=1, le=16 * 1024 * 1024)
    """The largest answer, in bytes; a larger one is an error the model is told."""


class Operation(Config):
    """One thing an HTTP server can be asked."""

    method: Method = "GET"
    """The HTTP method; it must be one of the tool's ``methods``."""
    path: str = Field(pattern=r"^/[^?#\s]*$")
    """Below the tool's URL; ``{name}`` stands for the parameter of that name."""
    description: str = Field(min_length=1)
    """What it does, for the model."""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """A JSON schema of an object. What is not in the path goes into the query, or with POST, PUT and PATCH into a JSON
    body."""


class OpenApi(Config):
    """Operations as an OpenAPI document has them."""

    path: str = Field(pattern=r"^/[^#\s]*$")
    """Where the document is, below the tool's URL; JSON. Its ``servers`` are not followed."""
    operations: tuple[str, ...] = Field(min_length=1)
    """The operationIds the model may use; nothing else of the document becomes a tool."""


class Http(Remote):
    """Operations of an HTTP server."""

    methods: tuple[Method, ...] = ("GET",)
    """The methods that are allowed; others are refused, whatever an operation or a document says."""
    operations: dict[ToolName, Operation] = Field(default_factory=dict)
    """Operations by name."""
    openapi: OpenApi | None = None
    """Operations from the server's own document."""

    @model_validator(mode="after")
    def _has_operations_it_allows(self) -> "Http":
        if not self.operations and self.openapi is None:
            raise ValueError("operations: none; set operations or openapi")
        for name, operation in self.operations.items():
            if operation.method not in self.methods:
                raise ValueError(
                    f"operations.{name}.method: {operation.method} is not allowed; add it to methods, which are "
                    f"{', '.join(self.methods)}"
                )
        return self


class Mcp(Remote):
    """Tools of an MCP server (Model Context Protocol, streamable HTTP)."""

    tools: tuple[str, ...] = ()
    """The tools the model may use, by the server's names; empty: all it has."""


class Tool(Config):
    """A tool; one of the kinds."""

    description: str | None = None
    """What it is for, told to the model; the kind's own words unless set."""
    calculator: Calculator | None = None
    """Arithmetic."""
    rag: Rag | None = None
    """Questions to a RAG pipeline."""
    http: Http | None = None
    """Operations of an HTTP server."""
    mcp: Mcp | None = None
    """Tools of an MCP server."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Tool":
        kinds = [kind for kind in ("calculator", "rag", "http", "mcp") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"one kind of calculator, rag, http, mcp; got {', '.join(kinds) or 'none'}")
        return self


class Limits(Config):
    """What one request may use. The first limit that is reached ends the work, and the answer says which."""

    steps: int = Field(8, ge=1, le=100)
    """Calls of the model, the answer included; the last one is always an answer."""
    tool_calls: int = Field(8, ge=0, le=100)
    """Calls of tools; then the model must answer from what it has."""
    same_call: int = Field(2, ge=1, le=10)
    """How often a tool may be called with the very same arguments; then the model must answer."""
    tokens: int = Field(20_000, ge=1)
    """Prompt and generated tokens of all calls together."""
    wall_time_s: float = Field(120, gt=0, le=3600)
    """Seconds."""
    cost: float | None = Field(None, gt=0)
    """What all those tokens may cost, in the currency of the prices; no limit unless set."""
    tool_result_chars: int = Field(4000, ge=100)
    """Characters of a tool's result that the model gets; lower it for a model with a small window."""


class Agent(Config):
    """One agent; published as a model of its own name."""

    model: Name
    """The model that decides and answers: a route, or a model of task generate."""
    tool_calling: Literal["json", "native"] = "json"
    """json: the model's words are constrained to a valid call (structured output), which works with every model.
    native: it calls tools in its own way, which needs a tool parser in its engine arguments."""
    system_prompt: str = ""
    """What the model is told about its task; how tools are called is told besides."""
    tools: dict[ToolName, Tool] = Field(default_factory=dict)
    """The tools by name."""
    graph: Graph | None = None
    """Steps that are done in place of the loop in which the model decides what to call."""
    limits: Limits = Limits()
    """What one request may use."""
    max_tokens: int = Field(512, ge=1)
    """Tokens of what the model says at most, unless the request asks for an answer of fewer."""
    max_call_tokens: int = Field(512, ge=16)
    """Tokens of a call of a tool as JSON, or of a choice; raise it for tools with long arguments. Requests cannot lower
    it: cut short, a call is none."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature of answers, unless the request sets one. Calls of tools are always decided at 0."""

    @model_validator(mode="after")
    def _no_tool_is_called_answer(self) -> "Agent":
        if "answer" in self.tools:
            raise ValueError("tools.answer: the word by which a model says that it answers; choose another name")
        return self

    @model_validator(mode="after")
    def _its_graph_calls_its_tools(self) -> "Agent":
        for name, step in self.graph.steps.items() if self.graph else ():
            called = step.call.function if step.call else None
            if called and not any(called == tool or called.startswith(f"{tool}_") for tool in self.tools):
                there = ", ".join(self.tools) or "none"
                raise ValueError(f"graph.steps.{name}.call.function: no tool has {called!r}; there are {there}")
        return self


class AgentArgs(Config):
    """What the agent app needs to start."""

    gateway_url: str = Field(pattern=r"^https?://[^?#]+[^/?#]$")
    """The gateway; every model and pipeline is called through it, so limits and metering apply once."""
    model_timeout_s: float = Field(900, gt=0)
    """How long a model may take to begin its answer, in seconds."""
    redis: str = Field("", pattern=r"^(rediss?://[^@\s]+)?$")
    """Where runs keep their state, ``redis://host:port/db``; the password is a Secret's. Empty: there are no runs."""


class Agents(Config):
    """The agent app's ``user_config``: replaced in place and whole, no restart."""

    agents: dict[Name, Agent] = Field(default_factory=dict)
    """The agents by name."""
    prices: dict[Name, Price] = Field(default_factory=dict)
    """What tokens cost, by whom agents ask: models, pipelines, and routes at their most."""
