"""What may pass is tried again as long as somebody waits gladly; a dead endpoint is told soon."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dreamctl.errors import CredentialsError, NotFound, ProviderError
from dreamctl.storage import patience
from dreamctl.storage.base import Passing
from dreamctl.storage.patience import Line, Patience, patiently, within


class Clock(threading.Event):
    """Time that passes only when somebody waits, or when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.pauses = 1000.0, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        self.now += timeout or 0.0
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.5 * 2**attempt)
    return clock


def failing(times: int, wait: float | None = None, act: Callable[[], object] = lambda: None) -> Callable[[], str]:
    """Raises Passing so many times, then says "there"."""
    left = iter(range(times))

    def action() -> str:
        act()
        if next(left, None) is None:
            return "there"
        raise Passing("not now", wait=wait)

    return action


def test_what_may_pass_is_tried_again_with_growing_pauses(clock: Clock) -> None:
    assert patiently(failing(7), Patience(stop=clock)) == "there"
    assert clock.pauses == [0.5, 1, 2, 4, 8, 8, 8]


def test_the_pause_that_a_server_asks_for_is_made(clock: Clock) -> None:
    assert patiently(failing(2, wait=30), Patience(stop=clock)) == "there"
    assert clock.pauses == [30, 30]


def test_it_is_given_up_when_nothing_went_forward_for_so_long(clock: Clock) -> None:
    with pytest.raises(Passing, match="not now"):
        patiently(failing(1000), Patience(120, clock))
    assert 100 < sum(clock.pauses) <= 120


def test_what_goes_forward_is_never_given_up(clock: Clock) -> None:
    bearing = Patience(5, clock)
    for _ in range(100):
        bearing.wait(0, Passing("cut"))
        bearing.wait(3, Passing("cut"))
        bearing.progressed()
    assert sum(clock.pauses) == 450


def test_a_request_that_took_long_and_failed_in_the_end_is_tried_again_all_the_same(clock: Clock) -> None:
    def slow() -> None:
        clock.now += 1000

    assert patiently(failing(1, act=slow), Patience(120, clock)) == "there"
    with pytest.raises(Passing):
        patiently(failing(2, act=slow), Patience(120, clock))


def test_a_transfer_that_is_stopped_tries_nothing_again(clock: Clock) -> None:
    clock.set()
    tries = []
    with pytest.raises(Passing):
        patiently(failing(5, act=lambda: tries.append(1)), Patience(stop=clock))
    assert len(tries) == 1


def test_what_will_not_pass_is_told_at_once(clock: Clock) -> None:
    def refused() -> None:
        raise CredentialsError("no")

    with pytest.raises(CredentialsError):
        patiently(refused, Patience(stop=clock))
    assert not clock.pauses


def test_what_takes_too_long_is_left_behind() -> None:
    hanging = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, hanging.wait)
    hanging.set()
    assert within(60, lambda: "there") == "there"
    with pytest.raises(NotFound):
        within(60, lambda: (_ for _ in ()).throw(NotFound("gone")))


# the first contact


def test_a_silent_endpoint_is_told_soon_and_the_next_call_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.05)
    hanging = threading.Event()
    line = Line(lambda: "here", hanging.wait)
    for _ in range(2):
        with pytest.raises(ProviderError, match=r"^here did not answer within 0 seconds$") as raised:
            line.call(lambda: "never")
        assert raised.value.__suppress_context__
    hanging.set()
    monkeypatch.setattr(patience, "FIRST_SECONDS", 60)
    assert line.call(lambda: "there") == "there"


def test_an_endpoint_that_refuses_connections_is_told_before_the_silent_one(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """With the tries' own pauses; what they wait on is not the test's clock."""
    monkeypatch.setattr(patience, "Patience", lambda seconds=None, stop=None: Patience(seconds, clock))
    with pytest.raises(Passing, match="not now"):
        Line(lambda: "here", failing(1000)).call(lambda: "never")
    assert patience.FIRST_PATIENCE / 3 < sum(clock.pauses) <= patience.FIRST_PATIENCE < patience.FIRST_SECONDS


def test_an_endpoint_that_answered_once_is_not_asked_again() -> None:
    contacts = []
    line = Line(lambda: "here", lambda: contacts.append(1))
    assert [line.call(lambda: "there") for _ in range(3)] == ["there"] * 3
    assert len(contacts) == 1


def test_what_the_first_contact_finds_out_is_told_and_no_action_called() -> None:
    def no_bucket() -> None:
        raise NotFound("no bucket")

    with pytest.raises(NotFound, match="no bucket"):
        Line(lambda: "here", no_bucket).call(lambda: pytest.fail("called"))


def test_the_first_contact_is_tried_again_too(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(patience, "Patience", lambda seconds=None, stop=None: Patience(seconds, clock))
    assert Line(lambda: "here", failing(2)).call(lambda: "there") == "there"
