"""The page's pure modules, in the browser that runs them."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.browser


def run(page, module: str, code: str):
    """The value of `code`, in which `m` is a module of the page."""
    return page.evaluate(f"async () => {{ const m = await import('/dashboard/{module}'); {code} }}")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_read_however_the_stream_is_cut(page, size):
    stream = 'data: {"a": 1}\n\n: comment\n\ndata: x\ndata: y\r\n\r\nevent: error\ndata: z\n\n'
    code = f"""
      const reader = new m.EventReader(), found = [], text = {json.dumps(stream)};
      for (let at = 0; at < text.length; at += {size})
        found.push(...reader.take(text.slice(at, at + {size})));
      return found;"""
    assert run(page, "sse.js", code) == ['{"a": 1}', "x\ny", "z"]


def test_changes_are_put_on_top_of_the_whole(page):
    code = """
      const store = new m.Store();
      store.take({type: "all", at: 1, router: {"": {phase: "running"}}, services: {a: 1, b: 2},
                  models: {}, events: [], history: {number: 3, services: {a: {tokens_per_s: [1],
                  in_flight: [1], kv_cache: [1], ttft_p95: [1]}}}});
      const point = {tokens_per_s: 2, in_flight: 2, kv_cache: 2, ttft_p95: 2};
      store.take({type: "change", at: 2, services: {a: 9, b: null},
                  points: {number: 3, services: {a: point}}});
      store.take({type: "change", at: 3, points: {number: 4, services: {a: point, c: point}}});
      const trails = ["a", "c"].map((name) => store.series(name, "in_flight"));
      return [store.at, store.services, ...trails];"""
    assert run(page, "store.js", code) == [3, {"a": 9}, [1, 2], [None, 2]]


def test_a_sparkline_has_gaps_where_nothing_was_known(page):
    line, area = run(page, "spark.js", "return m.paths([1, 2, null, 3, 3], 4);")
    assert (line.count("M"), line.count("L")) == (2, 2)
    assert area.count("Z") == 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("count(950)", "950"), ("count(12345)", "12.3 k"), ("count(4.56e6)", "4.56 M"),
        ("count(999999)", "1 M"), ("count(0)", "0"), ("count(null)", "\u2013"),
        ("latency(0.083)", "83 ms"), ("latency(1.239)", "1.24 s"), ("latency(0.9999)", "1 s"),
        ("duration(59)", "59 s"), ("duration(12000)", "3 h 20 min"), ("duration(90000)", "1 d 1 h"),
        ("percent(0.384)", "38 %"),
    ],
)  # fmt: skip
def test_numbers_are_told_as_people_read_them(page, call, text):
    assert run(page, "format.js", f"return m.{call};").replace("\u202f", " ") == text
