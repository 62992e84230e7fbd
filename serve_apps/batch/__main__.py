"""``python -m serve_apps.batch run --input in.jsonl --output out.jsonl --url http://gateway:8000`` answers a file.

The file has the lines of a batch; the API key is the environment's OPENAI_API_KEY. Lines that OUTPUT has are not sent
again, so a run that was broken off is simply started once more. Exit status: 0, all lines are answered; 1, some failed
(they are in the errors' file, and the next run tries them again); 2, nothing was sent.

``python -m serve_apps.batch job`` is what a RayJob runs: see `serve_apps.batch.job`.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serve_apps.batch.lines import InputWrong
from serve_apps.batch.offline import Progress, Run, answer
from serve_apps.common import logging
from serve_apps.common.errors import ServingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer a file of requests."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.batch", description="Answer a file of requests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("job", help="answer the lines of a RayJob, whose arguments are in the environment")
    run_parser = commands.add_parser("run", help="answer each line of a file")
    run_parser.add_argument("--input", type=Path, required=True, help="lines of requests, as for a batch")
    run_parser.add_argument("--output", type=Path, required=True, help="their answers; what it has is not asked again")
    run_parser.add_argument("--errors", type=Path, help="lines that failed (OUTPUT.errors)")
    run_parser.add_argument("--url", required=True, help="the gateway, or any server with OpenAI's API")
    run_parser.add_argument("--concurrency", type=_positive, default=16, help="lines at a time (16)")
    run_parser.add_argument("--timeout", type=_positive, default=900, help="seconds an answer may take (900)")
    given = parser.parse_args(arguments)
    return _job() if given.command == "job" else _run(given)


def _job() -> int:
    """As the driver of a RayJob. A failed line is no failure of the job: its record is in the errors."""
    from serve_apps.batch import job  # which brings Ray, that a file can do without

    logging.configure()
    try:
        record = job.run_from_environment()
    except InputWrong as wrong:
        _tell(wrong, "the input")
        return 2
    _say(f"{record.request_counts.completed} answered, {record.request_counts.failed} failed")
    return 0


def _run(given: argparse.Namespace) -> int:
    errors = given.errors or given.output.with_name(f"{given.output.name}.errors")
    with contextlib.closing(Run(given.input, given.output, errors)) as run:
        try:
            run.prepare()
        except InputWrong as wrong:
            _tell(wrong, given.input)
            return 2
        except OSError as error:
            _say(f"{error.filename}: {error.strerror}")
            return 2
        return _answer(run, given, errors)


def _answer(run: Run, given: argparse.Namespace, errors: Path) -> int:
    progress = Progress(run)
    end = "\x1b[K\r" if sys.stderr.isatty() else "\n"  # a shorter one leaves nothing of the one before
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    try:
        asyncio.run(answer(run, given.url, key, given.concurrency, given.timeout, lambda: _say(str(progress), end)))
    except ServingError as error:
        _say(error.message)
        return 2
    except KeyboardInterrupt:
        _say(f"{progress}; broken off, the same command goes on")
        return 130
    except OSError as error:
        _say(f"{progress}; {error.strerror}; the same command goes on")
        return 1
    _say(f"{progress}; answers in {given.output}" + (f", failures in {errors}" if run.failed else ""))
    return 1 if run.failed else 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1, not {text!r}")
    return int(text)


def _tell(wrong: InputWrong, where: object) -> None:
    for error in wrong.errors:
        _say(f"{where}, line {error.line}: {error.message}" if error.line else error.message)


def _say(text: str, end: str = "\n") -> None:
    sys.stderr.write(f"{text}{end}")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
