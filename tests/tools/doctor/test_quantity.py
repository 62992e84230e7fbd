import pytest

from tools.doctor.quantity import amounts, quantity, spelled


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4", 4),
        (0.5, 0.5),
        ("500m", 0.5),
        ("1Ki", 1024),
        ("16Gi", 16 * 2**30),
        ("1G", 1e9),
        ("1e3", 1000),
        ("12E", 12e18),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(written: str | float, meant: float) -> None:
    assert quantity(written) == pytest.approx(meant)


@pytest.mark.parametrize("written", ["", "Gi", "4 Gi", "4gi", "many"])
def test_what_is_none_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=f"not a quantity: '{written}'"):
        quantity(written)


def test_a_block_may_be_missing() -> None:
    assert amounts(None) == {}
    assert amounts({"cpu": "250m"}) == {"cpu": 0.25}


@pytest.mark.parametrize(
    ("resource", "amount", "told"),
    [
        ("requests.memory", 1.5 * 2**30, "1.5Gi"),
        ("gp3.storageclass.storage.k8s.io/requests.storage", 2**30, "1Gi"),
        ("gp3.storageclass.storage.k8s.io/persistentvolumeclaims", 3, "3"),
        ("cpu", 10.5, "10.5"),
    ],
)
def test_bytes_are_told_in_gi(resource: str, amount: float, told: str) -> None:
    assert spelled(resource, amount) == told
