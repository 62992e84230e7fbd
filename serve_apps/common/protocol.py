"""What the applications say to each other and to clients over HTTP: tasks, public paths, headers."""

from typing import Literal

Task = Literal["generate", "embed", "score", "transcribe", "pipeline", "agent"]

#: The paths of Anthropic's API, whose errors have another shape than OpenAI's.
ANTHROPIC_PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})
_TOKENS = frozenset({"/tokenize", "/detokenize"})
#: The public POST paths a model of each task answers. A path that is not listed is refused by the gateway and by
#: the model's own replica, so vLLM's control endpoints (LoRA loading, /invocations, /metrics, …) are unreachable.
TASK_PATHS: dict[Task, frozenset[str]] = {
    "generate": _TOKENS | ANTHROPIC_PATHS | {"/v1/chat/completions", "/v1/completions", "/v1/responses"},
    "embed": _TOKENS | {"/v1/embeddings"},
    "score": _TOKENS | {"/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"},
    "transcribe": frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"}),
    "pipeline": frozenset({"/v1/chat/completions"}),
    "agent": frozenset({"/v1/chat/completions"}),
}
#: The paths that take a form (``multipart/form-data``) with a file; all others take JSON.
FORM_PATHS = TASK_PATHS["transcribe"]

#: Carries the internal credential from the gateway to model and pipeline apps, and from pipelines to the gateway.
INTERNAL_HEADER = "x-llm-internal"
#: The tenant a request is made for. Set by the gateway; believed only beside a valid internal credential.
TENANT_HEADER = "x-llm-tenant"
#: Says that a request need not be answered soon: it goes after everybody's. Believed as the tenant is.
BACKGROUND_HEADER = "x-llm-background"
#: The LoRA adapter a request is for, which the model's replica loads before vLLM sees the request. Set by the gateway.
ADAPTER_HEADER = "x-llm-adapter"
#: Names a request in every log line; a caller's own value is kept.
REQUEST_ID_HEADER = "x-request-id"
#: Tells Ray Serve not to watch for the client's disconnect, so that vLLM sees it and aborts the generation itself.
DISCONNECT_HEADER = "x-request-disconnect-disabled"
#: On the gateway's own answer to an internal path that no application serves.
ABSENT_HEADER = "x-llm-absent"
#: The version (a name in ``models``) that answered; in a request, the one that should.
VERSION_HEADER = "x-llm-version"
#: Ties the requests of one conversation together; set by clients.
SESSION_HEADER = "x-session-id"
#: Says which parts of a pipeline did not take part in an answer, comma separated (for example ``retrieval``).
DEGRADED_HEADER = "x-rag-degraded"
