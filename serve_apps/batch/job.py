"""A batch on accelerators of its own, executed by Ray Data: the driver of a RayJob, ``python -m serve_apps.batch job``.

The model is deployed as it is for clients, from the same config, and answers over the same app; Ray Data reads the
lines, brings them to its replicas, as many as these work on, and keeps the answers where they arise.
"""

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray import serve
from ray.data import Dataset
from ray.data.llm import ServeDeploymentProcessorConfig, build_processor
from ray.exceptions import RayError

from serve_apps.batch import compat, dedicated
from serve_apps.batch.config import ARGS_VARIABLE, JobArgs
from serve_apps.batch.dedicated import MAX_PASSES, Hold, Job, Piece, Record
from serve_apps.batch.storage import Storage

#: After a pass that brought nothing, in seconds, times the number of such passes: a replica may be on its way.
PAUSE_S = 5.0
#: Blocks of lines that are under way at a replica at a time, so that it is busy while one of them ends.
_BLOCKS = 8
#: The environment of those who ask: they have no event loop when they begin, as Serve's own replicas do.
_CALLER = {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1"}
#: Between two looks at the model that starts, in seconds.
_LOOK_S = 1.0
#: Between two words on the progress, in seconds.
_TELL_S = 10.0

logger = logging.getLogger(__name__)


class ModelFailed(Exception):
    """The model does not start; the message is Serve's."""


def run_from_environment() -> Record:
    """Answer the lines of the job that the chart has put into the environment, on this cluster. Raises as `run`."""
    ray.init("auto", log_to_driver=False)
    return run(JobArgs.model_validate_json(os.environ[ARGS_VARIABLE]))


def run(args: JobArgs) -> Record:
    """Answer all lines; what became of them.

    Raises:
        InputWrong: lines are no requests; nothing was sent.
        ModelFailed: the model does not start.
        TakenAway: another driver has the job.
        RayError: passes have failed one after the other.
    """
    with Hold(args.output) as hold:
        job = Job(args)
        if job.record.status == "completed":
            return job.record
        pieces = job.left()
        if pieces:
            start_model(args)
        passes = 0
        while pieces:
            passes += 1
            before = job.answered
            _pass(args, pieces, hold, final=passes == MAX_PASSES)
            pieces = job.left()
            if job.answered > before:
                passes = 0
            elif pieces:
                time.sleep(PAUSE_S * passes)
        hold.check()
        return job.finish()


def start_model(args: JobArgs) -> None:
    """Have Serve run the model, and wait until it does.

    Raises:
        ModelFailed: it cannot.
    """
    compat.deploy(args.serve)
    name = args.serve["applications"][0]["name"]
    while (application := serve.status().applications.get(name)) is None or application.status != "RUNNING":
        if application is not None and application.status == "DEPLOY_FAILED":
            messages = [application.message, *(one.message for one in application.deployments.values())]
            raise ModelFailed("\n".join(filter(None, messages)))
        time.sleep(_LOOK_S)


def _pass(args: JobArgs, pieces: list[Piece], hold: Hold, *, final: bool) -> None:
    """Ask all that is left once.

    Raises:
        RayError: it broke off, and was the last that may.
        TakenAway: another driver has the job.
    """
    kept = left = 0
    told_s = time.monotonic()
    try:
        for counts in answers(args, pieces, final=final).iter_rows():
            hold.check()
            kept += counts["kept"]
            left += counts["left"]
            if time.monotonic() - told_s > _TELL_S:
                told_s = time.monotonic()
                logger.info("lines are answered", extra={"kept": kept, "left": left})
        logger.info("a pass is over", extra={"kept": kept, "left": left})
    except RayError:
        # A replica or a node is gone. What was kept stays, and the next pass asks the rest.
        logger.exception("a pass broke off", extra={"kept": kept})
        if final:
            raise


def answers(args: JobArgs, pieces: list[Piece], *, final: bool) -> Dataset:
    """The work, which begins when its rows are read: of each block of lines how many are kept, and left."""
    application = args.serve["applications"][0]
    config = ServeDeploymentProcessorConfig(
        app_name=application["name"],
        deployment_name=application["deployments"][0]["name"],
        batch_size=max(1, args.concurrency // _BLOCKS),
        concurrency=args.replicas,
    )
    processor = build_processor(config, preprocess=_question, postprocess=_answer)
    # Who waits for answers needs no core of its own, and works on several blocks.
    stage = processor.get_stage_by_name("ServeDeploymentStage")
    stage.map_batches_kwargs.update(num_cpus=0.1, max_concurrency=_BLOCKS, runtime_env={"env_vars": _CALLER})

    def lines(row: dict[str, Any]) -> Iterator[dict[str, str]]:
        return dedicated.lines_of(args, Piece.model_validate_json(row["piece"]))

    def keep(block: dict[str, Any]) -> dict[str, Any]:
        return _keep(args, block, final=final)

    rows = ray.data.from_items(
        [{"piece": piece.model_dump_json()} for piece in pieces], override_num_blocks=len(pieces)
    )
    questions = rows.flat_map(lines, num_cpus=0.1).repartition(target_num_rows_per_block=config.batch_size)
    return processor(questions).map_batches(keep, batch_size=None, num_cpus=0.1)


def _question(row: dict[str, Any]) -> dict[str, Any]:
    """A line, as the stage asks a deployment."""
    return {"method": "answer", "request_kwargs": {"path": row["path"], "body": row["body"]}}


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of its answer."""
    return {name: row[name] for name in ("custom_id", "status", "answer")}


def _keep(args: JobArgs, block: dict[str, Any], *, final: bool) -> dict[str, Any]:
    """Keep a block of answers, where they are: not even the driver has them all."""
    columns = zip(block["custom_id"], block["status"], block["answer"], strict=True)
    judged = [dedicated.judged(args, str(one), int(status), str(text), final=final) for one, status, text in columns]
    kept = [answer for answer in judged if answer is not None]
    dedicated.parts_of(Storage(args.output)).write(kept)
    return {"kept": [len(kept)], "left": [len(judged) - len(kept)]}
