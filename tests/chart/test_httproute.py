from typing import Any

from tests.chart.render import notes, of_kind, render_chart, the

PARENTS = [{"name": "public", "namespace": "gateways", "sectionName": "https"}]


def values(**more: Any) -> dict[str, Any]:
    """A route whose controller may reach the gateway."""
    route = {"enabled": True, "parentRefs": PARENTS, "hostnames": ["llm.example.com"], **more}
    return {"httpRoute": route, "networkPolicy": {"clients": [{"namespaceSelector": {}}]}}


def paths(of: dict[str, Any]) -> dict[str, str]:
    (rule,) = the(render_chart(of), "HTTPRoute")["spec"]["rules"]
    return {match["path"]["value"]: match["path"]["type"] for match in rule["matches"]}


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "HTTPRoute") == {}


def test_it_takes_the_ingress_paths_to_the_serve_service() -> None:
    ingress = {"ingress": {"enabled": True, "host": "llm.example.com"}}
    objects = render_chart({**values(), **ingress})
    (by_ingress,) = the(objects, "Ingress")["spec"]["rules"]
    as_prefix = {"Prefix": "PathPrefix", "Exact": "Exact"}
    assert paths({**values(), **ingress}) == {
        path["path"]: as_prefix[path["pathType"]] for path in by_ingress["http"]["paths"]
    }
    (rule,) = the(objects, "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "llm-serving-serve-svc", "port": 8000}]


def test_the_playground_is_routed_where_it_is_served() -> None:
    found = paths({**values(), "gateway": {"playground": True}})
    assert (found["/"], found["/playground"]) == ("Exact", "PathPrefix")


def test_it_belongs_to_its_gateways_and_hosts() -> None:
    route = the(render_chart(values(annotations={"team": "ml"})), "HTTPRoute")
    assert route["metadata"]["annotations"] == {"team": "ml"}
    assert (route["spec"]["parentRefs"], route["spec"]["hostnames"]) == (PARENTS, ["llm.example.com"])


def test_a_long_stream_is_not_cut_unless_somebody_says_so() -> None:
    def timeouts(**more: Any) -> Any:
        return the(render_chart(values(**more)), "HTTPRoute")["spec"]["rules"][0].get("timeouts")

    assert timeouts() == {"request": "0s"}
    assert timeouts(timeouts={"request": "1800s", "backendRequest": "1800s"}) == {
        "request": "1800s",
        "backendRequest": "1800s",
    }
    assert timeouts(timeouts={"request": None}) is None


def test_it_follows_the_port() -> None:
    (rule,) = the(render_chart({**values(), "gateway": {"port": 9000}}), "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "llm-serving-serve-svc", "port": 9000}]


def test_the_notes_give_its_url() -> None:
    text = notes(values())
    assert "  URL=https://llm.example.com " in text
    assert "port-forward" not in text
