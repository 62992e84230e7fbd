"""bench/results/gateway.json for people: gateway.md, gateway.svg, and the tables in docs/choosing.md. Pure text."""

from collections.abc import Iterable
from html import escape
from math import log10
from typing import Any

from bench.gateway.results import KEYS, meets
from bench.gateway.stages import is_beside

#: Below this load nothing else is running; overlap shifts ratios by half.
QUIET_LOAD = 0.5
WANTED_ROUNDS = 5
#: What stands before the run that has one half of the figures.
PARTS = {"systems": "The mock model: ", "real": "SmolLM2: "}
BEGIN = "<!-- begin: python -m bench.gateway --report -->"
END = "<!-- end -->"
#: The columns of the table of systems: measure, heading, digits after the point.
COLUMNS = (
    ("cpu_us_per_token", "CPU µs/token", 1),
    ("proxy_cpu_us_per_token", "of which proxy", 1),
    ("ttft_ms_p50_c1", "TTFT ms, c=1 p50", 2),
    ("ttft_ms_p50_c32", "c=32 p50", 1),
    ("ttft_ms_p99_c32", "c=32 p99", 1),
    ("unary_per_s", "unary/s", 0),
    ("cpu_us_per_request", "CPU µs/request", 0),
    ("prompt_cpu_ns_per_byte", "CPU ns/prompt byte", 2),
    ("ceiling_tokens_per_s", "ceiling tok/s", 0),
    ("around_cpu_us_per_token", "rest of Ray µs/token", 1),
    ("model_cpu_us_per_token", "model µs/token", 1),
)
REAL_COLUMNS = (
    ("tokens_per_s_c8", "tok/s, c=8", 0),
    ("tokens_per_s_c32", "tok/s, c=32", 0),
    ("ttft_ms_p50_c1", "TTFT ms p50, c=1", 1),
    ("ttft_ms_p50_c8", "c=8", 1),
    ("ttft_ms_p50_c32", "c=32", 1),
    ("inter_token_ms_c1", "ms between tokens, c=1", 2),
)


