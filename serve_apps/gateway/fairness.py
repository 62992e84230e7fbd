"""The queue of one model in one replica: who gets its next place, and who is refused when too many wait.

* The lower priority number goes first. Within a priority, start-time fair queueing (Goyal et al., 1996) between
  tenants, first come first served within one. Charged is the time a place is held, estimated when it is given and
  settled when it comes back: who asks for long answers gets fewer of them.
* A tenant that floods, asking for more than its share of the places, leaves the last few free while others are active
  that do not. Otherwise whoever keeps within its share would still find every place taken, and wait for one to come
  back. How many are left free adapts: one more when somebody who does not flood had to wait, one fewer when that did
  not happen for a while. Nobody is kept below half its share, and tenants that all flood have all places.
  With fewer than about eight places a few left free are too few to spare others the wait.
* What our own applications ask for in the background (lines of batches) has no share: it takes what is spare, and
  leaves as many places as others needed at a time, until they have not asked for a while. One it may have where all are
  free. Somebody else who would have to wait all the same takes a place back from it, the one that was given last. Its
  requests begin one by one: a crowd's prompts would be read at once, and everybody's tokens wait for that; and it would
  end at once.
* Where too many wait, the least important is refused: of the highest priority number, of the tenant that has the most
  waiting for its share, the newest.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from serve_apps.common.errors import RateLimited
from serve_apps.gateway.config import BACKGROUND_PRIORITY, Queue

#: The least and the most that a refused caller is told to stay away, in seconds.
RETRY_AFTER_S = (1, 60)
#: How long a tenant counts as active after its last request, in seconds.
ACTIVE_S = 60.0
#: So long after everybody else's last request the background has all places, in seconds.
SPARE_AFTER_S = 30.0
#: One place fewer is left free after this many requests in a row that did not have to wait: about one in as many does.
GIVEN_IN_A_ROW = 40
#: What others need at a time is that many places less with each of their requests that finds fewer of them taken.
_NEED_FADES = 0.1
#: In the background all places are given in this part of the time that one is held there, and not at once.
_SPREAD = 0.75
#: Between two of them, in seconds: none if it were shorter, and no longer, since that time may have changed.
_PAUSES_S = (0.002, 0.2)
#: What a tenant asks for is measured over about so many seconds.
_DEMAND_S = 30.0
#: How much the newest counts in the mean time a place is held.
_NEWEST = 0.1
#: The mean time a place is held, in seconds, before one was.
_FIRST_GUESS_S = 1.0


@dataclass(slots=True, eq=False)
class Lane:
    """One tenant's requests of one priority."""

    priority: int
    share: float
    waiting: deque["Place"] = field(default_factory=deque)
    running: int = 0
    tag: float = 0
    """When its next request starts, in the virtual time of its priority: seconds of a place for one share."""
    seen_s: float = 0
    """When it last asked or gave back."""
    demand_s: float = 0
    """Seconds of a place it asked for, as of ``demand_at_s``; what is older counts less."""
    demand_at_s: float = 0

    @property
    def background(self) -> bool:
        """Whether it takes only what is spare."""
        return self.priority >= BACKGROUND_PRIORITY

    @property
    def claim(self) -> float:
        """What it is owed of the places, beside others."""
        return 0.0 if self.background else self.share

    @property
    def order(self) -> tuple[int, float]:
        """The least goes first."""
        return self.priority, self.tag

    def wants(self, seconds: float, now: float) -> None:
        """Add seconds of a place to what it asked for."""
        self.demand_s = self.demand_s * math.exp((self.demand_at_s - now) / _DEMAND_S) + seconds
        self.demand_at_s = now


@dataclass(slots=True, eq=False)
class Place:
    """A place at the model, from asking for it to giving it back."""

    lane: Lane
    asked_s: float
    patience_s: float = math.inf
    """How long it waits at most, should the queue let it wait longer."""
    state: Literal["waiting", "held", "over"] = "waiting"
    given: asyncio.Future[None] | None = None
    """Done when it is given, or refused with ``RateLimited``; None if it was given at once."""
    timer: asyncio.TimerHandle | None = None
    began_s: float = 0
    charged_s: float = 0
    """How long it is taken to be held until that is known."""
    take_back: Callable[[], bool] | None = None
    """Ends what it is held for, unless it is too late for that; whether it did. None before that has begun."""
    taken_back: bool = False
    """Whether somebody else waits for it. Only in the background."""


