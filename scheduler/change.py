"""Change: slots as they pass from one engine to another within one decision."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from scheduler.facts import Decision, EngineDemand, Facts, RendererFact
from scheduler.prices import BUSY, WARM, deferral_ms, warm_price
from scheduler.shares import rank_of

#: Engine -> renderers of it.
_Held = dict[str, list[RendererFact]]


class Change:
    """Who is there, who leaves for whom, and who is started; `decision` says it in the end.

    `facts`: with what tenants may hold alone; `at_work`: engines with a unit in hand, whoever may
    hold it; `spare`: renderers beyond their engine's target; `leaving`: those that leave anyway.
    """

    def __init__(
        self,
        facts: Facts,
        want: Mapping[str, int],
        at_work: Iterable[str],
        spare: Iterable[RendererFact],
        leaving: Iterable[str],
    ) -> None:
        self._facts, self._want, self._deferred = facts, want, deferral_ms(facts)
        self._demands = {one.engine_key: one for one in facts.demands}
        self._working = {one.engine_key for one in facts.demands if one.units}
        self._ranks = {
            key: [rank_of(self._demands[key], work) for work in self._demands[key].work]
            for key in self._working
        }
        self._drain, self._heirs, self._start = list(leaving), dict[str, str](), Counter[str]()
        self._coming = Counter[str]()
        self._have = Counter(one.engine_key for one in facts.renderers if not one.draining)
        draining = sum(one.draining for one in facts.renderers)
        self._free = max(0, facts.slots - len(facts.renderers))
        #: Slots that are being freed, for nobody yet.
        self._freeing = draining + len(self._drain)
        self._warm, self._busy = defaultdict[str, list[RendererFact]](list), _Held()
        at_work = set(at_work) | self._working
        for one in spare:
            rests = one.idle or one.engine_key not in at_work
            place = self._warm if rests else self._busy
            place.setdefault(one.engine_key, []).append(one)

    def missing(self, key: str, count: int) -> int:
        """How many of so many renderers an engine lacks."""
        return max(0, count - self._have[key])

    def keep_promises(self, most: Callable[[str], int]) -> None:
        """Slots that were freed for an engine are its own, as long as it has a use for them."""
        for key, slots in self._facts.freed.items():
            count = min(slots, self._free, self.missing(key, most(key)))
            self._free -= count
            self._begin(key, count)
        for key, slots in self._facts.promised.items():
            count = min(slots, self._freeing, self.missing(key, most(key)))
            self._freeing -= count
            self._wait(key, count)

    def fill(self, engines: Iterable[str], most: Callable[[str], int], *, over: bool) -> None:
        """Give slots to engines that have fewer than `most`, where each is worth its price.

        Who was passed over comes first, then the most urgent, then who has most to do for each
        renderer. `over`: beyond targets, so nobody at work leaves for it.
        """
        heap = [self._turn(key) for key in engines if self.missing(key, most(key))]
        heapq.heapify(heap)
        while heap:
            *_, key = heapq.heappop(heap)
            if self._one_more(key, over) and self.missing(key, most(key)):
                heapq.heappush(heap, self._turn(key))

    def decision(self) -> Decision:
        """What became of it."""
        return Decision(dict(self._start), tuple(self._drain), self._heirs, dict(self._coming))

    def _turn(self, key: str) -> tuple[bool, int, float, str]:
        return (not self._late(key), -max(self._ranks[key]), -self._share_s(key), key)

    def _late(self, key: str) -> bool:
        return not self._have[key] and self._demands[key].starved_ms >= self._deferred

    def _first(self, key: str) -> bool:
        """Whether it has fewer than every engine with work is to have."""
        return self._have[key] < max(1, self._facts.least)

    def _share_s(self, key: str) -> float:
        """Device-seconds of its work that one more renderer would get."""
        return self._demands[key].cost_s / (self._have[key] + 1)

    def _one_more(self, key: str, over: bool) -> bool:
        """One more renderer for the engine, as cheaply as may be; False: it has to wait."""
        loads = self._share_s(key) / self._demands[key].load_s
        first = self._first(key)
        if self._free:
            self._free -= 1
            self._begin(key, 1)
        elif self._freeing and (first or loads >= WARM):
            self._freeing -= 1
            self._wait(key, 1)
        elif (holder := self._resting(key, float("inf") if first else loads)) is not None:
            self._hand_over(self._warm, holder, key)
        elif not over and (holder := self._giving(key)) is not None:
            self._hand_over(self._busy, holder, key)
        else:
            return False
        return True

    def _begin(self, key: str, count: int) -> None:
        if count:
            self._start[key] += count
            self._have[key] += count

    def _wait(self, key: str, count: int) -> None:
        if count:
            self._coming[key] += count
            self._have[key] += count

    def _hand_over(self, place: _Held, holder: str, key: str) -> None:
        leaves = place[holder].pop()
        if not place[holder]:
            del place[holder]
        self._drain.append(leaves.name)
        self._heirs[leaves.name] = key
        self._wait(key, 1)

    def _resting(self, key: str, loads: float) -> str | None:
        """Whose renderer without anything in hand leaves for the engine; None: it is worth none.

        One whose engine has nothing to do, then one with the same base (its node has that on its
        disk), then one of many.
        """
        base, limit = self._demands[key].base_key, self._facts.idle_limit_ms
        prices = {
            holder: warm_price(self._demands.get(holder), limit)
            for holder in self._warm
            if holder != key
        }

        def cost(holder: str) -> tuple[bool, bool, float, int, str]:
            found = self._demands.get(holder)
            other = not base or found is None or found.base_key != base
            many = -len(self._warm[holder])
            return (holder in self._working, other, prices[holder], many, holder)

        return min((one for one in prices if loads >= prices[one]), key=cost, default=None)

    def _giving(self, key: str) -> str | None:
        """Whose renderer at work leaves for the engine; None: it has to wait."""
        own, share_s, first = self._demands[key], self._share_s(key), self._first(key)
        urgent, late = max(self._ranks[key]), self._late(key)

        def gives(holder: str) -> bool:
            if late or (first and urgent > self._least_rank(holder)):
                return True
            # It has to be loaded, and the other one again afterwards.
            return share_s >= BUSY * (own.load_s + self._load_s(holder))

        def cost(holder: str) -> tuple[int, bool, int, str]:
            found = self._demands.get(holder)
            other = not own.base_key or found is None or found.base_key != own.base_key
            beyond = self._have[holder] - self._want.get(holder, 0)
            return (self._least_rank(holder), other, -beyond, holder)

        holders = (one for one in self._busy if one != key and gives(one))
        return min(holders, key=cost, default=None)

    def _load_s(self, holder: str) -> float:
        found: EngineDemand | None = self._demands.get(holder)
        return found.load_s if found is not None else 0.0

    def _least_rank(self, holder: str) -> int:
        """What a renderer too many works on: the least urgent of its engine's."""
        return min(self._ranks.get(holder, ()), default=-1)
