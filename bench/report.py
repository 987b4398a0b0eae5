"""Turns measurements into medians, ratios to nginx and a table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from statistics import median

UNITS = {"unary": "request", "closed": "request", "stream": "event"}
TITLES = {
    "unary": "Unary, 1 KiB in and out, at a fixed rate",
    "closed": "Unary, 1 KiB in and out, as fast as it goes (merges wake-ups: says little)",
    "stream": "Streams, each with an event every 10 ms",
}
MARKS = {"unary": 2.3, "stream": 1.5}


@dataclass(frozen=True)
class Measurement:
    """One window. CPU and delays in microseconds, `proxy_us` and `harness_us` a unit of work.

    `delay` is a request's answer time, or an event's time from the backend's write to the client's
    read; `first` the time to a stream's first event; `foreign_percent` the share of the proxy's
    core that others took; `late` the requests that found no free connection when they were due.
    """

    round: int
    mode: str
    target: str
    units: int
    per_second: float
    proxy_us: float
    harness_us: float
    foreign_percent: float
    delay_p50_us: float
    delay_p99_us: float
    first_p50_us: float
    late: int


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds of one mode and target; `proxy_us` also with its spread.

    `times_nginx` is the median of the rounds' own ratios, for what disturbs a round disturbs all
    its targets; it is NaN where nginx was not measured.
    """

    mode: str
    target: str
    rounds: int
    proxy_us: float
    proxy_us_min: float
    proxy_us_max: float
    times_nginx: float
    harness_us: float
    delay_p50_us: float
    delay_p99_us: float
    first_p50_us: float
    per_second: float
    foreign_percent: float
    late: float


def summarise(rows: Sequence[Measurement]) -> list[Summary]:
    """One summary a mode and target, in the order in which they first appear."""
    pairs = dict.fromkeys((row.mode, row.target) for row in rows)
    return [_summary(rows, mode, target) for mode, target in pairs]


def _summary(rows: Sequence[Measurement], mode: str, target: str) -> Summary:
    mine = [row for row in rows if (row.mode, row.target) == (mode, target)]
    nginx = {row.round: row.proxy_us for row in rows if (row.mode, row.target) == (mode, "nginx")}

    def middle(value: Callable[[Measurement], float]) -> float:
        return median(map(value, mine))

    return Summary(
        mode=mode,
        target=target,
        rounds=len(mine),
        proxy_us=middle(lambda row: row.proxy_us),
        proxy_us_min=min(row.proxy_us for row in mine),
        proxy_us_max=max(row.proxy_us for row in mine),
        times_nginx=_median_or_nan(
            row.proxy_us / nginx[row.round] for row in mine if row.round in nginx
        ),
        harness_us=middle(lambda row: row.harness_us),
        delay_p50_us=middle(lambda row: row.delay_p50_us),
        delay_p99_us=middle(lambda row: row.delay_p99_us),
        first_p50_us=middle(lambda row: row.first_p50_us),
        per_second=middle(lambda row: row.per_second),
        foreign_percent=middle(lambda row: row.foreign_percent),
        late=middle(lambda row: row.late),
    )


def _median_or_nan(values: Iterable[float]) -> float:
    found = list(values)
    return median(found) if found else float("nan")


def progress(row: Measurement) -> str:
    """One line while the rounds go on."""
    return (
        f"round {row.round} {row.mode:6} {row.target:7} {row.per_second:9,.0f}/s  "
        f"proxy {row.proxy_us:6.2f} µs  others on its core {row.foreign_percent:4.1f} %"
        + (f"  late {row.late}" if row.late else "")
    )


def tables(summaries: Sequence[Summary]) -> str:
    """A Markdown table a mode, and whether the marks are reached."""
    modes = dict.fromkeys(summary.mode for summary in summaries)
    return "\n\n".join(_table(mode, [s for s in summaries if s.mode == mode]) for mode in modes)


def _table(mode: str, summaries: Sequence[Summary]) -> str:
    unit = UNITS[mode]
    direct = next((s for s in summaries if s.target == "direct"), None)
    lines = [
        f"{TITLES[mode]}:\n",
        _row(_titles(unit)),
        _row(["---"] * len(_titles(unit))),
        *(_line(summary, direct) for summary in summaries),
        *(_mark(summary) for summary in summaries if summary.target == "router"),
    ]
    return "\n".join(lines)


def _titles(unit: str) -> list[str]:
    return [
        "",
        f"proxy: CPU µs/{unit}, median (min … max)",
        "ratio to nginx",
        f"client and backends: CPU µs/{unit}",
        "p50 µs",
        "added to direct",
        "p99 µs",
        "TTFT p50 µs",
        f"{unit}s/s",
        "others on its core",
    ]


def _line(row: Summary, direct: Summary | None) -> str:
    added = row.delay_p50_us - direct.delay_p50_us if direct else float("nan")
    cells = [
        row.target,
        f"{row.proxy_us:.1f} ({row.proxy_us_min:.1f} … {row.proxy_us_max:.1f})"
        if row.proxy_us
        else "none",
        _number(row.times_nginx if row.proxy_us else float("nan"), ".2f"),
        _number(row.harness_us, ".1f"),
        _number(row.delay_p50_us, ".0f"),
        _number(added, ".0f"),
        _number(row.delay_p99_us, ".0f"),
        _number(row.first_p50_us, ".0f"),
        _number(row.per_second, ",.0f"),
        f"{row.foreign_percent:.0f} %",
    ]
    return _row(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float, form: str) -> str:
    return "-" if isnan(value) else format(value, form)


def _mark(row: Summary) -> str:
    mark = MARKS.get(row.mode)
    if mark is None or isnan(row.times_nginx):
        return ""
    verdict = "reached" if row.times_nginx <= mark else "MISSED"
    unit = UNITS[row.mode]
    return f"\nMark, at most {mark} times nginx a {unit}: {verdict} ({row.times_nginx:.2f})."


def as_json(row: Measurement | Summary) -> dict[str, object]:
    """Its fields, with null for NaN, which JSON does not know."""
    return {
        key: None if isinstance(value, float) and isnan(value) else value
        for key, value in asdict(row).items()
    }