class Line:
    """The queue of one model. It runs on one event loop, whose clock it goes by."""

    def __init__(self, model: str, queue: Queue | None, told: Callable[[str, int], None]) -> None:
        """``told(model, count)`` hears of every change of the number that waits."""
        self._model = model
        self._queue = queue
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[int, str], Lane] = {}
        """Of the tenants that are active."""
        self._shares = 0.0
        self._virtual: dict[int, float] = {}
        """The virtual time of each priority: the tag of the request that started last."""
        self._running = 0
        self._waiting = 0
        self._background: list[Place] = []
        """The places held in the background, the one given last at the end."""
        self._background_waits = 0
        self._background_pauses = False
        self._background_held_s = _FIRST_GUESS_S
        self._shown = 0
        self._held_s = _FIRST_GUESS_S
        self._left_free = 0
        self._given_in_a_row = 0
        self._others_need = 0.0
        """Places at a time, of those not in the background."""
        self._others_asked_s = -math.inf
        self._swept_s = self._loop.time()

    def limit_by(self, queue: Queue | None) -> None:
        """Put ``queue`` in force, for those that wait too; None lets everybody go."""
        if queue == self._queue:
            return
        self._queue = queue
        if not self._waiting:
            return
        for lane in self._lanes.values():
            for place in lane.waiting:
                self._set_timer(place)
        self._give()
        while queue is not None and self._waiting > queue.max_waiting:
            self._shed()
        self._tell()

    def ask(self, tenant: str, priority: int, share: float, patience_s: float | None = None) -> Place:
        """A place that is held already, or one that waits: await its ``given``. ``leave`` it in any case."""
        now = self._loop.time()
        lane = self._lane(now, tenant, priority, share)
        place = Place(lane, now, math.inf if patience_s is None else patience_s, charged_s=self._held_s)
        lane.wants(place.charged_s, now)
        if self._waiting:
            self._give()  # what time alone has allowed
        if not lane.background:
            self._note_need(now)
        if not lane.waiting:
            lane.tag = max(lane.tag, self._virtual.get(priority, 0.0))
            given = self._may_have(lane, now)
            if not self._floods(lane, now):
                self._adapt(given)
            if given:
                self._start(place, now)
                return place
        place.given = self._loop.create_future()
        lane.waiting.append(place)
        self._waiting += 1
        self._background_waits += lane.background
        self._set_timer(place)
        if self._queue is not None and self._waiting > self._queue.max_waiting:
            self._shed()
        if place.state == "waiting" and not lane.background:
            self._take_back()
        self._tell()
        return place

    def leave(self, place: Place) -> None:
        """Give a place back, or no longer wait for it."""
        if place.state == "waiting":
            self._forget(place)
        elif place.state == "held":
            place.state = "over"
            now = self._loop.time()
            held_s = now - place.began_s
            lane = place.lane
            lane.tag += (held_s - place.charged_s) / lane.share
            lane.wants(held_s - place.charged_s, now)
            lane.running -= 1
            lane.seen_s = now
            self._running -= 1
            if lane.background:
                self._background.remove(place)
                self._background_held_s += _NEWEST * (held_s - self._background_held_s)
            self._held_s += _NEWEST * (held_s - self._held_s)
            if self._waiting:
                self._give()
        elif place.given is not None and not place.given.cancelled():
            place.given.exception()  # who was cancelled did not hear of the refusal; asyncio would complain
        self._tell()

    def _take_back(self) -> None:
        """Somebody waits: the background gives a place back, of which the least work is lost."""
        if self._queue is None or self._running < self._queue.max_concurrent:
            return  # it waits for what others are left, not for the background
        for place in reversed(self._background):
            if not place.taken_back and (place.take_back is None or place.take_back()):
                place.taken_back = True
                return

    def _lane(self, now: float, tenant: str, priority: int, share: float) -> Lane:
        if now - self._swept_s > ACTIVE_S / 4:
            self._sweep(now)
        lane = self._lanes.get((priority, tenant))
        if lane is None:
            lane = self._lanes[priority, tenant] = Lane(priority, share)
            self._shares += lane.claim
        elif lane.share != share:
            self._shares -= lane.claim
            lane.share = share
            self._shares += lane.claim
        lane.seen_s = now
        return lane

    def _give(self) -> None:
        """Give every place that may be given now to whoever goes first."""
        now = self._loop.time()
        if now - self._swept_s > ACTIVE_S / 4:
            self._sweep(now)
        while self._waiting and (self._queue is None or self._running < self._queue.max_concurrent):
            may = (lane for lane in self._lanes.values() if lane.waiting and self._may_have(lane, now))
            lane = min(may, key=lambda lane: lane.order, default=None)
            if lane is None:
                return
            place = lane.waiting[0]
            self._forget(place)
            if place.given is not None and not place.given.done():  # else its task was cancelled and will find out
                self._start(place, now)
                place.given.set_result(None)

    def _start(self, place: Place, now: float) -> None:
        lane = place.lane
        self._virtual[lane.priority] = max(self._virtual.get(lane.priority, 0.0), lane.tag)
        lane.tag += place.charged_s / lane.share
        lane.running += 1
        self._running += 1
        place.state, place.began_s = "held", now
        if lane.background:
            self._background.append(place)
            self._pause(now)

    def _pause(self, now: float) -> None:
        """The background gets its next place in a moment."""
        if self._queue is None:
            return
        spare = max(self._queue.max_concurrent - self._others_need_at(now), 1)
        least, most = _PAUSES_S
        pause_s = min(_SPREAD * self._background_held_s / spare, most)
        if pause_s >= least:
            self._background_pauses = True
            self._loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._background_pauses = False
        if self._waiting:
            self._give()
            self._tell()

    def _may_have(self, lane: Lane, now: float) -> bool:
        if self._queue is None:
            return True
        free = self._queue.max_concurrent - self._running
        if lane.background:
            if self._background_pauses:
                return False
            spare = self._queue.max_concurrent - self._others_need_at(now)
            return free > 0 and (self._running == 0 or len(self._background) + 1 <= spare)
        if free > self._left_free or free <= 0 or not self._floods(lane, now):
            return free > 0
        return lane.running < self._part(lane) / 2 or not self._others_keep_within(lane, now)

    def _others(self) -> int:
        """The requests that have a place or wait for one, and are not in the background."""
        return self._running - len(self._background) + self._waiting - self._background_waits

    def _note_need(self, now: float) -> None:
        """One more asks that is not in the background."""
        if now - self._others_asked_s > SPARE_AFTER_S:
            self._others_need = 0
        self._others_need = max(self._others() + 1, self._others_need - _NEED_FADES)
        self._others_asked_s = now

    def _others_need_at(self, now: float) -> float:
        """The places that the background leaves to others."""
        lately = self._others_need if now - self._others_asked_s < SPARE_AFTER_S else 0
        return max(lately, self._others())

    def _part(self, lane: Lane) -> float:
        """The places that are its share."""
        return self._queue.max_concurrent * lane.share / self._shares if self._queue is not None else math.inf

    def _floods(self, lane: Lane, now: float) -> bool:
        """Whether it asks for more than its share."""
        return (
            lane.background
            or lane.demand_s * math.exp((lane.demand_at_s - now) / _DEMAND_S) > self._part(lane) * _DEMAND_S
        )

    def _others_keep_within(self, lane: Lane, now: float) -> bool:
        """Whether anybody is active for whom places must be left: who does not flood and is as important."""
        others = (other for other in self._lanes.values() if other is not lane and other.priority <= lane.priority)
        return any(not self._floods(other, now) for other in others)

    def _adapt(self, given: bool) -> None:
        """Learn from a request of a tenant that does not flood how many places must be left free."""
        if self._queue is None or len(self._lanes) < 2:
            return
        if not given:
            self._left_free = min(self._left_free + 1, self._most_left_free(self._queue.max_concurrent))
            self._given_in_a_row = 0
            return
        self._given_in_a_row += 1
        if self._given_in_a_row >= GIVEN_IN_A_ROW:
            self._left_free = max(0, self._left_free - 1)
            self._given_in_a_row = 0

    @staticmethod
    def _most_left_free(places: int) -> int:
        return min(places - 1, places // 4 + 1)

    def _shed(self) -> None:
        """Refuse the least important of those that wait."""
        lane = max(
            (lane for lane in self._lanes.values() if lane.waiting),
            key=lambda lane: (lane.priority, len(lane.waiting) / lane.share, lane.waiting[-1].asked_s),
        )
        busy = f'The model "{self._model}" is busy, and as many requests wait for it as may; try again later.'
        self._refuse(lane.waiting[-1], busy, "model_overloaded")

    def _expire(self, place: Place) -> None:
        waited_s = self._loop.time() - place.asked_s
        late = f'The model "{self._model}" had no place for the request within {waited_s:.3g} s; try again later.'
        self._refuse(place, late, "queue_timeout")
        self._tell()

    def _refuse(self, place: Place, message: str, code: str) -> None:
        retry_after_s = self._retry_after_s()
        self._forget(place)
        if place.given is not None and not place.given.done():
            place.given.set_exception(RateLimited(message, code=code, retry_after_s=retry_after_s))

    def _retry_after_s(self) -> int:
        """When those that wait now are through, by how long places were held lately."""
        places = self._queue.max_concurrent if self._queue is not None else 1
        least, most = RETRY_AFTER_S
        return max(least, min(most, math.ceil(self._waiting * self._held_s / places)))

    def _forget(self, place: Place) -> None:
        """It waits no more."""
        place.state = "over"
        place.lane.waiting.remove(place)
        self._waiting -= 1
        self._background_waits -= place.lane.background
        self._stop_timer(place)

    def _set_timer(self, place: Place) -> None:
        self._stop_timer(place)
        if self._queue is not None:
            wait_s = min(self._queue.timeout_s, place.patience_s)
            place.timer = self._loop.call_at(place.asked_s + wait_s, self._expire, place)

    @staticmethod
    def _stop_timer(place: Place) -> None:
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None

    def _sweep(self, now: float) -> None:
        """Forget the tenants that are no longer active, and leave nothing free for nobody."""
        self._swept_s = now
        for key, lane in list(self._lanes.items()):
            if not lane.waiting and not lane.running and now - lane.seen_s > ACTIVE_S:
                del self._lanes[key]
        self._shares = sum(lane.claim for lane in self._lanes.values())
        if len(self._lanes) < 2:
            self._left_free = 0

    def _tell(self) -> None:
        if self._waiting != self._shown:
            self._shown = self._waiting
            self._told(self._model, self._waiting)