def markdown(document: dict[str, Any]) -> str:
    """The whole report."""
    on_ray = document["model_on_ray"]
    parts = [
        "# What the gateway costs\n",
        f"{_sources(document)} "
        + ", ".join(f"{name} {release}" for name, release in document["versions"].items())
        + ".\n",
        _caution(document),
        _failures(document),
        "## Goals\n",
        _goals(KEYS, document, document["features_on"]) + "\n",
        "Both the gateway and vllm-router have the same model behind them in what is compared. Where ours is on Ray, "
        "whose replica takes its share of the cores, and vllm-router's is not:\n",
        _goals(on_ray["ours"], on_ray["ours"], on_ray["features"]) + "\n",
        "## Mock model\n",
        "Medians of the rounds; in brackets the spread, highest less lowest in percent of the median.\n",
        _systems(document["systems"], COLUMNS),
        "\n![CPU per streamed token](gateway.svg)\n",
        "## SmolLM2 on CPU\n",
        _systems(document["real"], REAL_COLUMNS) if document["real"] else "Not measured in this run.",
        "\n## Memory\n",
        _memory(document["memory_mb"]),
        "\n## What is counted\n",
        document["counted"],
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _runs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The run, and the one that has the other half of the figures, if they are of two."""
    return [document, *([document["earlier"]] if "earlier" in document else [])]


def _sources(document: dict[str, Any]) -> str:
    """What was measured where, in a sentence for each run."""
    said = []
    for run in _runs(document):
        machine = run["machine"]
        said.append(
            f"{PARTS.get(run.get('part', ''), '')}`{run['command']}`, {run['date']}, {run['rounds']} rounds, "
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, load {machine['load_before']} "
            "before the run."
        )
    return " ".join(said)


def _caution(document: dict[str, Any]) -> str:
    """What speaks against the figures; empty if nothing does."""
    doubts = []
    for run in _runs(document):
        load, rounds = run["machine"]["load_before"], run["rounds"]
        doubts += [f"the machine of this run was busy (load {load})"] if load > QUIET_LOAD else []
        doubts += [f"it had {rounds} of {WANTED_ROUNDS} rounds"] if rounds < WANTED_ROUNDS else []
    return f"**For their shape only: {' and '.join(doubts)}.**\n" if doubts else ""


def _failures(document: dict[str, Any]) -> str:
    lines = [f"- **{name} was left out**: {problem}" for name, problem in document["failures"].items()]
    return "\n".join(lines) + ("\n" if lines else "")


def _goals(keys: Iterable[str], plain: dict[str, Any], features: dict[str, Any]) -> str:
    rows = [["measure", "goal", "gateway", "auth + limits + metering on"]]
    for key in keys:
        what, goal = KEYS[key]
        values = (plain.get(key), features.get(key))
        rows.append([f"{what} (`{key}`)", goal, *(_with_mark(value, goal) for value in values)])
    return table(rows)


def _with_mark(value: float | None, goal: str) -> str:
    kept = meets(value, goal)
    if value is None or kept is None:
        return "-"
    return f"{value:g}" if kept else f"**{value:g}** (missed)"


def _systems(systems: dict[str, Any], columns: tuple[tuple[str, str, int], ...]) -> str:
    rows = [["", *(heading for _, heading, _ in columns)]]
    for system in systems.values():
        measures = system["measures"]
        cells = [_cell(measures.get(name), digits) for name, _, digits in columns]
        rows.append([system["title"], *cells])
    return table(rows)


def _cell(figure: dict[str, Any] | None, digits: int) -> str:
    if figure is None:
        return "-"
    return f"{figure['median']:,.{digits}f} ({figure['spread']:.0%})"


def _memory(systems: dict[str, Any]) -> str:
    rows = [["", "in the path MB", "model MB", "rest of Ray MB"]]
    groups = ("path", "model", "around")
    rows += [[system["title"], *(_megabytes(system.get(group)) for group in groups)] for system in systems.values()]
    return table(rows)


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ["-"] + ["-:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def choosing(document: dict[str, Any]) -> str:
    """The measured part of docs/choosing.md."""
    real, memory, mock = document["real"], document["memory_mb"], document["systems"]

    def cell(figures: dict[str, Any], system: str, measure: str, digits: int) -> str:
        figure = figures.get(system, {}).get("measures", {}).get(measure)
        return "-" if figure is None else f"{figure['median']:,.{digits}f}"

    def total(system: str) -> str:
        groups = memory.get(system)
        if groups is None:
            return "-"
        return f"{sum(groups.get(one, 0) for one in ('path', 'model', 'around')):,.0f}"

    ways = ("real:bare", "real:standalone", "real:ours")
    rows = [
        [
            "SmolLM2-135M on CPU",
            "standalone vLLM, asked directly",
            "standalone vLLM behind this gateway",
            "Ray Serve + vLLM behind it",
        ],
        *(
            [what, *(cell(real, way.split(":")[1], measure, digits) for way in ways)]
            for what, measure, digits in (
                ("tokens/s, 8 streams", "tokens_per_s_c8", 0),
                ("tokens/s, 32 streams", "tokens_per_s_c32", 0),
                ("time to first token, one stream, ms", "ttft_ms_p50_c1", 1),
                ("time to first token, 32 streams, ms", "ttft_ms_p50_c32", 0),
                ("time between tokens, one stream, ms", "inter_token_ms_c1", 2),
            )
        ),
        ["memory of everything, MB", *(total(way) for way in ways)],
    ]
    mock_ways = ("direct", "ours-standalone", "ours")
    mock_rows = [
        [
            "mock model, so that only the way there counts",
            "asked directly",
            "standalone behind this gateway",
            "on Ray behind it",
        ],
        *(
            [what, *(cell(mock, way, measure, digits) for way in mock_ways)]
            for what, measure, digits in (
                ("CPU on the way per streamed token, µs", "cpu_us_per_token", 1),
                ("time to first token, one stream, ms", "ttft_ms_p50_c1", 2),
                ("time to first token, 32 at once, p99, ms", "ttft_ms_p99_c32", 1),
                ("short requests per second", "unary_per_s", 0),
            )
        ),
    ]
    source = (
        f"Medians. {_sources(document)} Every figure, with its spread, and other gateways beside it: "
        "[bench/results/gateway.md](../bench/results/gateway.md)."
    )
    parts = [_caution(document).rstrip(), table(rows), table(mock_rows), source]
    return "\n\n".join(part for part in parts if part)


def with_table(page: str, document: dict[str, Any]) -> str:
    """``page`` with the part between its markers written anew.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{choosing(document)}\n{END}{after}"


BAR, GAP, LEFT, WIDTH = 22, 10, 300, 420


def svg(document: dict[str, Any]) -> str:
    """CPU per streamed token of every system as bars, on a logarithmic axis, with the ratio to vllm-router."""
    values = {
        system["title"]: system["measures"]["cpu_us_per_token"]["median"]
        for name, system in document["systems"].items()
        if name != "direct" and not is_beside(name) and "cpu_us_per_token" in system["measures"]
    }
    router = document["systems"].get("vllm-router", {}).get("measures", {}).get("cpu_us_per_token", {}).get("median")
    bars = sorted(((title, value) for title, value in values.items() if value > 0), key=lambda one: one[1])
    top = max((value for _, value in bars), default=10)
    height = 40 + len(bars) * (BAR + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 160} {height}" font-family="sans-serif" '
        'font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">CPU per streamed token, µs (logarithmic)</text>',
    ]
    for index, (title, value) in enumerate(bars):
        y = 34 + index * (BAR + GAP)
        width = max(WIDTH * log10(max(value, 1)) / log10(max(top, 10)), 2)
        colour = "#2b6cb0" if title.startswith("this gateway") else "#a0aec0"
        beside = f"{value:.1f}" + (f" = {value / router:.1f} x vllm-router" if router else "")
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(title)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + width + 6:.0f}" y="{y + 15}">{beside}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
