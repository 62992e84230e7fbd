import time

import pytest
from openai.types import Batch as OpenAIBatch
from openai.types import FileObject

from serve_apps.batch.objects import Batch, File, is_id, made_at, new_id, result_id, window_s
from serve_apps.common.errors import InvalidRequest

BATCH = Batch(
    id="batch_1", endpoint="/v1/embeddings", input_file_id="file-1", completion_window="24h", created_at=1, expires_at=2
)


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("1h", 3600), ("30m", 1800), ("14d", 14 * 86400)])
def test_a_window_is_minutes_hours_or_days(text: str, seconds: int) -> None:
    assert window_s(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "0h", "h", "15d", "-1h", "1.5h", "24 h", None, 24])
def test_no_other_window_is_taken(text: object) -> None:
    with pytest.raises(InvalidRequest, match="minutes, hours or days up to 14d"):
        window_s(text)


def test_ids_are_ours_and_sort_by_age() -> None:
    first, second = new_id("batch_"), new_id("batch_")
    assert first[:18] <= second[:18]
    assert first != second
    assert is_id(first, "batch_")
    assert not is_id(first, "file-")
    assert not is_id("batch_../../../../../../../../../etc", "batch_")
    assert is_id(result_id(first, "output"), "file-")
    assert result_id(first, "output") == result_id(first, "output") != result_id(first, "errors")


def test_an_id_says_when_it_was_made() -> None:
    before = time.time()
    for made in (new_id("batch_"), result_id(new_id("batch_"), "output")):
        assert before - 0.001 <= made_at(made) <= time.time()


def test_what_is_shown_is_openais_and_no_more() -> None:
    shown = BATCH.model_copy(update={"results_kept_s": 3600, "ending": "completed"}).shown()
    assert set(shown) <= set(OpenAIBatch.model_fields)
    assert OpenAIBatch.model_validate(shown).status == "validating"
    file = File(id="file-1", bytes=1, created_at=1, expires_at=2, filename="a", purpose="batch")
    assert set(file.model_dump()) <= set(FileObject.model_fields)


def test_what_is_kept_is_all_of_it() -> None:
    batch = BATCH.model_copy(update={"results_kept_s": 3600, "ending": "expired"})
    assert Batch.model_validate_json(batch.model_dump_json()) == batch
