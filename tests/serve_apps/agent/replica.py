"""``python -m tests.serve_apps.agent.replica GATEWAY REDIS FOLDER`` serves an agent app until it is killed.

It prints its URL. FOLDER has the files ``token`` (the internal credential) and ``redis-password``.
"""

import sys
import threading
from pathlib import Path
from typing import Any

from serve_apps.agent.agents import RunningAgents
from serve_apps.agent.checkpoints import RedisSaver
from serve_apps.agent.config import Agents
from serve_apps.agent.ingress import build_asgi
from serve_apps.agent.run_store import RunStore
from serve_apps.agent.runs import Pace, Runs
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.redis import connect
from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from tests.serve_apps.agent.recorded import Recorded
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

#: Short enough to wait for, and no busy machine misses it.
LEASE_S = 3.0
PACE = Pace(renew_s=0.2, look_s=0.2)
TOOLS: dict[str, Any] = {"calculate": {"calculator": {}}}
#: Works out two sums at the same time, then has them put in words.
SUMS: dict[str, Any] = {
    "start": "both",
    "steps": {
        "both": {"parallel": ["one", "two"], "next": [{"to": "words"}]},
        "one": {"call": {"function": "calculate", "arguments": {"expression": "6 * 7"}}},
        "two": {"call": {"function": "calculate", "arguments": {"expression": "7 * 8"}}},
        "words": {"ask": {"prompt": "{one} and {two}"}},
    },
}
HELPER = {
    "agents": {
        "helper": {"model": "chat", "tools": TOOLS},
        "sums": {"model": "chat", "tools": TOOLS, "graph": SUMS},
    }
}


def app_of(replica: str, gateway_url: str, redis_url: str, folder: Path) -> ASGIApp:
    """A replica with the agents of ``HELPER``."""
    credential = InternalCredential(folder / "token")
    agents = RunningAgents(GatewayClient(gateway_url, credential, PATIENCE_S), UpstreamKeys(folder), Recorded())
    agents.replace(Agents.model_validate(HELPER))
    redis = connect(redis_url, folder / "redis-password")
    runs = Runs(RunStore(redis, replica, LEASE_S), RedisSaver(redis, 60), agents, PACE)
    return build_asgi(agents, credential, runs)


if __name__ == "__main__":
    with serving(app_of("killed", sys.argv[1], sys.argv[2], Path(sys.argv[3])), lifespan="on") as url:
        print(url, flush=True)  # noqa: T201  # for the test that started it
        threading.Event().wait()
