from serve_apps.gateway.exchange import Exchange


def test_a_client_that_leaves_does_not_change_the_status_it_was_sent() -> None:
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.began(200)
    exchange.client_gone()
    assert (exchange.status, exchange.broken) == (200, True)
