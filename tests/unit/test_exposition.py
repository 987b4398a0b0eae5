"""Samples as text: what prometheus-client's own parsers read is what was meant."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from router.exposition import Family, asks_for_openmetrics, bound_text, rendered

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
EITHER = pytest.mark.parametrize("openmetrics", [False, True])


def read(*families: Family, openmetrics: bool):
    text = rendered(families, openmetrics=openmetrics)
    if openmetrics:
        return list(parse_openmetrics(text + "# EOF\n"))
    return list(parse(text))


@EITHER
@given(value=TEXT, other=TEXT)
def test_whatever_a_label_says_is_read_back(openmetrics, value, other):
    family = Family("gauge", "x", "X.", ["one", "two"])
    family.add([value, other], 1)
    (found,) = read(family, openmetrics=openmetrics)
    assert [sample.labels for sample in found.samples] == [{"one": value, "two": other}]


@EITHER
@pytest.mark.parametrize(
    "value", [0, 1, -1.5, 1e300, 1e-9, math.inf, -math.inf, 123456789012345678]
)
def test_a_number_is_read_back(openmetrics, value):
    family = Family("gauge", "x", "X.")
    family.add([], value)
    (found,) = read(family, openmetrics=openmetrics)
    assert float(found.samples[0].value) == float(value)


@EITHER
def test_no_number_is_no_number(openmetrics):
    family = Family("gauge", "x", "X.")
    family.add([], math.nan)
    (found,) = read(family, openmetrics=openmetrics)
    assert math.isnan(found.samples[0].value)


@EITHER
@pytest.mark.parametrize(
    ("kind", "sample"), [("counter", "x_total"), ("gauge", "x"), ("info", "x_info")]
)
def test_a_kind_brings_its_suffix(openmetrics, kind, sample):
    family = Family(kind, "x", "X.", ["a"])
    family.add(["b"], 1)
    (found,) = read(family, openmetrics=openmetrics)
    assert found.samples[0].name == sample


@EITHER
def test_a_histograms_buckets_add_up(openmetrics):
    family = Family("histogram", "x", "X.", ["a"])
    shape = [(bound_text(0.5), 1), (bound_text(1), 2), (bound_text(math.inf), 3)]
    family.add_histogram(["b"], shape, 7.5)
    (found,) = read(family, openmetrics=openmetrics)
    told = {(sample.name, sample.labels.get("le")): sample.value for sample in found.samples}
    assert told == {
        ("x_bucket", "0.5"): 1, ("x_bucket", "1.0"): 3, ("x_bucket", "+Inf"): 6,
        ("x_count", None): 6, ("x_sum", None): 7.5,
    }  # fmt: skip


OPENMETRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "asks"),
    [
        (OPENMETRICS, True),
        (f"{OPENMETRICS}; version=1.0.0", True),
        (f'text/plain;q=0.5, {OPENMETRICS} ; charset=utf-8; version="1.0.0";q=1', True),
        (f"{OPENMETRICS};version=0.0.1;q=0.75,{OPENMETRICS};version=1.0.0;q=0.5,*/*;q=0.1", True),
        (f"{OPENMETRICS};version=0.0.1", False),
        (f"{OPENMETRICS};version=2.0.0", False),
        (f"{OPENMETRICS};version=abc", False),
        ("text/plain;version=abc", False),
        ('text/plain; version="0.0.4"', False),
        (";,=;", False),
        ("", False),
    ],
)
def test_openmetrics_is_given_to_who_takes_the_version_that_is_written(accept, asks):
    assert asks_for_openmetrics(accept) is asks


@EITHER
def test_what_it_is_may_hold_any_sign(openmetrics):
    (found,) = read(Family("gauge", "x", 'back\\slash, "quote"'), openmetrics=openmetrics)
    assert found.documentation == 'back\\slash, "quote"'
