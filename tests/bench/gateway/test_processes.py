import os
import subprocess
import sys
import time

from bench.gateway.processes import Account, cpu_ns, memory_mb, spent_s


def test_what_was_spent_is_counted_by_thread() -> None:
    before = {(1, "1"): 1_000_000_000, (1, "2"): 5_000_000_000}
    # Thread 1 ran on, thread 2 has ended, thread 3 has begun.
    after = {(1, "1"): 1_500_000_000, (1, "3"): 250_000_000}
    assert spent_s(before, after) == 0.75


def test_work_is_seen_in_the_group_that_does_it() -> None:
    account = Account({"working": [os.getpid()], "absent": []})
    spent = account.spent()
    until_s = time.process_time() + 5  # the scheduler keeps its account in ticks of some milliseconds
    while not spent["working"] and time.process_time() < until_s:
        spent = account.spent()
    assert spent["working"] > 0
    assert spent["absent"] == 0


def test_a_process_that_has_ended_costs_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu_ns([process.pid]) == {}
    assert memory_mb([process.pid]) == 0


def test_memory_is_added_up() -> None:
    assert memory_mb([os.getpid()]) > 1
