"""What a tenant with a cap may hold: its engines get renderers for that, and are not swapped."""

from dataclasses import replace

import pytest

from scheduler.caps import within_caps
from scheduler.facts import EngineDemand, Facts, RendererFact, Work
from scheduler.policy import decide
from scheduler.prices import DEFER_MS


def demand(
    engine: str, units: int, in_flight: int = 0, *, priority: int = 4, starved_ms: int = 0
) -> EngineDemand:
    work = Work("ann", priority, units, 100.0 * units, in_flight)
    return EngineDemand(engine, (work,), starved_ms=starved_ms)


def dealt(facts: Facts) -> dict[str, int]:
    return {one.engine_key: one.units for one in within_caps(facts) if one.units}


def there(*engines: str) -> list[RendererFact]:
    return [RendererFact(f"{engine}{number}", engine) for number, engine in enumerate(engines)]


LATE = DEFER_MS


@pytest.mark.parametrize(
    ("case", "facts", "units"),
    [
        (
            "what there is most of",
            Facts(9, [demand("a", 20), demand("b", 50)], caps={"ann": 3}),
            {"b": 3},
        ),
        (
            "what is in hand is kept, however little the rest",
            Facts(9, [demand("a", 2, 2), demand("b", 50)], caps={"ann": 3}),
            {"a": 2, "b": 1},
        ),
        (
            "who was passed over gets a unit first",
            Facts(9, [demand("a", 50, 3), demand("b", 9, starved_ms=LATE)], caps={"ann": 3}),
            {"a": 2, "b": 1},
        ),
        (
            "but those who were get no more than half together, the longest first",
            Facts(
                9,
                [
                    demand("a", 50, 4),
                    *[demand(k, 9, starved_ms=LATE + n) for n, k in enumerate("bcd")],
                ],
                caps={"ann": 4},
            ),
            {"a": 2, "c": 1, "d": 1},
        ),
        (
            "the rest goes by priority, not by how long it waited",
            Facts(
                9,
                [demand("a", 9, priority=5), demand("b", 9, starved_ms=3 * LATE)],
                caps={"ann": 4},
            ),
            {"a": 3, "b": 1},
        ),
        ("no cap, no limit", Facts(9, [demand("a", 50)], caps={"bob": 1}), {"a": 50}),
    ],
)
def test_a_cap_is_dealt(case: str, facts: Facts, units: dict[str, int]) -> None:
    assert dealt(facts) == units, case


def test_an_engine_at_work_is_not_idle_because_of_a_cap() -> None:
    """Another tenant's engine takes no renderer from it but at the price of one at work."""
    other = EngineDemand("c", (Work("bob", 4, 2, 700.0, 1),))
    late = demand("b", 9, starved_ms=LATE)
    facts = Facts(3, [demand("a", 50, 1), late, other], there("a", "b", "c"), caps={"ann": 1})
    assert dealt(facts) == {"b": 1, "c": 2}
    assert decide(facts).drain == ()


def test_two_engines_of_a_capped_tenant_do_not_take_turns() -> None:
    """For three hours: each has its renderers, and nobody is sent away once they are there."""
    cap, slots = 4, 4
    renderers = there(*["a"] * cap)
    starved = {"a": 0, "b": 0}
    drained = 0
    for _ in range(3 * 60):
        held = {key: sum(one.engine_key == key for one in renderers) for key in starved}
        facts = Facts(
            slots,
            [
                demand(key, 500, held[key], starved_ms=0 if held[key] else starved[key])
                for key in starved
            ],
            renderers,
            caps={"ann": cap},
        )
        decision = decide(facts)
        drained += len(decision.drain)
        renderers = [one for one in renderers if one.name not in decision.drain]
        for key, count in decision.start.items():
            renderers += [RendererFact(f"{key}-{drained}-{n}", key) for n in range(count)]
        starved = {key: starved[key] + 60_000 if not held[key] else 0 for key in starved}
    assert {one.engine_key for one in renderers} == {"a", "b"}
    assert drained <= 2


def test_a_capped_tenants_work_is_worth_what_it_was() -> None:
    """It renders the same for longer, so a slot for it is kept as long."""
    [one] = within_caps(Facts(9, [demand("a", 50)], caps={"ann": 2}))
    assert one.cost_s == replace(one, work=demand("a", 50).work).cost_s
