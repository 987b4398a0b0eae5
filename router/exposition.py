"""Families of samples as text: the Prometheus format 0.0.4 and OpenMetrics 1.0.

prometheus-client builds an object and a mapping a sample; with fifty services that holds up the
event loop for a tenth of a second at every scrape. Here a sample is a line from the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]
_SUFFIX = {"counter": "_total", "info": "_info"}
_TEXT_TYPE = {"info": "gauge"}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_OPENMETRICS_VERSIONS = frozenset({"version=1.0.0", 'version="1.0.0"'})


class Family:
    """One metric with all its samples.

    Args:
        kind: of the metric.
        name: without the suffix that its kind brings: `_total`, `_info`.
        text: what it is, for people.
        labels: names.

    Attributes:
        lines: one for each sample, each ended by LF.
    """

    __slots__ = ("_labels", "_sample", "kind", "lines", "name", "text")

    def __init__(self, kind: Kind, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self._labels = labels
        self._sample = name + _SUFFIX.get(kind, "")
        self.lines: list[str] = []

    def add(self, values: Sequence[str], value: float) -> None:
        """Add a sample; `values` are the labels'."""
        self.lines.append(f"{self._sample}{_braces(self._labels, values)} {_number(value)}\n")

    def add_histogram(self, values: Sequence[str], shape: Shape, total: float) -> None:
        """Add a histogram's samples; `values` are the labels', see `Histogram.shape`."""
        inside = _pairs(self._labels, values)
        start = f"{self.name}_bucket{{{inside}{',' if inside else ''}le="
        running = 0
        lines = self.lines
        for bound, count in shape:
            running += count
            lines.append(f"{start}{bound} {running}\n")
        braces = f"{{{inside}}}" if inside else ""
        lines.append(f"{self.name}_count{braces} {running}\n")
        lines.append(f"{self.name}_sum{braces} {_number(total)}\n")

    def head(self, *, openmetrics: bool) -> str:
        """The two lines before the samples."""
        if openmetrics:
            name, kind = self.name, str(self.kind)
        else:
            name, kind = self._sample, _TEXT_TYPE.get(self.kind, self.kind)
        return f"# HELP {name} {_escaped(self.text)}\n# TYPE {name} {kind}\n"


Shape = Iterable[tuple[str, int]]
"""A histogram's buckets: (`"bound"}` as it ends a line's labels, count in this bucket alone)."""


def asks_for_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header names OpenMetrics, in the version written here or in any."""
    for media in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in media.split(";"))
        versions = {each for each in parameters if each.startswith("version=")}
        if kind == "application/openmetrics-text" and versions <= _OPENMETRICS_VERSIONS:
            return True
    return False


def rendered(families: Iterable[Family], *, openmetrics: bool) -> str:
    """All of them as text; OpenMetrics without its last line, `# EOF`."""
    parts: list[str] = []
    for family in families:
        parts.append(family.head(openmetrics=openmetrics))
        parts += family.lines
    return "".join(parts)


def bound_text(bound: float) -> str:
    """A bucket's upper bound as `Shape` wants it."""
    return f'"{_number(float(bound))}"}}'


def _pairs(labels: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(
        [f'{name}="{_quoted(value)}"' for name, value in zip(labels, values, strict=True)]
    )


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    return f"{{{_pairs(labels, values)}}}" if labels else ""


def _quoted(value: str) -> str:
    if value.isidentifier():
        return value
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
