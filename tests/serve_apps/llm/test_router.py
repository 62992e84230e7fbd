"""The deployment that tells HAProxy which replica of a model is next."""

import subprocess
import sys

#: What a replica of a deployment does first, and whether PyTorch is there then, and after who needs it has come.
REPLICA = """
import sys
from ray import cloudpickle
router = cloudpickle.loads(bytes.fromhex(sys.argv[1]))
print(router.__module__, router.__name__, "torch" in sys.modules)
import torch
print(hasattr(torch, "nn"))
"""
#: Prints the pickled class.
BUILD = """
from ray import cloudpickle
from serve_apps.llm.router import LLMRouter
print(cloudpickle.dumps(LLMRouter).hex())
"""


def test_a_replica_comes_to_it_without_torch() -> None:
    pickled = told(BUILD).strip()
    assert told(REPLICA, pickled) == "serve_apps.llm.router LLMRouter False\nTrue\n"


def told(program: str, *arguments: str) -> str:
    """What a program prints."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout
