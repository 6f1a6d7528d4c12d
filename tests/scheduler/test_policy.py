"""The policy as a table: facts in, decisions out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.queue_placement import Placement
from scheduler.caps import within_caps
from scheduler.facts import LOAD_S, Decision, EngineDemand, Facts, RendererFact, Work
from scheduler.policy import decide, placement_of
from scheduler.prices import BUSY, DEFER_MS, STALE, WARM, deferral_ms
from scheduler.shares import targets


def demand(engine: str, units: int, cost: float = -1, priority: int = 4, **more: Any):
    """An engine with work of one tenant: a hundred device-seconds a unit, unless said."""
    cost = 100.0 * units if cost < 0 else cost
    work = (Work(more.pop("tenant", "ann"), priority, units, cost),) if units else ()
    return EngineDemand(engine, work, **more)


def renderers(*engines: str) -> list[RendererFact]:
    return [RendererFact(f"{engine}{number}", engine) for number, engine in enumerate(engines)]


STARVED = {"starved_ms": DEFER_MS}
#: Work for one more renderer that is just worth an idle renderer's slot, now and in the end, and a
#: busy one's.
WARM_S, STALE_S, BUSY_S = WARM * LOAD_S, STALE * LOAD_S, BUSY * 2 * LOAD_S


@pytest.mark.parametrize(
    ("case", "facts", "start", "drain"),
    [
        ("nothing to do", Facts(4), {}, ()),
        ("a backlog fills the slots", Facts(4, [demand("a", 9)]), {"a": 4}, ()),
        ("never more renderers than units", Facts(4, [demand("a", 2)]), {"a": 2}, ()),
        ("no slot, no start", Facts(0, [demand("a", 9)]), {}, ()),
        ("no slot yet, nobody goes", Facts(0, [demand("a", 9)], renderers("a", "a")), {}, ()),
        (
            "what is there counts",
            Facts(4, [demand("a", 9)], renderers("a", "a", "a")),
            {"a": 1},
            (),
        ),
        (
            "two engines of a tenant share by its work",
            Facts(4, [demand("a", 30), demand("b", 10)]),
            {"a": 3, "b": 1},
            (),
        ),
        (
            "two tenants share alike, whatever they have to do",
            Facts(4, [demand("a", 3000), demand("b", 10, tenant="bob")]),
            {"a": 2, "b": 2},
            (),
        ),
        (
            "or by their weights",
            Facts(
                8, [demand("a", 99), demand("b", 99, tenant="bob")], weights={"ann": 3, "bob": 1}
            ),
            {"a": 6, "b": 2},
            (),
        ),
        (
            "what one cannot use the others get",
            Facts(8, [demand("a", 99), demand("b", 1, tenant="bob")]),
            {"a": 7, "b": 1},
            (),
        ),
        (
            "renderers enough to end in time, and no more",
            Facts(9, [demand("a", 30, 900.0)], drain_s=300),
            {"a": 3},
            (),
        ),
        (
            "at least so many",
            Facts(9, [demand("a", 30, 10.0)], drain_s=300, least=2),
            {"a": 2},
            (),
        ),
        ("at most so many", Facts(9, [demand("a", 30)], most=4), {"a": 4}, ()),
        (
            "the urgent engine is first where slots are few",
            Facts(1, [demand("a", 30), demand("b", 1, priority=9)]),
            {"b": 1},
            (),
        ),
        (
            "it gets what it can use before others get one",
            Facts(3, [demand("a", 30), demand("b", 2, priority=9)]),
            {"b": 2, "a": 1},
            (),
        ),
        (
            "an engine is as urgent as the part of its work that is",
            Facts(
                3,
                [
                    EngineDemand("a", (Work("ann", 9, 1, 1.0), Work("ann", 0, 90, 9e3))),
                    demand("b", 9, priority=5),
                ],
            ),
            {"a": 1, "b": 2},
            (),
        ),
        (
            "who was passed over grows urgent",
            Facts(1, [demand("a", 30, priority=6), demand("b", 30, starved_ms=900_000)]),
            {"b": 1},
            (),
        ),
        (
            "an idle renderer stays warm",
            Facts(2, [demand("a", 0, idle_ms=1000)], renderers("a")),
            {},
            (),
        ),
        (
            "and leaves when it has been idle too long",
            Facts(2, [demand("a", 0, idle_ms=300_000)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "but for the least that is kept",
            Facts(3, [demand("a", 0, idle_ms=300_000)], renderers("a", "a"), least=1),
            {},
            ("a1",),
        ),
        (
            "or when another engine needs its slot, however little it is",
            Facts(1, [demand("a", 0, idle_ms=1000), demand("b", 1, 0.1)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "a free slot is taken before a warm renderer is sent away",
            Facts(2, [demand("a", 0, idle_ms=1000), demand("b", 1)], renderers("a")),
            {"b": 1},
            (),
        ),
        (
            "a slot that is being freed is waited for, nobody else is drained",
            Facts(
                2,
                [demand("b", 1), demand("a", 0, idle_ms=1)],
                [RendererFact("a0", "a", draining=True), RendererFact("a1", "a")],
            ),
            {},
            (),
        ),
        (
            "a hog gives a slot to a newcomer with enough to do",
            Facts(2, [demand("a", 50), demand("b", 1, BUSY_S)], renderers("a", "a")),
            {},
            ("a1",),
        ),
        (
            "but not for less than the swap costs",
            Facts(2, [demand("a", 50), demand("b", 1, BUSY_S - 1)], renderers("a", "a")),
            {},
            (),
        ),
        (
            "until it has waited long enough",
            Facts(2, [demand("a", 50), demand("b", 1, 1.0, **STARVED)], renderers("a", "a")),
            {},
            ("a1",),
        ),
        (
            "of two that give their slot the one with the same base",
            Facts(
                2,
                [demand("b", 1, base_key="x"), demand("a", 0), demand("c", 0, base_key="x")],
                renderers("a", "c"),
            ),
            {},
            ("c1",),
        ),
        (
            "the one that has nothing in hand",
            Facts(
                2,
                [demand("a", 50), demand("b", 1)],
                [RendererFact("a0", "a", idle=True), RendererFact("a1", "a")],
            ),
            {},
            ("a0",),
        ),
        (
            "units in flight keep their renderers",
            Facts(4, [demand("a", 2)], renderers("a", "a", "a")),
            {},
            (),
        ),
        (
            "an equal engine does not lose its slot to one that has a little more to do",
            Facts(1, [demand("a", 30), demand("b", 31)], renderers("a")),
            {},
            (),
        ),
        (
            "until the other has waited a whole turn",
            Facts(1, [demand("a", 30), demand("b", 3, **STARVED)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "a more urgent one takes the slot at once",
            Facts(1, [demand("a", 30), demand("b", 1, 0.1, priority=9)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "the rest of the slots does not change hands for a little either",
            Facts(3, [demand("a", 30), demand("b", 40)], renderers("a", "a", "b")),
            {},
            (),
        ),
        (
            "a tenant gets no renderers for what it may not hold",
            Facts(9, [demand("a", 50), demand("b", 9, tenant="bob")], caps={"ann": 2}),
            {"a": 2, "b": 7},
            (),
        ),
        (
            "over all engines: the one with more to do, unless the other is more urgent",
            Facts(
                9, [demand("a", 50), demand("b", 20), demand("c", 1, priority=9)], caps={"ann": 3}
            ),
            {"c": 1, "a": 2},
            (),
        ),
        (
            "a renderer that may claim nothing gives its slot to who may",
            Facts(
                2,
                [demand("a", 50), demand("b", 20), demand("c", 1, 0.1, tenant="bob")],
                renderers("a", "b"),
                caps={"ann": 1},
            ),
            {},
            ("b1",),
        ),
        (
            "a free slot is taken, however little there is to do",
            Facts(9, [demand("a", 3, 0.1)]),
            {"a": 3},
            (),
        ),
        (
            "the warm renderer of another engine stays where it is not worth much more",
            Facts(2, [demand("a", 9, 2 * WARM_S - 1), demand("c", 0)], renderers("a", "c")),
            {},
            (),
        ),
        (
            "and leaves where it is",
            Facts(2, [demand("a", 9, 2 * WARM_S), demand("c", 0)], renderers("a", "c")),
            {},
            ("c1",),
        ),
        (
            "or where it has been idle for half the time that it is kept",
            Facts(
                2,
                [demand("a", 9, WARM_S + STALE_S), demand("c", 0, idle_ms=150_000)],
                renderers("a", "c"),
            ),
            {},
            ("c1",),
        ),
        (
            "what another has no use for goes to who has most to do, beyond its share",
            Facts(
                4,
                [demand("a", 99), demand("b", 16, 60.0, tenant="bob"), demand("c", 0)],
                renderers("a", "a", "c", "c"),
            ),
            {},
            ("c3", "c2"),
        ),
        (
            "a more urgent engine takes more than its first slot where that is worth it",
            Facts(
                3, [demand("a", 90), demand("b", 16, 60.0, priority=9)], renderers("a", "a", "b")
            ),
            {},
            (),
        ),
        (
            "of two that are worth a slot the one with more to do for each renderer",
            Facts(3, [demand("a", 9), demand("b", 90)], renderers("a", "b")),
            {"b": 1},
            (),
        ),
        (
            "a slot that was freed for an engine is its own",
            Facts(3, [demand("a", 9, 1e4), demand("b", 9)], renderers("a", "b"), freed={"b": 1}),
            {"b": 1},
            (),
        ),
        (
            "and while it is being freed nobody else leaves for it",
            Facts(
                2,
                [demand("a", 9), demand("b", 1, **STARVED)],
                [RendererFact("a0", "a"), RendererFact("a1", "a", draining=True)],
                promised={"b": 1},
            ),
            {},
            (),
        ),
        (
            "unless it has no use for it any more",
            Facts(2, [demand("a", 9), demand("b", 0)], renderers("a"), freed={"b": 1}),
            {"a": 1},
            (),
        ),
        (
            "an engine that cannot be started takes no slot",
            Facts(2, [demand("a", 9, priority=9, most=0), demand("b", 9)]),
            {"b": 2},
            (),
        ),
        (
            "and keeps what it has",
            Facts(2, [demand("a", 9, most=1), demand("b", 9)], renderers("a")),
            {"b": 1},
            (),
        ),
        (
            "a budget that shrank is kept",
            Facts(2, [demand("a", 9)], renderers("a", "a", "a")),
            {},
            ("a2",),
        ),
    ],
)
def test_decisions(case: str, facts: Facts, start: dict[str, int], drain: tuple[str, ...]) -> None:
    assert decide(facts) == Decision(start, drain), case


def ready(*engines: str, **more: Any) -> list[RendererFact]:
    """Renderers that have their engines."""
    return [replace(one, ready=True, **more) for one in renderers(*engines)]


#: Engines of one base: refitted in a tenth of what loading takes.
REFIT_S = LOAD_S / 10
SAME: dict[str, Any] = {"base_key": "x", "refit_s": REFIT_S}


def waited(seconds: float, **more: Any) -> EngineDemand:
    """A little work of an engine that was passed over for so long."""
    return demand("b", 1, 1.0, starved_ms=round(1e3 * seconds), **{**SAME, **more})


#: Of one slot, so long until a refit takes no more than 2 % of its time; a load would not do.
REFIT_PATIENCE_S = REFIT_S / 0.02
#: An idle renderer's slot for a refit, and a busy one's.
WARM_REFIT_S, BUSY_REFIT_S = WARM * REFIT_S, BUSY * 2 * REFIT_S


@pytest.mark.parametrize(
    ("case", "facts", "refit", "drain"),
    [
        (
            "one of the same base is refitted and not sent away",
            Facts(1, [demand("a", 0, **SAME), demand("b", 1, 0.1, **SAME)], ready("a")),
            {"a0": "b"},
            (),
        ),
        (
            "not while it loads, or waits for a node: it would load twice",
            Facts(1, [demand("a", 0, **SAME), demand("b", 1, 0.1, **SAME)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "nor where the other takes another share of a device",
            Facts(
                1,
                [demand("a", 0, **SAME), demand("b", 1, 0.1, **SAME)],
                ready("a", share=0.5),
            ),
            {},
            ("a0",),
        ),
        (
            "but where it takes the same",
            Facts(
                1,
                [demand("a", 0, **SAME), demand("b", 1, 0.1, share=0.33331, **SAME)],
                ready("a", share=0.3333),
            ),
            {"a0": "b"},
            (),
        ),
        (
            "nor where nobody knows the base",
            Facts(1, [demand("a", 0), demand("b", 1, 0.1)], ready("a")),
            {},
            ("a0",),
        ),
        (
            "of an engine's renderers one that has loaded",
            Facts(
                2,
                [demand("a", 0, **SAME), demand("b", 1, 0.1, **SAME)],
                [*ready("a"), RendererFact("a1", "a")],
            ),
            {"a0": "b"},
            (),
        ),
        (
            "a free slot is taken all the same: the other stays warm",
            Facts(2, [demand("a", 0, **SAME), demand("b", 1, 0.1, **SAME)], ready("a")),
            {},
            (),
        ),
        (
            "before one of another base that could give its slot too",
            Facts(
                2,
                [demand("b", 1, **SAME), demand("a", 0), demand("c", 0, **SAME)],
                ready("a", "c"),
            ),
            {"c1": "b"},
            (),
        ),
        (
            "and before one of another base whose engine, unlike its own, has nothing to do",
            Facts(
                3,
                [demand("b", 1, **SAME), demand("a", 0), demand("c", 1, **SAME)],
                [*ready("a", "c"), *ready("x", "y", "c", idle=True)[2:]],
            ),
            {"c2": "b"},
            (),
        ),
        (
            "a warm renderer is refitted for what is worth a refit, be it worth no load",
            Facts(
                2,
                [demand("a", 9, 2 * WARM_REFIT_S, **SAME), demand("c", 0, **SAME)],
                ready("a", "c"),
            ),
            {"c1": "a"},
            (),
        ),
        (
            "and not for less",
            Facts(
                2,
                [demand("a", 9, 2 * WARM_REFIT_S - 1, **SAME), demand("c", 0, **SAME)],
                ready("a", "c"),
            ),
            {},
            (),
        ),
        (
            "one at work where the refit and the way back are paid for",
            Facts(
                2, [demand("a", 50, **SAME), demand("b", 1, BUSY_REFIT_S, **SAME)], ready("a", "a")
            ),
            {"a1": "b"},
            (),
        ),
        (
            "and not for less than both cost",
            Facts(
                2,
                [demand("a", 50, **SAME), demand("b", 1, BUSY_REFIT_S - 1, **SAME)],
                ready("a", "a"),
            ),
            {},
            (),
        ),
        (
            "a more urgent one at once",
            Facts(1, [demand("a", 9, **SAME), demand("b", 1, 0.1, priority=9, **SAME)], ready("a")),
            {"a0": "b"},
            (),
        ),
        (
            "who can be refitted waits no longer than refits, repeated, cost little",
            Facts(1, [demand("a", 50, **SAME), waited(REFIT_PATIENCE_S)], ready("a")),
            {"a0": "b"},
            (),
        ),
        (
            "and until then",
            Facts(1, [demand("a", 50, **SAME), waited(REFIT_PATIENCE_S - 1)], ready("a")),
            {},
            (),
        ),
        (
            "but gets no load for that: the one of its base is loading itself",
            Facts(1, [demand("a", 50, **SAME), waited(REFIT_PATIENCE_S)], renderers("a")),
            {},
            (),
        ),
        (
            "only when it has waited as long as others do",
            Facts(1, [demand("a", 50, **SAME), waited(DEFER_MS / 1e3)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "where no other has its base it waits for a load's worth",
            Facts(1, [demand("a", 50), waited(REFIT_PATIENCE_S)], ready("a")),
            {},
            (),
        ),
        (
            "one that leaves is refitted for nobody",
            Facts(
                1,
                [demand("a", 0, **SAME), demand("b", 1, **SAME)],
                ready("a", draining=True),
            ),
            {},
            (),
        ),
    ],
)
def test_refits(case: str, facts: Facts, refit: dict[str, str], drain: tuple[str, ...]) -> None:
    decision = decide(facts)
    assert (decision.refit, decision.drain) == (refit, drain), case
    for name in refit:
        assert name not in decision.heirs, "its slot is not freed"


def test_a_refit_is_placed_as_what_it_becomes() -> None:
    facts = Facts(1, [demand("a", 0, **SAME), demand("b", 1, **SAME)], ready("a"))
    assert placement_of(facts, decide(facts)).wanted == {"b": 1}


ENGINES = st.sampled_from("abcd")
WORK = st.builds(
    Work,
    st.sampled_from(["ann", "bob"]),
    st.sampled_from([0, 4, 9]),
    st.integers(1, 40),
    st.floats(0.0, 1e4, allow_subnormal=False),
)
DEMANDS = st.dictionaries(
    ENGINES,
    st.tuples(
        st.lists(WORK, max_size=3),
        st.sampled_from(["", "x"]),
        st.sampled_from([0, DEFER_MS, 9 * DEFER_MS]),
        st.sampled_from([0, 400_000]),
    ),
).map(
    lambda found: [
        EngineDemand(
            key, tuple(work), base, refit_s=1.0, starved_ms=starved if work else 0, idle_ms=idle
        )
        for key, (work, base, starved, idle) in found.items()
    ]
)
FACTS = st.builds(
    Facts,
    st.integers(0, 12),
    DEMANDS,
    st.lists(
        st.tuples(ENGINES, st.booleans(), st.booleans(), st.booleans()).map(
            lambda one: RendererFact("", *one)
        ),
        max_size=12,
    ).map(lambda some: [RendererFact(f"r{n}", *_rest(one)) for n, one in enumerate(some)]),
    drain_s=st.sampled_from([0.0, 100.0]),
    least=st.sampled_from([0, 1]),
    most=st.sampled_from([2, 99]),
    weights=st.just({"ann": 2.0}),
    caps=st.sampled_from([{}, {"bob": 3}]),
)


def _rest(one: RendererFact) -> tuple[str, bool, bool, bool]:
    return one.engine_key, one.draining, one.idle, one.ready


#: A busy machine is no fault of the policy.
SLOWLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOWLY
@given(FACTS)
def test_whatever_is_known_the_decision_can_be_carried_out(facts: Facts) -> None:
    decision = decide(facts)
    facts = replace(facts, demands=within_caps(facts))
    want = targets(facts)
    assert sum(want.values()) <= facts.slots
    busy = {one.engine_key: one for one in facts.demands if one.units}
    assert set(want) <= set(busy)
    assert all(count <= max(busy[key].units, facts.least) for key, count in want.items())
    assert len(want) == min(len(busy), facts.slots) or any(count > 1 for count in want.values())
    free = max(0, facts.slots - len(facts.renderers))
    assert sum(decision.start.values()) <= free
    there = {one.name for one in facts.renderers if not one.draining}
    assert set(decision.drain) <= there
    assert len(set(decision.drain)) == len(decision.drain)
    bases = {one.engine_key: one.base_key for one in facts.demands}
    for name, engine in decision.refit.items():
        one = next(one for one in facts.renderers if one.name == name)
        assert name in there - set(decision.drain)
        assert one.ready
        assert one.engine_key != engine
        assert bases[one.engine_key] == bases[engine] != ""
    short = sum(want.values()) - sum(decision.start.values())
    if not short and facts.slots >= len(there):
        idle = {one.engine_key for one in facts.demands if one.idle_ms >= facts.idle_limit_ms}
        gone = {one.engine_key for one in facts.renderers if one.name in decision.drain}
        assert all(key in idle or key not in busy for key in gone), "nobody needs their slots"


@SLOWLY
@given(FACTS)
def test_carrying_it_out_comes_to_rest(facts: Facts) -> None:
    """Carrying it out as decided ends within the slots: nobody is loaded and sent away."""
    there = [one for one in facts.renderers if not one.draining]
    started: set[str] = set()
    for number in range(60):
        decision = decide(replace(facts, renderers=there))
        if decision == Decision():
            break
        changed = {*decision.drain, *decision.refit}
        assert not started & changed, "loaded, and sent away"
        there = [
            replace(one, engine_key=decision.refit[one.name], idle=False)
            if one.name in decision.refit
            else one
            for one in there
            if one.name not in decision.drain
        ]
        started |= decision.refit.keys()
        for engine, count in decision.start.items():
            fresh = [RendererFact(f"{engine}-{number}-{k}", engine) for k in range(count)]
            started |= {one.name for one in fresh}
            there += fresh
    else:
        pytest.fail("the pool never came to rest")
    assert len(there) <= max(facts.slots, len(facts.renderers))


def test_engines_that_were_passed_over_load_for_little_of_the_slots_time() -> None:
    """On many slots one waits seconds, on few minutes: what it costs there is the same."""
    new = [demand(name, 1) for name in "bcdef"]
    many = Facts(1_000, [demand("a", 9_000), *new], renderers("a"))
    assert deferral_ms(many) == 5 * LOAD_S / 1_000 / 0.02 * 1_000
    assert deferral_ms(replace(many, slots=100)) == 75_000
    assert deferral_ms(replace(many, slots=8)) == DEFER_MS
    assert deferral_ms(replace(many, slots=0)) == DEFER_MS
    there = replace(many, renderers=renderers("a", "b", "c", "d", "e"))
    assert deferral_ms(there) == LOAD_S / 1_000 / 0.02 * 1_000
    assert deferral_ms(replace(many, promised={"b": 1, "c": 1})) == 4_500
    waited = [replace(one, starved_ms=7_500) for one in new]
    busy = replace(many, demands=[demand("a", 9_000), *waited], renderers=renderers(*["a"] * 1_000))
    assert len(decide(busy).drain) == 5
    assert set(decide(busy).heirs.values()) == set("bcdef")
    early = [replace(one, starved_ms=7_499) for one in new]
    assert not decide(replace(busy, demands=[demand("a", 9_000), *early])).drain


def test_what_is_placed_is_what_is_decided() -> None:
    def placed(facts: Facts) -> Placement:
        return placement_of(facts, decide(facts))

    waiting = Facts(1, [demand("a", 9), demand("b", 1)], renderers("a"))
    assert placed(waiting) == Placement(1, {"a": 1}, {"a": 1, "b": 0})
    starved = Facts(1, [demand("a", 9), demand("b", 9, **STARVED)], renderers("a"))
    assert placed(starved).wanted["b"] == 1, "a renderer of a leaves for it"
    assert placed(Facts(2, [demand("a", 9)])) == Placement(2, {}, {"a": 2})
    leaving = [RendererFact("a0", "a", draining=True)]
    assert placed(Facts(2, [demand("a", 0)], leaving)) == Placement(2, {}, {})
