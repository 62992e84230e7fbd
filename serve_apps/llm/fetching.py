"""The files of a LoRA adapter, brought from where they are to a folder of the replica's own.

What was checked there is what the engine loads, also when it loads it again: vLLM drops adapters that it has no room
for, reads them anew in the middle of a step, and ends if it cannot.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from serve_apps.llm.peft import CONFIG, WEIGHTS
from serve_apps.llm.sources import resolve

_BLOCK_BYTES = 1024 * 1024
_Open = Callable[[str], AbstractContextManager[BinaryIO]]


def fetch(source: str, subfolder: str, into: Path) -> str:
    """Copy the adapter at ``source``, or in ``subfolder`` of it, and nothing but its two files; a digest of both.

    Weights in Python's own format (``adapter_model.bin``) are never fetched: reading them can run code.

    Raises:
        FileNotFoundError: one of the files is not there; it is the error's ``filename``.
        OSError: they cannot be read now.
    """
    opened = _on_the_hub(source, subfolder) if source.startswith("hf://") else _in_a_folder(source, subfolder)
    into.mkdir(parents=True)
    digest = hashlib.blake2b(digest_size=16)
    for file in (CONFIG, WEIGHTS):
        try:
            with opened(file) as original, (into / file).open("xb") as copy:
                while block := original.read(_BLOCK_BYTES):
                    digest.update(block)
                    copy.write(block)
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, "no such file", file) from error
    return digest.hexdigest()


def _in_a_folder(source: str, subfolder: str) -> _Open:
    from pyarrow import fs

    location = resolve(source).location
    files, base = fs.FileSystem.from_uri(location) if "://" in location else (fs.LocalFileSystem(), location)
    folder = f"{base}/{subfolder}".rstrip("/")
    return lambda file: files.open_input_stream(f"{folder}/{file}", compression=None)


def _on_the_hub(source: str, subfolder: str) -> _Open:
    from huggingface_hub import errors, hf_hub_download

    repository = resolve(source)

    def opened(file: str) -> AbstractContextManager[BinaryIO]:
        try:
            path = hf_hub_download(repository.location, file, subfolder=subfolder or None, revision=repository.revision)
        except errors.LocalEntryNotFoundError as error:  # the Hub was not reached, whatever it has
            raise OSError(f"{source} cannot be reached") from error
        except (errors.RemoteEntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise FileNotFoundError(str(error)) from error
        return Path(path).open("rb")

    return opened
