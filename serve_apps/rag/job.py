"""``python -m serve_apps.rag.job SOURCE URL PIPELINE --workers=N`` brings a large collection of documents in.

It is the driver of a RayJob, and does what `serve_apps.rag.ingest` does, with its arguments and exit status, from
several nodes: Ray Data hands shares of the files to its workers, which read and upload them, and hands those of a lost
worker out again. A driver that is started again begins anew, and what is in already is unchanged.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from serve_apps.rag.corpus import Corpus, Piece, Source, Unreadable
from serve_apps.rag.ingest import Errand, Progress, Refused, Tally, arguments_of, positive, run, say, send, telling


class Sender:
    """Reads and uploads shares, several at a time: one in each worker."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._source = Source(errand.source)

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What became of the documents of a share."""
        pieces = [Piece(**piece) for piece in orjson.loads(row["share"])]
        tally = Tally()
        unreadable: list[Unreadable] = []
        refusal = ""
        try:
            await send(self._errand, self._source.uploads(pieces, unreadable), tally, concurrency=1)
        except (RuntimeError, Refused) as error:
            refusal = str(error)
        for one in unreadable:
            tally.failed(one.name, one.reason)
        return {
            "documents": orjson.dumps(tally.documents),
            "chunks": tally.chunks,
            "failures": orjson.dumps(tally.failures),
            "files": sum(piece.is_last for piece in pieces),
            "refusal": refusal,
        }


def ingest(corpus: Corpus, errand: Errand, workers: int) -> Progress:
    """Bring the documents of ``corpus`` in, and say how it goes; what became of them.

    Raises:
        Refused: the service takes none.
        RayError: the cluster does not work.
    """
    ray.init("auto", log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    progress = Progress(corpus.files)
    shares = [{"share": orjson.dumps(share)} for share in corpus.shares()]
    with telling(progress):
        for row in sent(shares, errand, workers).iter_rows() if shares else ():
            if row["refusal"]:
                raise Refused(row["refusal"])
            failures = [(name, reason) for name, reason in orjson.loads(row["failures"])]
            progress.add(Tally(Counter(orjson.loads(row["documents"])), row["chunks"], failures), row["files"])
    if progress.failures:
        # Once more, since of a RayJob's log its last lines stay.
        say(f"not in: {'; '.join(f'{name}: {reason}' for name, reason in progress.failures)}")
    return progress


def sent(shares: list[dict[str, bytes]], errand: Errand, workers: int) -> Dataset:
    """The work, which begins when its rows are read: of each share what became of it."""
    # A share is a block, and so a task: it is told of when it is done, and tried again by itself.
    rows = ray.data.from_items(shares, override_num_blocks=len(shares))
    pool = ActorPoolStrategy(size=workers, max_concurrent_calls_per_actor=errand.concurrency)
    return rows.map(Sender, fn_constructor_args=[errand], compute=pool, num_cpus=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring documents in; the exit status."""
    parser = arguments_of("serve_apps.rag.job")
    parser.add_argument("--workers", type=positive, required=True, help="that read and upload at a time")
    given = parser.parse_args(arguments)
    try:
        return run(given, partial(ingest, workers=given.workers))
    except RayError as error:
        say(f"FAILED {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
