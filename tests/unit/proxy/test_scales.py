"""Weighing without serving: the pipeline's own reading and bound, and nothing taken."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from router.errors import InvalidValue, ModelNotFound
from router.openai.paths import INFERENCE_PATHS
from router.proxy.admit import Entry
from router.proxy.scales import Scales
from unit.proxy.meter_fakes import CHAT, CONTEXT, HELLO, House

ENTRIES = {CHAT: Entry(INFERENCE_PATHS[CHAT]), "/sql": Entry(INFERENCE_PATHS[CHAT], "m")}


@pytest.fixture
def house(monkeypatch) -> House:
    return House(monkeypatch, 100)


@pytest.fixture
def scales(house) -> Scales:
    return Scales(lambda: house.fleet.catalog, house.metering, lambda: ENTRIES)


def request(**fields) -> SimpleNamespace:
    body = json.dumps({"messages": HELLO, **fields}).encode()
    return SimpleNamespace(body=body, header=lambda _name: None)


def test_it_tells_the_model_the_engines_path_and_the_bound(scales):
    model, path, cost = scales.weigh(CHAT, request(model="m", max_tokens=5))
    assert (model, path, cost.completion_tokens) == ("m", CHAT, 5)
    assert 5 < cost.prompt_tokens < CONTEXT


def test_nothing_is_reserved_even_where_it_would_not_fit(house, scales):
    scales.weigh(CHAT, request(model="m"))
    assert house.day.reserved == 0


def test_a_named_route_brings_its_model(scales):
    assert scales.weigh("/sql", request())[:2] == ("m", CHAT)


def test_a_path_that_is_none_is_told(scales):
    with pytest.raises(InvalidValue) as caught:
        scales.weigh("/health", request(model="m"))
    assert caught.value.param == "path"


def test_a_model_that_is_none_is_told(scales):
    with pytest.raises(ModelNotFound):
        scales.weigh(CHAT, request(model="nobody"))
