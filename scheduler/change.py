"""Change: slots as they pass from one engine to another within one decision."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from scheduler.facts import Decision, EngineDemand, Facts, RendererFact
from scheduler.prices import BUSY, WARM, bases_there, deferral_ms, warm_price
from scheduler.shares import rank_of

#: Engine -> renderers of it.
_Held = dict[str, list[RendererFact]]


class Change:
    """Who is there, who leaves or is refitted for whom, who is started; `decision` says it.

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
        self._facts, self._want = facts, want
        self._deferred, self._loads_deferred = deferral_ms(facts), deferral_ms(facts, refits=False)
        self._bases = bases_there(facts)
        self._demands = {one.engine_key: one for one in facts.demands}
        self._working = {one.engine_key for one in facts.demands if one.units}
        self._ranks = {
            key: [rank_of(self._demands[key], work) for work in self._demands[key].work]
            for key in self._working
        }
        self._drain, self._heirs, self._start = list(leaving), dict[str, str](), Counter[str]()
        self._refit, self._coming = dict[str, str](), Counter[str]()
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
        coming = dict(self._coming)
        return Decision(dict(self._start), tuple(self._drain), self._refit, self._heirs, coming)

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
        share_s = math.inf if self._first(key) else self._share_s(key)
        if self._free:
            self._free -= 1
            self._begin(key, 1)
        elif self._freeing and share_s >= WARM * self._demands[key].load_s:
            self._freeing -= 1
            self._wait(key, 1)
        elif (holder := self._resting(key, share_s)) is not None:
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
        stays = self._refitted(place, holder, key)
        gives = stays or place[holder][-1]
        place[holder].remove(gives)
        if not place[holder]:
            del place[holder]
        if stays is not None:
            self._refit[gives.name] = key
        else:
            self._drain.append(gives.name)
            self._heirs[gives.name] = key
        self._wait(key, 1)

    def _refitted(self, place: _Held, holder: str, key: str) -> RendererFact | None:
        """Who of a holder's renderers becomes one of the engine where it is; None: nobody can."""
        if not self._same_base(holder, key):
            return None
        share = self._demands[key].share
        fits = (one for one in reversed(place[holder]) if one.ready and _close(one.share, share))
        return next(fits, None)

    def _same_base(self, holder: str, key: str) -> bool:
        found, base = self._demands.get(holder), self._demands[key].base_key
        return bool(base) and found is not None and found.base_key == base

    def _apart(self, place: _Held, holder: str, key: str) -> int:
        """How far a holder's renderer is from the engine: adapters, a process, a base as well."""
        if self._refitted(place, holder, key) is not None:
            return 0
        return 1 if self._same_base(holder, key) else 2

    def _resting(self, key: str, share_s: float) -> str | None:
        """Whose renderer without anything in hand gives its slot; None: it is worth none.

        One that can be refitted, then one whose engine has nothing to do, then one whose node has
        the base on its disk, then one of many.
        """
        own, limit = self._demands[key], self._facts.idle_limit_ms
        costs: dict[str, tuple[bool, bool, int, float, int, str]] = {}
        for holder, renderers in self._warm.items():
            apart = self._apart(self._warm, holder, key)
            price = warm_price(self._demands.get(holder), limit)
            if holder != key and share_s >= price * (own.load_s if apart else own.refit_s):
                works, many = holder in self._working, len(renderers)
                costs[holder] = (apart > 0, works, apart, price, -many, holder)
        return min(costs, key=costs.__getitem__, default=None)

    def _giving(self, key: str) -> str | None:
        """Whose renderer at work gives its slot; None: it has to wait."""
        share_s, late = self._share_s(key), self._late(key)
        urgent = max(self._ranks[key]) if self._first(key) else -1
        # One that was let in early because it needs no load gets no load for it.
        own = self._demands[key]
        waited = own.base_key not in self._bases or own.starved_ms >= self._loads_deferred
        costs: dict[str, tuple[int, int, int, str]] = {}
        for holder in self._busy:
            apart, rank = self._apart(self._busy, holder, key), self._least_rank(holder)
            let_in = urgent > rank or (late and (waited or not apart))
            # It has to be loaded, and the other one again afterwards.
            both_s = self._entry_s(key, apart) + self._entry_s(holder, apart)
            if holder != key and (let_in or share_s >= BUSY * both_s):
                beyond = self._have[holder] - self._want.get(holder, 0)
                costs[holder] = (rank, apart, -beyond, holder)
        return min(costs, key=costs.__getitem__, default=None)

    def _entry_s(self, key: str, apart: int) -> float:
        found: EngineDemand | None = self._demands.get(key)
        if found is None:
            return 0.0
        return found.load_s if apart else found.refit_s

    def _least_rank(self, holder: str) -> int:
        """What a renderer too many works on: the least urgent of its engine's."""
        return min(self._ranks.get(holder, ()), default=-1)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=1e-3)
