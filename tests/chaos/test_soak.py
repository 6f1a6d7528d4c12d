"""The soak's plans: a seed decides all of it, and other seeds decide otherwise."""

from tests.chaos.later import KINDS
from tests.chaos.soak import plan_of
from tests.chaos.strikes import STRIKES, Dice


def test_the_same_seed_plans_the_same() -> None:
    plans = [str(plan_of(seed, ["6.2", "7.0"])) for seed in range(50)]
    assert plans == [str(plan_of(seed, ["6.2", "7.0"])) for seed in range(50)]
    assert len(set(plans)) == 50


def test_every_strike_is_planned_sooner_or_later() -> None:
    kinds = {strike(Dice(1)).text.split()[0] for strike in STRIKES}
    told = " ".join(str(plan_of(seed, ["6.2", "7.0"])) for seed in range(200))
    assert not [kind for kind in kinds if kind not in told]
    assert "retry" in told
    assert "cannot be made" in told
    assert not [kind for kind in KINDS if f"; {kind}" not in told]
