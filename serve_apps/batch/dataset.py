"""The lines of a large batch beside clients, sent by Ray Data: from several processes, wherever pipelines run.

A batch has a driver of its own, an actor, so that Ray Data does not share a process with whoever uploads files. It and
the processes that send end with the replica that works on the batch, or when that has had enough.
"""

import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from serve_apps.batch.answering import Answer
from serve_apps.batch.config import BatchArgs
from serve_apps.batch.execution import TenantSender
from serve_apps.batch.pieces import Left, Sending, Sent
from serve_apps.batch.storage import Storage
from serve_apps.common import logging
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.secrets import InternalCredential


class RayDataSenders:
    """``Senders`` that are Ray Data's."""

    def __init__(self, args: BatchArgs) -> None:
        self._args = args

    async def answers(self, left: Left) -> AsyncGenerator[Sent, None]:
        """As ``Senders`` has it.

        Raises:
            RayError: they cannot go on.
        """
        driver = ray.remote(num_cpus=0, label_selector=self._args.label_selector)(_Driver).remote()
        try:
            async for sent in driver.answers.options(num_returns="streaming").remote(self._args, left):
                yield await sent
        finally:
            ray.kill(driver)


class _Driver:
    """Has Ray Data do the work on one batch."""

    def answers(self, args: BatchArgs, left: Left) -> Iterator[Sent]:
        stand_back()
        context = DataContext.get_current()
        context.enable_progress_bars = False
        pieces = [{"start": start, "size": size} for start, size in left.pieces]
        dataset = ray.data.from_items(pieces, override_num_blocks=len(pieces)).flat_map(
            _Process,
            fn_constructor_args=(args, left),
            compute=ActorPoolStrategy(
                size=min(left.senders, len(pieces)),
                max_concurrent_calls_per_actor=left.pieces_at_a_time,
                max_tasks_in_flight_per_actor=left.pieces_at_a_time,
            ),
            num_cpus=0,
            label_selector=args.label_selector,
        )
        for block in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            columns = zip(block["custom_id"], block["outcome"], block["record"], strict=True)
            answers = tuple(Answer(str(one), what, record) for one, what, record in columns)
            yield Sent(answers, int(sum(block["refused"])))


class _Process:
    """Sends pieces."""

    def __init__(self, args: BatchArgs, left: Left) -> None:
        logging.configure()
        stand_back()
        gateway = GatewayClient(args.gateway_url, InternalCredential(), args.model_timeout_s)
        self._sending = Sending(Storage(args.storage), TenantSender(gateway, left.tenant), left)

    async def __call__(self, piece: dict[str, Any]) -> list[dict[str, Any]]:
        sent = await self._sending.send(int(piece["start"]), int(piece["size"]))
        rows = [asdict(answer) | {"refused": 0} for answer in sent.answers]
        rows[0]["refused"] = sent.refused
        return rows


def stand_back() -> None:
    """Have the cores only when nobody else wants them: the gateway, which shares them, has clients who wait.

    All threads of this process, and those they begin: policy, like niceness, is a thread's own, and Ray has begun some.
    """
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
