"""The engine's model of time and batching, without a clock or a socket."""

from __future__ import annotations

import pytest

from router.simulator.engine import Engine, EngineBusy, Sequence, step_seconds
from router.simulator.settings import SimulatorSettings
from router.simulator.text import FinishReason, Script, words
from router.simulator.tokens import Prompt


class Sink:
    def __init__(self):
        self.tokens = []
        self.closed = False

    def emit(self, sequence, token):
        self.tokens.append(token)


def sequence(tokens=8, limit=4, text=b"a", output=None):
    prompt = Prompt.from_text((text * tokens * 4)[: tokens * 4], 16)
    return Sequence(prompt, Script(words(1), limit), output or Sink())


def run(engine):
    """Step until idle; the simulated seconds that took."""
    seconds = 0.0
    while (plan := engine.plan()) is not None:
        seconds += plan.duration_s
        engine.commit(plan)
    return seconds


def test_a_lone_sequence_takes_its_prefill_and_one_step_a_token():
    engine = Engine(SimulatorSettings(prefill_tokens_per_s=1000, decode_tokens_per_s=10))
    one = sequence(tokens=500, limit=5)
    engine.submit([one])
    # The first token comes out of the step that ends the prefill.
    assert run(engine) == pytest.approx(0.5 + 4 * 0.1)
    assert one.generated == 5
    assert one.output.tokens[-1].finish is FinishReason.LENGTH


def test_a_step_grows_with_the_batch_and_a_batch_is_faster_than_one_after_the_other():
    settings = SimulatorSettings(batch_slowdown=0.02, decode_tokens_per_s=50)
    assert step_seconds(settings, 1, 0) == pytest.approx(0.02)
    assert step_seconds(settings, 51, 0) == pytest.approx(0.04)
    assert step_seconds(settings, 0, 0) == 0


def test_sequences_over_the_batch_size_wait_their_turn():
    engine = Engine(SimulatorSettings(max_num_seqs=2))
    engine.submit([sequence() for _ in range(5)])
    assert (engine.num_running, engine.num_waiting) == (0, 5)
    engine.plan()
    assert (engine.num_running, engine.num_waiting) == (2, 3)
    run(engine)
    assert (engine.num_running, engine.num_waiting) == (0, 0)
    assert engine.counters.finished == {FinishReason.LENGTH: 5}


def test_a_full_kv_cache_keeps_sequences_waiting():
    engine = Engine(SimulatorSettings(kv_cache_tokens=160, block_size=16))
    engine.submit([sequence(tokens=96, text=b"a"), sequence(tokens=96, text=b"b")])
    engine.plan()
    assert (engine.num_running, engine.num_waiting) == (1, 1)
    assert engine.kv_cache_usage == pytest.approx(0.6)
    run(engine)
    assert engine.num_waiting == 0


def test_a_long_prompt_is_taken_in_chunks_while_others_go_on():
    engine = Engine(SimulatorSettings(max_num_batched_tokens=100))
    short, long = sequence(tokens=10, limit=9), sequence(tokens=350, limit=1)
    engine.submit([short])
    engine.commit(engine.plan())
    engine.submit([long])
    engine.commit(engine.plan())
    assert long.prefilled == 99
    assert short.generated == 2
    run(engine)
    assert long.generated == 1


def test_the_second_time_a_prompt_costs_only_its_last_block():
    engine = Engine(SimulatorSettings(block_size=16))
    first, second = sequence(tokens=64), sequence(tokens=64)
    engine.submit([first])
    cold = run(engine)
    engine.submit([second])
    warm = run(engine)
    assert (first.cached, second.cached) == (0, 48)
    assert warm < cold
    assert engine.counters.prefix_cache_queries == 128
    assert engine.counters.prefix_cache_hits == 48


def test_a_common_beginning_is_shared_and_nothing_more():
    engine = Engine(SimulatorSettings(block_size=16))
    common = b"x" * 128
    prompts = [Prompt.from_text(common + tail * 64, 16) for tail in (b"a", b"b")]
    sequences = [Sequence(p, Script(words(1), 1), Sink()) for p in prompts]
    for one in sequences:
        engine.submit([one])
        run(engine)
    assert sequences[1].cached == 32


def test_generated_tokens_are_counted_one_by_one():
    engine = Engine(SimulatorSettings())
    sequences = [sequence(limit=limit) for limit in (3, 5, 7)]
    engine.submit(sequences)
    engine.commit(engine.plan())
    assert engine.counters.generation_tokens == 3
    engine.abort([sequences[1]])
    run(engine)
    assert engine.counters.generation_tokens == 3 + 1 + 7
    assert engine.counters.generation_tokens == sum(len(s.output.tokens) for s in sequences)


def test_a_sequence_aborted_during_a_step_makes_no_token_at_its_end():
    engine = Engine(SimulatorSettings())
    one = sequence()
    engine.submit([one])
    plan = engine.plan()
    engine.abort([one])
    engine.commit(plan)
    assert one.output.tokens == []
    assert engine.counters.generation_tokens == 0
    assert engine.counters.finished == {}


def test_a_sequence_nobody_listens_to_ends_as_aborted():
    engine = Engine(SimulatorSettings())
    one = sequence()
    engine.submit([one])
    engine.commit(engine.plan())
    one.output.closed = True
    engine.commit(engine.plan())
    assert engine.num_running == 0
    assert engine.counters.generation_tokens == 1
    assert one.output.tokens[-1].finish is FinishReason.ABORT


@pytest.mark.parametrize(("limit", "sizes"), [(2, (1, 1, 1)), (2, (3,)), (0, (1,))])
def test_unfinished_sequences_over_the_limit_are_refused_whole(limit, sizes):
    engine = Engine(SimulatorSettings(max_num_queued_reqs=limit))
    for size in sizes[:-1]:
        engine.submit([sequence() for _ in range(size)])
    before = engine.num_waiting
    with pytest.raises(EngineBusy):
        engine.submit([sequence() for _ in range(sizes[-1])])
    assert engine.num_waiting == before
    assert engine.counters.rejected == 1


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [
        (Engine.pause, Engine.resume),
        (lambda engine: engine.sleep(1), Engine.wake_up),
    ],
)
def test_a_stopped_engine_ends_what_is_in_flight_and_keeps_what_comes_later(stop, go_on):
    engine = Engine(SimulatorSettings())
    before, later = sequence(), sequence(limit=3)
    engine.submit([before])
    engine.commit(engine.plan())
    stop(engine)
    assert before.output.tokens[-1].finish is FinishReason.ABORT
    engine.submit([later])
    assert engine.plan() is None
    go_on(engine)
    run(engine)
    assert later.generated == 3


def test_a_prompt_without_an_answer_ends_with_its_prefill():
    engine = Engine(SimulatorSettings(prefill_tokens_per_s=1000))
    sink = Sink()
    engine.submit([Sequence(Prompt.from_text(b"x" * 400, 16), None, sink)])
    assert run(engine) == pytest.approx(0.1)
    assert [token.finish for token in sink.tokens] == [FinishReason.STOP]
    assert engine.counters.generation_tokens == 0


@pytest.mark.parametrize("change", [{"models": ()}, {"time_scale": 0}, {"batch_slowdown": -1}])
def test_settings_that_make_no_engine_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SimulatorSettings(**change)


def test_the_key_is_not_shown_in_the_settings_repr():
    assert "hunter2" not in repr(SimulatorSettings(api_key="hunter2"))
