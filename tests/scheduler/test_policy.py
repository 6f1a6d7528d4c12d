"""The policy as a table: facts in, decisions out."""

import pytest

from scheduler.policy import Decision, EngineDemand, Facts, RendererFact, decide


def demand(engine: str, waiting: int, *, flying: int = 0, priority: int = 4, idle: int = 0):
    return EngineDemand(engine, waiting, flying, waiting * 100, priority, idle)


def starved(engine: str, waiting: int) -> EngineDemand:
    return EngineDemand(engine, waiting, 0, waiting * 100, 4, 0, starved_ms=300_000)


def renderers(*engines: str) -> list[RendererFact]:
    return [RendererFact(f"{engine}{number}", engine) for number, engine in enumerate(engines)]


@pytest.mark.parametrize(
    ("case", "facts", "start", "drain"),
    [
        ("nothing to do", Facts(4), {}, ()),
        ("a backlog fills the slots", Facts(4, [demand("a", 9)]), {"a": 4}, ()),
        ("never more renderers than units", Facts(4, [demand("a", 2)]), {"a": 2}, ()),
        ("no slot, no start", Facts(0, [demand("a", 9)]), {}, ()),
        (
            "what is there counts",
            Facts(4, [demand("a", 9)], renderers("a", "a", "a")),
            {"a": 1},
            (),
        ),
        (
            "two engines share by waiting images",
            Facts(4, [demand("a", 30), demand("b", 10)]),
            {"a": 3, "b": 1},
            (),
        ),
        (
            "the urgent engine is first where slots are few",
            Facts(1, [demand("a", 30), demand("b", 1, priority=9)]),
            {"b": 1},
            (),
        ),
        (
            "an idle renderer stays warm",
            Facts(2, [demand("a", 0, idle=1000)], renderers("a")),
            {},
            (),
        ),
        (
            "and leaves when it has been idle too long",
            Facts(2, [demand("a", 0, idle=300_000)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "or when another engine needs its slot",
            Facts(1, [demand("a", 0, idle=1000), demand("b", 5)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "a free slot is taken before a warm renderer is sent away",
            Facts(2, [demand("a", 0, idle=1000), demand("b", 1)], renderers("a")),
            {"b": 1},
            (),
        ),
        (
            "a slot that is being freed is waited for, nobody else is drained",
            Facts(
                2,
                [demand("b", 1), demand("a", 0, idle=1)],
                [RendererFact("a0", "a", draining=True), RendererFact("a1", "a")],
            ),
            {},
            (),
        ),
        (
            "a hog gives a slot to a newcomer",
            Facts(2, [demand("a", 50, flying=2), demand("b", 1)], renderers("a", "a")),
            {},
            ("a1",),
        ),
        (
            "units in flight keep their renderers",
            Facts(4, [demand("a", 0, flying=2)], renderers("a", "a", "a")),
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
            Facts(1, [demand("a", 30), starved("b", 3)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "a more urgent one takes the slot at once",
            Facts(1, [demand("a", 30), demand("b", 3, priority=9)], renderers("a")),
            {},
            ("a0",),
        ),
        (
            "the rest of the slots does not change hands for a little either",
            Facts(3, [demand("a", 30), demand("b", 40)], renderers("a", "a", "b")),
            {},
            (),
        ),
    ],
)
def test_decisions(case: str, facts: Facts, start: dict[str, int], drain: tuple[str, ...]) -> None:
    assert decide(facts) == Decision(start, drain), case


def test_applying_decisions_settles() -> None:
    """Whatever the demand, starting and draining as decided comes to rest within the slots."""
    demands = [demand("a", 40), demand("b", 7, priority=6), demand("c", 1)]
    there: list[RendererFact] = renderers("x", "x", "a")
    for number in range(20):
        decision = decide(Facts(5, demands, there, idle_limit_ms=1000))
        if decision == Decision():
            break
        there = [one for one in there if one.name not in decision.drain]
        for engine, count in decision.start.items():
            there += [RendererFact(f"{engine}-{number}-{k}", engine) for k in range(count)]
        assert len(there) <= 5
    else:
        pytest.fail("the pool never came to rest")
    held = [one.engine_key for one in there]
    assert {"a", "b", "c"} <= set(held)
    assert "x" not in held
