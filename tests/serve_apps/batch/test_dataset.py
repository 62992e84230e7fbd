"""What a process of Ray Data's does for itself; how they work together is in tests/serve/test_batch.py."""

import subprocess
import sys

THREADS = """
import os, threading
from serve_apps.batch.dataset import stand_back

end = threading.Event()
def begin():
    threading.Thread(target=end.wait).start()

begin()
stand_back()
begin()
print({os.sched_getscheduler(int(thread)) == os.SCHED_IDLE for thread in os.listdir("/proc/self/task")})
end.set()
"""


def test_no_thread_of_it_has_a_core_that_another_process_wants() -> None:
    assert subprocess.check_output([sys.executable, "-c", THREADS], text=True).strip() == "{True}"
