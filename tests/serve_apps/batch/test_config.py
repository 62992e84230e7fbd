import pytest
from pydantic import ValidationError

from serve_apps.batch.config import BatchArgs

GATEWAY = "http://127.0.0.1:8000"


@pytest.mark.parametrize("storage", ["s3://bucket/prefix", "gs://bucket", "file:///mnt/batch"])
def test_a_storage_is_a_bucket_or_a_folder(storage: str) -> None:
    assert BatchArgs.model_validate({"gatewayUrl": GATEWAY, "storage": storage}).storage == storage


@pytest.mark.parametrize("storage", ["", "batch", "pvc://claim", "file://relative", "s3://id:secret@bucket/prefix"])
def test_nothing_else_is_and_no_secret_is_in_it(storage: str) -> None:
    with pytest.raises(ValidationError, match="storage"):
        BatchArgs.model_validate({"gatewayUrl": GATEWAY, "storage": storage})
