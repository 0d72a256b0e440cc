"""The wait for the cars holds no worker: this trigger looks at the ledgers' counts until the night is over.

It lives in the plugins folder because the triggerer imports it by name.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from fleetbatch.steps import Progress

PAUSE_S = (1.0, 15.0)
"""Shortest and longest pause between two looks."""
PAUSE_SHARE = 0.05
"""A pause is this share of the time waited so far: a night of a minute ends in time, a long one is looked at rarely."""


class NightTrigger(BaseTrigger):
    """Fires once, when every shard is accounted for or the deadline and the audits' grace have passed."""

    def __init__(self, settings: str, key: str) -> None:
        """Wait for the order with this key in the deployment of this settings file."""
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's base is not typed
        self.settings = settings
        self.key = key

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how the triggerer makes this trigger again."""
        return ("fleetbatch_wait.NightTrigger", {"settings": self.settings, "key": self.key})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, say what changed, and come back; a ledger that is down is looked at again, not an end."""
        from fleetbatch.errors import RejectedError, TransientError

        began, said = time.monotonic(), ""
        while True:
            try:
                seen = await asyncio.to_thread(self.look)
            except TransientError as error:
                over, line = False, f"cannot see the night right now: {error}"
            except RejectedError as error:
                yield _event(rejected=str(error))
                return
            else:
                over, line = seen.over, seen.line()
            if line != said:
                self.log.info("%s", line)
                said = line
            if over:
                yield _event(key=self.key, line=line)
                return
            await asyncio.sleep(pause_s(time.monotonic() - began))

    def look(self) -> "Progress":
        """Count the night's shards; runs in a thread, since the ledger's door is synchronous."""
        from fleetbatch.nouns import OrderKey
        from fleetbatch.settings import load_settings
        from fleetbatch.steps import progress

        return progress(load_settings(Path(self.settings)), OrderKey.parse(self.key), now=datetime.now(UTC))


def pause_s(waited_s: float) -> float:
    """Return the pause before the next look; pure."""
    shortest, longest = PAUSE_S
    return min(longest, max(shortest, PAUSE_SHARE * waited_s))


def _event(**payload: str) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call] # Airflow's constructor is not typed
