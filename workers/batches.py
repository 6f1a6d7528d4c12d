"""Batches from units: images that share a batch key fill one another's batches."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

from jobs.job import Image
from jobs.recipe import Recipe
from jobs.records import Picture
from workers.work import Work


@dataclass(eq=False)
class Flight:
    """A unit on its way through a renderer: its images go to batches and come back in order."""

    work: Work
    #: Images that were given to batches, and pictures that came back to be encoded.
    taken: int = 0
    pictures: list[Future[Picture]] = field(default_factory=list)
    device_ms: float = 0.0
    #: Of its first batch: on the wall's clock, and how long the unit had waited for it.
    started_ms: int = 0
    waited_ms: float = 0.0
    #: What the device stood still for before this unit's batches: stage -> milliseconds.
    stood_ms: dict[str, float] = field(default_factory=dict)
    #: It was given back or lost: what still comes of it is dropped.
    ended: bool = False

    @property
    def batch_key(self) -> str:
        """What other images must share to sit beside these."""
        return self.work.job.recipe.batch_key

    @property
    def left(self) -> int:
        """Images that no batch has taken yet."""
        return len(self.work.images) - self.taken

    @property
    def rendered(self) -> bool:
        """Whether every image has come back from the device."""
        return len(self.pictures) == len(self.work.images)

    @property
    def suspect(self) -> bool:
        """Whether a process died on it: then nothing else may be at stake beside it."""
        return self.work.held.lease.suspect


@dataclass(frozen=True)
class Place:
    """One image of a batch, and the unit it belongs to."""

    flight: Flight
    image: Image


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

    The oldest unit decides the next batch's recipe; others of the same batch key fill it up.
    """

    def __init__(self, room: Callable[[Recipe], int]) -> None:
        """`room` says how many images of a recipe a batch holds."""
        self._room = room
        self._flights: list[Flight] = []

    def add(self, flight: Flight) -> None:
        """Take a unit in; it leaves when its last image is taken, or by `drop`."""
        self._flights.append(flight)

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
        return self._room(self._flights[0].work.job.recipe) if self._flights else 0

    def full(self) -> bool:
        """Whether the next batch has an image for each of its places, or may have no more."""
        if not self._flights:
            return False
        return self._flights[0].suspect or len(self.coming(self.room)) == self.room

    def coming(self, count: int) -> list[Place]:
        """The next `count` images in their order, as far as they are there; takes none."""
        return list(islice(self._places(), count))

    def take(self) -> Formed | None:
        """The next batch, full or not; None where no image waits."""
        places = self.coming(self.room)
        if not places:
            return None
        for place in places:
            place.flight.taken += 1
        self._flights = [flight for flight in self._flights if flight.left]
        return Formed(places[0].flight.work.job.recipe, places)

    def _places(self) -> Iterator[Place]:
        if not self._flights:
            return
        oldest = self._flights[0]
        for flight in self._flights:
            alone = flight is not oldest and (oldest.suspect or flight.suspect)
            if flight.batch_key == oldest.batch_key and not alone:
                for image in flight.work.images[flight.taken :]:
                    yield Place(flight, image)
