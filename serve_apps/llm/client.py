"""Models for code that runs in the same Ray cluster: jobs, notebooks, other Serve applications.

Calls go straight to the model's replicas, past the gateway with its keys, limits and budgets. Everybody else calls the
gateway.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.dashboard.utils import get_address_for_submission_client
from ray.serve.exceptions import BackPressureError

from serve_apps.llm.in_place import Changed, changed, is_in_force

#: Seconds between two looks at whether Serve has handed new settings to the replicas.
LOOK_S = 0.5
#: Seconds before a refused prompt is asked again: at first, and at most.
AGAIN_S, AGAIN_AT_MOST_S = 0.1, 5.0


class Model:
    """A model that this Ray cluster serves."""

    def __init__(self, name: str) -> None:
        """``name`` is the model's key in values.

        Raises:
            RayServeException: no model of this name is served.
        """
        self._name = name
        self._handle = serve.get_app_handle(name)
        # In our pods handles use their caller's event loop (RAY_SERVE_THROUGHPUT_OPTIMIZED), and a script has none.
        self._handle._init(_run_router_in_separate_loop=True)

    def generate(self, prompt: str, **sampling: Any) -> str:
        """How the model goes on from ``prompt``.

        ``sampling``: max_tokens, temperature, top_p, top_k, min_p, repetition_penalty; what is left out is as the
        model's settings say, and max_tokens 512 where they do not.

        Raises:
            ValueError: there is no such field, or the model refuses the request.
            BackPressureError: its replicas have no room; try again.
        """
        text: str = self._handle.generate.remote(prompt, **sampling).result()
        return text

    def batch_generate(
        self, prompts: Iterable[str], *, at_a_time: int = 32, patience_s: float = 600, **sampling: Any
    ) -> list[str]:
        """As `generate`, of each prompt, in their order; ``at_a_time`` prompts at most are under way.

        A prompt for which the replicas have no room is asked again, for ``patience_s`` seconds. For thousands of
        prompts there are batches (docs/batch.md), which outlive their caller.
        """
        with ThreadPoolExecutor(at_a_time) as callers:
            return list(
                callers.map(lambda prompt: patiently(lambda: self.generate(prompt, **sampling), patience_s), prompts)
            )

    def reconfigure(self, *, timeout_s: float = 300, **settings: Any) -> None:
        """Change settings of the running replicas, none of which restarts; returns once they are in force.

        Serve says so when no replica is on its way either: one that starts, or one that ends, which takes it 30 s at
        least. ``timeout_s`` has to be enough for that.

        ``settings``: those of `Changed`. They hold until the next ``helm upgrade`` that changes the Serve config, which
        puts back what the values say.

        Raises:
            ValueError: they are not valid; nothing is changed.
            TimeoutError: they are not in force after ``timeout_s`` seconds.
        """
        wanted = Changed.model_validate(settings)
        rest = ServeSubmissionClient(get_address_for_submission_client(None))
        rest.deploy_applications(changed(rest.get_serve_details(), self._name, wanted))
        deadline = time.monotonic() + timeout_s
        while not is_in_force(rest.get_serve_details(), self._name, wanted):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._name}: not in force after {timeout_s:.0f} s; ask Serve for its status")
            time.sleep(LOOK_S)


def patiently(ask: Callable[[], str], patience_s: float) -> str:
    """What ``ask`` answers, asked again with growing pauses while the replicas have no room.

    Raises:
        BackPressureError: there was none for ``patience_s`` seconds.
    """
    deadline = time.monotonic() + patience_s
    pause_s = AGAIN_S
    while True:
        try:
            return ask()
        except BackPressureError:
            if time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_AT_MOST_S)
