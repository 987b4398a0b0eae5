"""What an engine's own `/metrics` tells, and whether it gets on with its work."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.load import EngineLoad, Progress, next_progress, parse_load
from support.recordings import FOLDER, load

RUNNING = b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'


def recorded(name: str) -> bytes:
    return load(FOLDER / f"{name}.response.http").body


def test_a_recorded_idle_engine():
    found = parse_load(recorded("http/meta_metrics"))
    assert found is not None
    assert (found.running, found.waiting, found.awake) == (0, 0, True)
    assert found.generated_tokens > 0
    assert found.prompt_tokens > 0


def test_a_recorded_busy_engine_counts_sequences():
    """Three streams, one of them with n=2."""
    found = parse_load(recorded("http/busy_metrics"))
    assert found is not None
    assert found.running == 4
    assert 0 < found.kv_cache_usage < 1


def test_a_recorded_engine_of_several_processes_is_read():
    found = parse_load(recorded("variants/api_server_count_2/metrics_3_running"))
    assert found is not None
    assert found.running == 3


def test_the_openmetrics_form_reads_as_the_plain_one():
    plain, open_ = (
        parse_load(recorded("http/meta_metrics")),
        parse_load(recorded("http/meta_metrics_openmetrics")),
    )
    assert plain is not None
    assert open_ is not None
    assert plain.awake == open_.awake
    assert plain.running == open_.running


def test_processes_are_summed_and_the_fullest_cache_counts():
    text = (
        b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n'
        b'vllm:num_requests_waiting{engine="0"} 4\nvllm:num_requests_waiting{engine="1"} 0\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        b'vllm:generation_tokens_total{engine="0"} 1e3\nvllm:prompt_tokens_total 7\n'
    )
    assert parse_load(text) == EngineLoad(3, 4, 0.75, 1000, 7, True)


@pytest.mark.parametrize(
    ("rows", "awake"), [([1], True), ([0], False), ([1, 0], False), ([0, 1], False)]
)
def test_one_process_asleep_is_an_engine_asleep(rows, awake):
    states = b"".join(
        b'vllm:engine_sleep_state{engine="%d",sleep_state="awake"} %d\n'
        b'vllm:engine_sleep_state{engine="%d",sleep_state="discard_all"} 0\n' % (at, row, at)
        for at, row in enumerate(rows)
    )
    found = parse_load(RUNNING + states)
    assert found is not None
    assert found.awake is awake


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"# HELP vllm:num_requests_running x\n",
        b"vllm:num_requests_running_by_lora 3\n",
        b"other:num_requests_running 3\n",
        b"vllm:num_requests_waiting 3\n",
        b"vllm:num_requests_running NaN\n",
        b"process_cpu_seconds_total 1\n",
    ],
)
def test_what_is_no_vllm_exposition_tells_nothing(text):
    assert parse_load(text) is None


def test_carriage_returns_do_no_harm():
    assert parse_load(b"vllm:num_requests_running 3\r\n") == EngineLoad(running=3)


def test_a_model_may_have_any_name():
    found = parse_load(b'vllm:num_requests_running{engine="0",model_name="a}b"} 3.0\n')
    assert found == EngineLoad(running=3)


def test_a_number_beyond_all_floats_is_not_an_accident():
    """Whoever reads it expects None or ValueError; anything else ends the probing of a service."""
    with contextlib.suppress(ValueError):
        assert parse_load(b"vllm:num_requests_running 1e999\n") is None


def test_nor_are_two_that_add_up_to_one():
    with contextlib.suppress(ValueError):
        parse_load(b'vllm:num_requests_running{engine="%d"} 1e308\n' * 2 % (0, 1))


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_no_bytes_raise_but_as_a_bad_number_does(junk, value):
    try:
        parse_load(junk + b"\nvllm:num_requests_running " + value.replace(b"e", b"") + b"\n")
    except ValueError:
        assert any(each in value for each in b".+-E")


# -- progress ----------------------------------------------------------------------------------

BUSY = EngineLoad(running=2, generated_tokens=10, prompt_tokens=5)


def test_the_first_reading_starts_the_watch():
    assert next_progress(Progress(), BUSY, 7.0) == Progress(10, 5, 7.0)


@pytest.mark.parametrize("counters", [(11, 5), (10, 6), (0, 0)])
def test_a_counter_that_moved_either_way_is_progress(counters):
    """It falls when the engine starts anew; prefill moves the prompt's alone."""
    load = EngineLoad(2, 0, 0.0, *counters)
    assert next_progress(Progress(10, 5, 1.0), load, 9.0) == Progress(*counters, 9.0)


def test_no_token_while_it_has_work_is_no_progress():
    assert next_progress(Progress(10, 5, 1.0), BUSY, 9.0) == Progress(10, 5, 1.0)


def test_without_work_it_is_never_late():
    idle = EngineLoad(0, 0, 0.0, 10, 5)
    assert next_progress(Progress(10, 5, 1.0), idle, 9.0).since == 9.0
