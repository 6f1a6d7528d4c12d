"""What a renderer was told, in whatever order it was told."""

from workers.orders import Held, Orders


def taken(orders: Orders) -> Held:
    found = orders.take()
    assert found is not None
    return found


def test_an_engine_ends_when_another_is_to_come_and_the_process_goes_on() -> None:
    orders = Orders("x", "{x}")
    held = taken(orders)
    assert (held.engine_key, held.recipe_json, held.first) == ("x", "{x}", True)
    assert (orders.becomes, held.ending.is_set()) == ("", False)
    orders.refit("x", "{x}")
    assert not held.ending.is_set(), "it is that already"
    orders.refit("y", "{y}")
    orders.refit("z", "{z}")
    assert (orders.becomes, held.ending.is_set(), orders.leaving.is_set()) == ("z", True, False)
    held = taken(orders)
    assert (held.engine_key, held.first, held.ending.is_set()) == ("z", False, False)
    assert orders.becomes == ""


def test_who_is_to_leave_becomes_nothing_any_more() -> None:
    orders = Orders("x", "{x}")
    held = taken(orders)
    orders.refit("y", "{y}")
    orders.leave(7.0)
    assert 6.0 < held.ending.left_s() <= 7.0
    orders.refit("z", "{z}")
    assert orders.take() is None
    assert orders.leaving.is_set()


def test_notice_reaches_the_engine_that_came_by_a_refit() -> None:
    orders = Orders("x", "{x}")
    taken(orders)
    orders.refit("y", "{y}")
    held = taken(orders)
    orders.leave(7.0)
    assert held.ending.is_set()
    assert held.ending.left_s() <= 7.0


def test_an_engine_that_ends_by_itself_ends_the_process() -> None:
    """No scheduler lives: its loop gives itself the word."""
    orders = Orders("x", "{x}")
    taken(orders).ending.set()
    assert orders.take() is None
    assert orders.leaving.is_set()


def test_another_engine_in_the_place_of_the_first_is_the_first() -> None:
    """It was told before it began: its libraries are still to be read, which is a load."""
    orders = Orders("x", "{x}")
    orders.refit("y", "{y}")
    held = taken(orders)
    assert (held.engine_key, held.first) == ("y", True)
