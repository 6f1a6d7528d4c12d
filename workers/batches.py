"""Batches from units: images that share a batch key fill one another's batches."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

from jobs.job import Image
from jobs.recipe import Recipe, RowRecipe
from jobs.records import Picture, StageTimes
from jobs.row_recipe import recipe_for
from workers.duplicate import Duplicate
from workers.work import Work


@dataclass
class Tried:
    """What a job with filters had made of one image until now."""

    #: As it is to be tried next, or was tried last, with that seed; and where it waits.
    image: Image
    group: "Group"
    #: Who turned its pictures away, in their order.
    turned_away: list[str] = field(default_factory=list)
    #: All tries together.
    times: StageTimes = field(default_factory=StageTimes)
    filter_ms: float = 0.0


@dataclass(eq=False)
class Flight:
    """A unit on its way through a renderer: its images go to batches and come back in order."""

    work: Work
    #: Images that were given to batches, and pictures that came back to be encoded, by their place
    #: in the unit.
    taken: int = 0
    pictures: dict[int, Future[Picture]] = field(default_factory=dict)
    #: Of a job with filters, by place: what was tried of each image, and the hashes of pictures
    #: that passed; by image: those that resemble others.
    tried: dict[int, Tried] = field(default_factory=dict)
    hashes: dict[int, int] = field(default_factory=dict)
    duplicates: dict[int, Duplicate] = field(default_factory=dict)
    filter_ms: float = 0.0
    #: Of its first batch: on the wall's clock, and how long the unit had waited for it.
    started_ms: int = 0
    waited_ms: float = 0.0
    #: What the device stood still for before this unit's batches: stage -> milliseconds.
    stood_ms: dict[str, float] = field(default_factory=dict)
    #: It was given back or lost: what still comes of it is dropped.
    ended: bool = False
    _finished: int = 0

    def __post_init__(self) -> None:
        self.groups = self._grouped()

    @property
    def left(self) -> int:
        """Images that no batch has taken yet."""
        return len(self.work.images) - self.taken

    @property
    def rendered(self) -> bool:
        """Whether every image has come back from the device."""
        return len(self.pictures) == len(self.work.images)

    @property
    def finished(self) -> int:
        """Images that have come back before the first one that has not."""
        while self._finished in self.pictures:
            self._finished += 1
        return self._finished

    def image_at(self, at: int) -> Image:
        """The image at a place, with the seed that it is to be made with now."""
        tried = self.tried.get(at)
        return tried.image if tried else self.work.images[at]

    def put_back(self, at: int) -> None:
        """An image is to be made once more; what was made of it is dropped."""
        self.pictures.pop(at, None)
        self.hashes.pop(at, None)
        self._finished = min(self._finished, at)
        self.taken -= 1
        group = self.tried[at].group
        group.waiting.append(at)
        if group not in self.groups:
            self.groups.append(group)

    def leave(self) -> None:
        """It goes on, or is given up: let go of its pictures, which may be gigabytes.

        Its tries hold it in a circle, and those the interpreter ends only now and then.
        """
        self.pictures.clear()
        self.tried.clear()

    @property
    def suspect(self) -> bool:
        """Whether a process died on it: then nothing else may be at stake beside it."""
        return self.work.held.lease.suspect

    def take(self, group: "Group", count: int) -> None:
        """The first images of a group are in a batch now."""
        self.taken += count
        for _ in range(count):
            group.waiting.popleft()
        self.groups = [one for one in self.groups if one.waiting]

    def _grouped(self) -> list["Group"]:
        """Its images by their recipe, that of the first image first.

        Those of a suspect stay in their order, so that it is known where a process died.
        """
        recipes: dict[RowRecipe | None, Recipe] = {}
        groups: list[Group] = []
        known: dict[RowRecipe | None, Group] = {}
        last: Group | None = None
        for place, image in enumerate(self.work.images):
            own = image.row.recipe
            if own not in recipes:
                recipes[own] = recipe_for(self.work.job.recipe, own)
            group = known.get(own)
            if group is None or (self.suspect and group is not last):
                group = known[own] = Group(self, recipes[own])
                groups.append(group)
            group.waiting.append(place)
            last = group
        return groups


@dataclass(eq=False)
class Group:
    """Images of a unit that share a recipe and that no batch has taken yet."""

    flight: Flight
    recipe: Recipe
    #: Their places in the unit.
    waiting: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        #: What other images must share to sit beside these.
        self.batch_key = self.recipe.batch_key


@dataclass(frozen=True)
class Place:
    """One image of a batch, the group it is of, and its place in the unit."""

    group: Group
    at: int

    @property
    def flight(self) -> Flight:
        """The unit it belongs to."""
        return self.group.flight

    @property
    def image(self) -> Image:
        """What is to be made."""
        return self.flight.image_at(self.at)


@dataclass(frozen=True)
class Formed:
    """A batch of images that share a recipe, ready for the device."""

    recipe: Recipe
    places: list[Place]

    @property
    def images(self) -> list[Image]:
        """Its images, in the order of their places."""
        return [place.image for place in self.places]

    @property
    def flights(self) -> list[Flight]:
        """The units in it, each once."""
        return list(dict.fromkeys(place.flight for place in self.places))


class BatchFormer:
    """Holds the units in hand, oldest first, and cuts batches from them.

    The oldest unit's first image decides the next batch's recipe; others of the same batch key
    fill it up.
    """

    def __init__(self, room: Callable[[Recipe], int]) -> None:
        """`room` says how many images of a recipe a batch holds."""
        self._room = room
        self._flights: list[Flight] = []

    def add(self, flight: Flight) -> None:
        """Take a unit in; it leaves when its last image is taken, or by `drop`."""
        self._flights.append(flight)

    def back(self, flight: Flight) -> None:
        """A unit has images to be taken again; it is older than those that are waiting."""
        if flight not in self._flights:
            self._flights.insert(0, flight)

    def drop(self, flight: Flight) -> None:
        """Let a unit go, whatever is left of it."""
        if flight in self._flights:
            self._flights.remove(flight)

    @property
    def flights(self) -> list[Flight]:
        """Units with images that no batch has taken yet, oldest first."""
        return list(self._flights)

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return sum(flight.left for flight in self._flights)

    @property
    def room(self) -> int:
        """Places of the next batch; 0 where there is no unit."""
        return self._room(self._flights[0].groups[0].recipe) if self._flights else 0

    def full(self) -> bool:
        """Whether the next batch has an image for each of its places, or may have no more.

        Where other images wait for two batches, no unit is asked for that could fill it up.
        """
        if not self._flights:
            return False
        room = self.room
        if self._flights[0].suspect or self.waiting >= 2 * room:
            return True
        return len(self.coming(room)) == room

    def coming(self, count: int) -> list[Place]:
        """The next `count` images in their order, as far as they are there; takes none."""
        return list(islice(self._places(), count))

    def take(self) -> Formed | None:
        """The next batch, full or not; None where no image waits."""
        places = self.coming(self.room)
        if not places:
            return None
        for group, count in Counter(place.group for place in places).items():
            group.flight.take(group, count)
        self._flights = [flight for flight in self._flights if flight.left]
        return Formed(places[0].group.recipe, places)

    def _places(self) -> Iterator[Place]:
        if not self._flights:
            return
        oldest = self._flights[0]
        first = oldest.groups[0]
        for flight in self._flights:
            if flight is not oldest and (oldest.suspect or flight.suspect):
                continue
            for group in [first] if flight.suspect else flight.groups:
                if group.batch_key == first.batch_key:
                    for at in group.waiting:
                        yield Place(group, at)
