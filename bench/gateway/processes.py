"""What processes cost: CPU time from the scheduler's own account, and memory without counting shared pages twice."""

from collections.abc import Iterable, Mapping
from pathlib import Path

#: CPU time of threads in nanoseconds, by process and thread.
Threads = dict[tuple[int, str], int]


def cpu_ns(pids: Iterable[int]) -> Threads:
    """The CPU time that each thread of ``pids`` has had so far: the first field of /proc/<pid>/task/<tid>/schedstat."""
    found: Threads = {}
    for pid in pids:
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                found[pid, thread.name] = int((thread / "schedstat").read_text().split()[0])
            except (OSError, IndexError):  # it has ended
                continue
    return found


def spent_s(before: Threads, after: Threads) -> float:
    """Seconds of CPU between two accounts; a thread that began in between counts whole, one that ended not at all."""
    return sum(time - before.get(thread, 0) for thread, time in after.items()) / 1e9


def memory_mb(pids: Iterable[int]) -> float:
    """Proportional set size of ``pids`` in MB: a page that n processes share counts 1/n for each."""
    total_kb = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


class Account:
    """CPU time of groups of processes between its making and ``spent``."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._pids = {name: list(pids) for name, pids in groups.items()}
        self._before = {name: cpu_ns(pids) for name, pids in self._pids.items()}

    def spent(self) -> dict[str, float]:
        """Seconds of CPU of each group."""
        return {name: spent_s(self._before[name], cpu_ns(pids)) for name, pids in self._pids.items()}
