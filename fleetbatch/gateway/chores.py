"""What a gateway does without being asked: learn of rounds, sweep, write telemetry, watch its own pace."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from time import process_time

from fleetbatch import layout
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.pacing import next_pressure
from fleetbatch.gateway.telemetry import signals_file
from fleetbatch.logs import say, write_out
from fleetbatch.store import refuse_lacking

_PACE_EVERY_S = 0.5
_LINES_EVERY_S = 0.05
"""What a gateway said in so long is missing in its log when it is killed; the ledger misses nothing."""
_AWAY_S = 0.5


@contextlib.asynccontextmanager
async def chores(gate: Gate, *, name: str, store_tried: bool = True) -> AsyncIterator[None]:
    """Run the chores while the body runs; what was heard last is written at the end. `name` is the process's own."""
    loops = [
        follow_ledger(gate),
        sweep(gate),
        write_telemetry(gate, name=name),
        keep_pace(gate),
        write_lines(),
        forget_assertions(gate),
    ]
    if not store_tried:
        loops.append(try_store(gate))
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _tried(lambda: flush(gate, name=name))


async def follow_ledger(gate: Gate) -> None:
    """Hold the newest round and know whose tokens are void, soon after a notice, or at the next look."""
    listens = await _noticed(gate, for_s=0.0) is not None  # before a look, or what happens between the two is seen late
    look_at = 0.0
    while True:
        now = asyncio.get_running_loop().time()
        if now >= look_at:
            gate.ledger_answers = await _tried(lambda: take_round(gate)) and await _tried(lambda: take_voided(gate))
            look_at = now + (gate.dials.look_every.total_seconds() if gate.ledger_answers else _AWAY_S)
        noticed = await _noticed(gate, for_s=gate.dials.listen_for.total_seconds())
        if noticed or (noticed is not None and not listens):  # what was announced to nobody is looked for
            look_at = 0.0
        listens = noticed is not None


async def take_round(gate: Gate) -> None:
    """Look whether there is a newer round, and hold it."""
    newest = await gate.off_loop(gate.ledger.latest_round)
    if newest is not None and newest != gate.book.round_id:
        gate.book.turn(await gate.off_loop(gate.ledger.offers, newest))
        say("round", round=newest, offers=len(gate.book))


async def take_voided(gate: Gate) -> None:
    """Learn whose tokens were voided, here or at another gateway, while tokens of that time would still live."""
    within = gate.dials.token_for + 2 * gate.dials.clock_skew  # once for their end, once for the clock that looks
    gate.void_until = gate.void_tokens(await gate.off_loop(gate.ledger.voided_tokens, within))


async def sweep(gate: Gate) -> None:
    """End leases whose time is over, in bounded batches."""
    while True:
        await asyncio.sleep(gate.dials.sweep_every.total_seconds() * (0.5 + gate.chance()))
        await _tried(lambda: _sweep_once(gate))


async def _sweep_once(gate: Gate) -> None:
    more = True
    while more:
        swept = await gate.off_loop(gate.ledger.sweep)
        for lease in swept.expired:
            held = gate.let_go(lease)
            if held is not None:
                gate.book.freed(held.shard_id)
            say("expired", lease=lease)
        gate.metrics.events["expired"] += len(swept.expired)
        more = swept.more
    silent_since = gate.clock() - 2 * gate.dials.lease_for
    for lease in [lease for lease, heard_at in gate.heard_at.items() if heard_at < silent_since]:
        gate.let_go(lease)


async def write_telemetry(gate: Gate, *, name: str) -> None:
    """Write what was heard, every minute."""
    while True:
        await asyncio.sleep(gate.dials.telemetry_every.total_seconds())
        await _tried(lambda: flush(gate, name=name))


async def flush(gate: Gate, *, name: str) -> None:
    """Write what was heard so far as one file; keep it when that fails, whatever the reason.

    A stop waits for a file that is being written: its rows would be lost, or written twice.
    """
    rows, at = gate.telemetry.take(), gate.clock()
    if not rows:
        return
    key = layout.telemetry(gate.cell.name, f"{at:%S%f}-{name}", at)
    writing = asyncio.ensure_future(gate.off_loop(lambda: gate.store.write(key, signals_file(rows))))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])
        if writing.exception() is not None:
            gate.telemetry.put_back(rows)


async def forget_assertions(gate: Gate) -> None:
    """Let the ledger forget the assertions that buy nothing any more."""
    while True:
        await asyncio.sleep(gate.dials.assertion_for.total_seconds() * (0.5 + gate.chance()))
        await _tried(lambda: gate.off_loop(gate.ledger.forget_assertions))


async def try_store(gate: Gate) -> None:
    """Try a store out that was away at the start, until it answers, and say what it lacks; beats are still heard."""
    tried = False
    while not tried:
        await asyncio.sleep(gate.dials.look_every.total_seconds())
        tried = await _tried(lambda: _try_store_once(gate))


async def _try_store_once(gate: Gate) -> None:
    try:
        await gate.off_loop(lambda: refuse_lacking(gate.store))
    except RejectedError as error:
        say("store lacks something", level=logging.ERROR, detail=str(error))
    else:
        say("store tried")


async def write_lines() -> None:
    """Write the lines of the log together: a write for each would cost more than the line."""
    while True:
        await asyncio.sleep(_LINES_EVERY_S)
        write_out()


async def keep_pace(gate: Gate) -> None:
    """Stretch the cars' waits while the event loop runs late or the process has little left of its core."""
    loop = asyncio.get_running_loop()
    while True:
        began, cpu_s = loop.time(), process_time()
        await asyncio.sleep(_PACE_EVERY_S)
        took_s = loop.time() - began
        gate.metrics.loop_late.took(max(0.0, took_s - _PACE_EVERY_S))
        late, busy = timedelta(seconds=max(0.0, took_s - _PACE_EVERY_S)), (process_time() - cpu_s) / took_s
        gate.busy, gate.pressure = busy, next_pressure(gate.pressure, late=late, busy=busy, dials=gate.dials)


async def _noticed(gate: Gate, *, for_s: float) -> bool | None:
    """Wait for a notice; return whether one came, and None, after a while, when nobody could listen for it."""
    try:
        return await gate.off_loop(gate.ledger.wait_for_news, for_s)
    except TransientError:
        await asyncio.sleep(_AWAY_S)
        return None


async def _tried(chore: Callable[[], Awaitable[None]]) -> bool:
    """Do a chore; what fails now is tried again at its next turn."""
    try:
        await chore()
    except TransientError as error:
        say("chore failed", level=logging.WARNING, detail=str(error))
        return False
    except Exception as error:  # noqa: BLE001 # a bug in one chore must not end it, nor the others
        say("chore failed", level=logging.ERROR, error=error)
        return False
    return True
