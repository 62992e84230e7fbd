from serve_apps.common.prices import Price, cost


def test_prices_are_per_million_tokens() -> None:
    assert cost(Price(prompt=2, completion=6), 1_000_000, 500_000) == 5
    assert cost(Price(completion=6), 1_000_000, 500_000) == 3
    assert cost(None, 1_000_000, 500_000) == 0
