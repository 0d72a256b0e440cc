"""A cell's cars, a million of them in one process: each comes when it is due, or when the gateway told it to.

A call's time counts from when the car was due with it, whatever it waited for and however often it was sent away
meanwhile. A car that is not answered comes again as the runner does: after what it was told, else doubling from a
second. Tokens and signed announcements are made before anything is measured: a car has them when it calls.
"""

import asyncio
import gc
import random
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from benchmarks.ledger_cell import BenchCell
from benchmarks.ledger_lifecycles import Driver
from benchmarks.ledger_poll import BODY
from benchmarks.ledger_wires import HUNG_UP, Answer, Wires
from fleetbatch.protocol import BeatReply, ConfirmReply, Lease, PartReply, PollReply
from fleetbatch.units import ShardId, shard_hex

BEAT_S: Final = 60.0
_TICK_S: Final = 0.005
_RETRY_FIRST_S: Final = 1.0
_RETRY_LONGEST_S: Final = 60.0
_LINGER_S: Final = 30
_OK: Final = 200
_COME_BACK: Final = 503
_BEAT: Final = b'{"lease_id":"%b","fence":1,"row_groups_done":0,"energy_wh":1.0,"busy_s":60.0}'
_REQUEST: Final = (
    b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
)
_beat_reply = msgspec.json.Decoder(BeatReply).decode
_confirm_reply = msgspec.json.Decoder(ConfirmReply).decode
_part_reply = msgspec.json.Decoder(PartReply).decode
_poll_reply = msgspec.json.Decoder(PollReply).decode

Act = Callable[[int, float], None]
"""What a car does, and when it was due with it."""


def post(path: bytes, token: bytes, body: bytes) -> bytes:
    """Return the bytes of one call."""
    return _REQUEST % (path, token, len(body), body)


