"""One run of the simulation: a seed in, what was seen out."""

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
from faults.simulation.dials import Dials
from faults.simulation.world import World, world

_CALM: timedelta = timedelta(hours=3)
_ENOUGH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one seed did."""

    seed: int
    events: int
    virtual_hours: float
    checks: int
    violations: tuple[str, ...]
    story: str
    """A digest of the ledger's last state: equal for equal seeds."""
    wall_s: float
    cpu_s: float
    """Of this process and of the database's."""
    rows: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    own_cpu_s: float = 0.0

    def line(self) -> str:
        return (
            f"seed {self.seed}: {self.events} events in {self.virtual_hours:.1f} virtual hours, {self.checks} checks, "
            f"{len(self.violations)} violations, {self.rows} rows published once; "
            f"{self.wall_s:.1f} s, {self.cpu_s:.1f} CPU s ({self.own_cpu_s:.1f} of them the simulator's), "
            f"{self.events / self.cpu_s:.0f} events per CPU second"
        )


def simulate(  # noqa: PLR0913 # a run is what it is told
    url: str,
    seed: int,
    events: int,
    dials: Dials,
    *,
    restart: Callable[[], None] | None = None,
    enough: int = _ENOUGH,
    data: Path | None = None,
) -> Outcome:
    """Run a bad day of that many events, then a calm evening in which everything must be finished."""
    began, cpu, own = time.monotonic(), _cpu_s(data), time.process_time()
    gone = 0.0
    with _nothing_to_collect(), world(url, seed, dials) as cell:
        restarts = [events * (n + 1) // (dials.restarts + 1) for n in range(dials.restarts)] if restart else []
        while cell.events < events and len(cell.witness.violations) < enough:
            cell.tick()
            if restarts and restart and cell.events >= restarts[0]:
                restarts.pop(0)
                before = _cpu_s(data)
                _restart(cell, restart)
                gone += before - _cpu_s(data)
        if not cell.witness.violations:
            _calm(cell)
        cell.look()
        cell.money.look(cell.observer)
        return Outcome(
            seed=seed,
            events=cell.events,
            virtual_hours=cell.ticks * dials.tick / timedelta(hours=1),
            checks=sum(cell.witness.seen.values()),
            violations=tuple(cell.witness.violations),
            story=_story(cell),
            wall_s=time.monotonic() - began,
            cpu_s=_cpu_s(data) + gone - cpu,
            rows=cell.mornings.rows,
            own_cpu_s=time.process_time() - own,
            seen=dict(cell.witness.seen),
        )


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Leave the collector out: a run keeps nearly all that it makes, and looking through it again finds nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _calm(cell: World) -> None:
    cell.calm_down()
    until = cell.now + _CALM
    while cell.mornings.nights and cell.now < until and not cell.witness.violations:
        cell.tick()
    left = [str(night.key) for night in cell.mornings.nights]
    cell.witness.check("P6 whatever happened, calm finishes every order", left, holds=not left)


def _restart(cell: World, restart: Callable[[], None]) -> None:
    cell.observer.close()
    restart()
    cell.reconnect()
    cell.look()


def _story(cell: World) -> str:
    rows = cell.observer.execute(
        b"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM ("
        b" SELECT car_id, consents::text, audited_rows::text, strikes::text, '' FROM fleetbatch.cars UNION ALL"
        b" SELECT shard_id, fence::text, state::text, done_through::text, ended_at::text FROM fleetbatch.leases) t"
    ).fetchall()
    return hashlib.sha256(repr((rows, cell.events, cell.ticks, cell.chance.random())).encode()).hexdigest()[:16]


def _cpu_s(data: Path | None) -> float:
    """CPU of this process, and of the server whose data lie there, as far as its processes still live."""
    spent = time.process_time()
    if data is None:
        return spent
    try:
        server = psutil.Process(int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
        family = [server, *server.children(recursive=True)]
    except (OSError, ValueError, psutil.Error):
        return spent
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system + (times.children_user + times.children_system) * (process is server)
    return spent
