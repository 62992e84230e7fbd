"""What the applications say to each other and to clients over HTTP: tasks, public paths, headers."""

from typing import Literal

Task = Literal["generate", "embed", "score", "pipeline"]

#: The public POST paths a model of each task answers. A path that is not listed is refused by the gateway and by
#: the model's own replica, so vLLM's control endpoints (LoRA loading, /invocations, /metrics, …) are unreachable.
TASK_PATHS: dict[Task, frozenset[str]] = {
    "generate": frozenset({"/v1/chat/completions", "/v1/completions"}),
    "embed": frozenset({"/v1/embeddings"}),
    "score": frozenset({"/v1/rerank", "/v1/score"}),
    "pipeline": frozenset({"/v1/chat/completions"}),
}

#: Carries the internal credential from the gateway to model and pipeline apps, and from pipelines to the gateway.
INTERNAL_HEADER = "x-llm-internal"
#: The tenant a request is made for. Set by the gateway; believed only beside a valid internal credential.
TENANT_HEADER = "x-llm-tenant"
#: Names a request in every log line; a caller's own value is kept.
REQUEST_ID_HEADER = "x-request-id"
#: Tells Ray Serve not to watch for the client's disconnect, so that vLLM sees it and aborts the generation itself.
DISCONNECT_HEADER = "x-request-disconnect-disabled"
#: On the gateway's own answer to an internal path that no application serves.
ABSENT_HEADER = "x-llm-absent"
#: Says which parts of a pipeline did not take part in an answer, comma separated (for example ``retrieval``).
DEGRADED_HEADER = "x-rag-degraded"