class Crowd:
    """Plays the cars. Which shard a car has follows from its number and from how many it has done."""

    def __init__(self, cell: BenchCell, *, computing: int, counted_from_s: float = 0.0) -> None:
        """Make a crowd in which the cars from 1 to `computing` hold a lease of the shard of their own number.

        What calls took is kept of those that were due from `counted_from_s` on.
        """
        self._counted_from_s = counted_from_s
        self.wires = Wires()
        self.took_ms: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.seen: Counter[str] = Counter()
        """Answers that were no answer to the question, by call and status."""
        self.delivered_s, self.granted_s = array("d"), array("d")
        """When parts were acknowledged and leases granted."""
        self.late_s = array("d")
        """How late this program was, tick by tick."""
        self._driver, self._cell, self._computing = Driver(cell, direct=True), cell, computing
        self._due: defaultdict[int, list[tuple[Act, int, float]]] = defaultdict(list)
        self._tokens: list[bytes] = []
        self._announcements: dict[int, bytes] = {}
        self._turns: Counter[int] = Counter()
        """How many leases each car has brought to their end."""
        self._unbeaten: set[int] = set()
        """Cars whose lease has ended: the beat that was due for it is not any more."""
        self._tries: Counter[int] = Counter()
        self._chance = random.Random(1)
        self._night = str(cell.order_key.night).replace("-", "")
        self._started = 0.0
        self._calls: dict[str, tuple[bytes, Act, Callable[[int, float, bytes], None]]] = {
            "beat": (b"/v1/beat", self.beat, self._beaten),
            "poll": (b"/v1/poll", self.poll, self._polled),
            "part": (b"/v1/part", self.announce, self._placed),
            "confirm": (b"/v1/part/confirm", self.announce, self._confirmed),
        }

    def shard_of(self, car: int) -> ShardId:
        """Return the shard that a car computes now."""
        return ShardId(car + self._turns[car] * self._computing)

    def equip(self, cars: int, announcing: Iterable[int]) -> None:
        """Give every car its token, and those that will end a lease what they say then; collect no more garbage."""
        gc.collect()
        gc.disable()  # a pause of the driver would look like the gateway's
        self._tokens = [b"", *(self._cell.token(car).encode() for car in range(1, cars + 1))]
        for car in announcing:
            self._announcements[car] = msgspec.json.encode(self._driver.part_of(car, self._lease(car)))

    def after_outage(self) -> "Crowd":
        """Return the same cars, before their next calls."""
        crowd = Crowd(self._cell, computing=self._computing)
        crowd._turns = self._turns
        return crowd

    def plan(self, act: Act, car: int, at_s: float) -> None:
        """Let a car do something, `at_s` after the start."""
        self._due[1 + int(at_s / _TICK_S)].append((act, car, at_s))

    def now_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started

    async def run(self, until_s: float) -> None:
        """Let the cars act until then, and hear the answers to what was asked by then."""
        self._started, tick = time.monotonic(), 0
        while tick * _TICK_S < until_s:
            now = self.now_s()
            self.late_s.append(now - tick * _TICK_S)
            while tick * _TICK_S <= now:
                for act, car, due in self._due.pop(tick, ()):
                    act(car, due)
                tick += 1
            await asyncio.sleep(max(0.0, tick * _TICK_S - self.now_s()))
        for _ in range(_LINGER_S):
            if self.wires.open:
                await asyncio.sleep(1)
        self.wires.close()

    def beat(self, car: int, due: float) -> None:
        """Say that a car goes on."""
        if car in self._unbeaten:
            self._unbeaten.discard(car)
            return
        self._ask("beat", _BEAT % self._lease_id(car).encode(), car, due)

    def poll(self, car: int, due: float) -> None:
        """Ask for work."""
        self._ask("poll", BODY, car, due)

    def deliver(self, car: int, due: float) -> None:
        """Bring a lease to its end, then ask for work."""
        self._unbeaten.add(car)
        self.announce(car, due)

    def announce(self, car: int, due: float) -> None:
        """Announce what a lease made, upload and confirm it; from the beginning again when one of these fails."""
        self._ask("part", self._announcements[car], car, due)

    def _beaten(self, car: int, due: float, body: bytes) -> None:
        self._took("beat", due)
        reply = _beat_reply(body)
        if reply.go_on:
            self.plan(self.beat, car, self.now_s() + (reply.beat_every_s or BEAT_S))
        else:
            self.seen["beat, stop"] += 1

    def _placed(self, car: int, due: float, body: bytes) -> None:
        place = _part_reply(body)
        if not place.already:
            self._driver.lay(place)
        self._ask("confirm", self._announcements[car], car, due)

    def _confirmed(self, car: int, due: float, body: bytes) -> None:
        assert _confirm_reply(body).complete, car
        self._took("complete", due)
        del self._announcements[car]
        self._turns[car] += 1
        self.delivered_s.append(self.now_s())
        self.poll(car, self.now_s())

    def _polled(self, car: int, due: float, body: bytes) -> None:
        reply = _poll_reply(body)
        if reply.lease is None:
            self._took("idle poll", due)
            self.plan(self.poll, car, self.now_s() + reply.retry_after_s * (1 + self._chance.random() / 10))
            return
        assert reply.lease.lease_id == self._lease_id(car), (car, reply)
        self._took("grant", due)
        self.granted_s.append(self.now_s())
        self.plan(self.beat, car, self.now_s() + reply.lease.beat_every_s)

    def _ask(self, name: str, body: bytes, car: int, due: float) -> None:
        path, again, then = self._calls[name]

        def heard(answer: Answer) -> None:
            if answer.status == _OK:
                self._tries.pop(car, None)
                then(car, due, answer.body)
                return
            self.seen[f"{name}, {answer.status or 'no answer'}"] += 1
            if answer.status in {_COME_BACK, HUNG_UP}:
                at_s = self.now_s() + self._wait_s(car, answer.retry_after_s)
                self._due[1 + int(at_s / _TICK_S)].append((again, car, due))

        self.wires.ask(post(path, self._tokens[car], body), heard)

    def _wait_s(self, car: int, told_s: float | None) -> float:
        """Return when the runner would come again."""
        if told_s is not None:
            return told_s * (1 + self._chance.random() / 2)
        self._tries[car] += 1
        doubled: float = _RETRY_FIRST_S * 2 ** min(self._tries[car] - 1, 16)
        return min(doubled, _RETRY_LONGEST_S) * (0.5 + self._chance.random() / 2)

    def _took(self, name: str, due: float) -> None:
        if due >= self._counted_from_s:
            self.took_ms[name].append((self.now_s() - due) * 1000)

    def _lease_id(self, car: int) -> str:
        return f"{self._night}-{shard_hex(self.shard_of(car))}-1"

    def _lease(self, car: int) -> Lease:
        """Return the lease that a car holds."""
        blank = dict.fromkeys(("order_key", "workload", "model_sha256", "model_url", "shard_url", "shard_sha256"), "")
        return msgspec.convert(
            {
                **blank,
                "lease_id": self._lease_id(car),
                "fence": 1,
                "shard_id": shard_hex(self.shard_of(car)),
                "shard_key": "",
                "options": {},
                **dict.fromkeys(("model_bytes", "shard_bytes", "start"), 0),
                "row_groups": 1,
                **dict.fromkeys(("expires_in_s", "beat_every_s", "part_every_s"), 60.0),
            },
            Lease,
        )
