"""Where the loop's state is kept: one Redis hash for each run, with its last checkpoint and what came after it.

Everything is JSON. LangGraph's own serializer can also make objects of any class, which whoever may write to the Redis
could use to run code here.
"""

from collections.abc import Sequence
from typing import Any, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from redis.asyncio import Redis
from typing_extensions import override

#: Every key of ours begins with this, so that a Redis can be shared and its access list can be narrow.
KEY_PREFIX = "llm-agent:"

_LATEST = "checkpoint"


class RedisSaver(BaseCheckpointSaver[int]):
    """Keeps what a run needs to go on: older checkpoints make way for newer ones."""

    def __init__(self, redis: Redis, kept_s: int) -> None:
        """``kept_s``: how long a run's state stays after its last step, in seconds."""
        super().__init__()
        self._redis = redis
        self._kept_s = kept_s

    @override
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        stored = cast(dict[str, str], await self._redis.hgetall(_key(config)))
        if _LATEST not in stored:
            return None
        latest = orjson.loads(stored[_LATEST])
        identifier = latest["checkpoint"]["id"]
        writes = [
            (task, channel, value)
            for field in sorted(stored)
            if field.startswith(f"write {identifier} ")
            for task, channel, value in [orjson.loads(stored[field])]
        ]
        return CheckpointTuple(
            config=_config(config, identifier),
            checkpoint=latest["checkpoint"],
            metadata=latest["metadata"],
            parent_config=None,
            pending_writes=writes,
        )

    @override
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        kept = {"checkpoint": checkpoint, "metadata": get_checkpoint_metadata(config, metadata)}
        key = _key(config)
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.delete(key)  # with the writes that this checkpoint has in it
            transaction.hset(key, _LATEST, orjson.dumps(kept))
            transaction.expire(key, self._kept_s)
            await transaction.execute()
        return _config(config, checkpoint["id"])

    @override
    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        identifier = config["configurable"]["checkpoint_id"]
        fields: dict[Any, Any] = {
            # An error among them is kept as its words: it is for people.
            f"write {identifier} {task_id} {index:04}": orjson.dumps([task_id, channel, value], default=repr)
            for index, (channel, value) in enumerate(writes)
        }
        if fields:
            await self._redis.hset(_key(config), mapping=fields)

    @override
    async def adelete_thread(self, thread_id: str) -> None:
        await self._redis.delete(_state_key(thread_id))


def _key(config: RunnableConfig) -> str:
    return _state_key(config["configurable"]["thread_id"])


def _state_key(thread_id: str) -> str:
    return f"{KEY_PREFIX}{{{thread_id}}}:state"


def _config(config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    configurable = config["configurable"]
    return {
        "configurable": {
            "thread_id": configurable["thread_id"],
            "checkpoint_ns": configurable.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint_id,
        }
    }
