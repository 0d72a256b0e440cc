"""Which of two models serves: a newer one runs in the shadow until a week that neither has seen speaks for it. Pure."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from fleetbatch.units import Sha256
from fleetbatch.windows.state import Tuned

SHADOW: Final = timedelta(days=7)
"""A model is judged on days after its own, so that it has not learnt from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model in the store."""

    day: date
    sha256: Sha256
    key: str


def model_of(key: str) -> Model:
    """Return what the key of a model says."""
    name = key.rpartition("/")[2].removesuffix(".zip")
    return Model(day=date.fromisoformat(name[:10]), sha256=Sha256(name[11:]), key=key)


def pick(models: tuple[Model, ...], serving: str, today: date) -> tuple[Model | None, Model | None]:
    """Return the model that serves and the one in its shadow, of those learnt up to today.

    Without one serving, the newest takes the place at once: it has passed its gates.
    """
    known = sorted((m for m in models if m.day <= today), key=lambda m: (m.day, m.sha256))
    if not known:
        return None, None
    current = next((m for m in known if m.sha256 == serving), None)
    if current is None:
        return known[-1], None
    newer = [m for m in known if (m.day, m.sha256) > (current.day, current.sha256)]
    return current, newer[-1] if newer else None


def promoted(serving: Tuned, shadow: Tuned, shadow_day: date, today: date) -> bool:
    """Say whether the shadow takes over: seven days old, and no worse than the serving model on them."""
    if today - shadow_day < SHADOW or "L2" not in serving.figures or "L2" not in shadow.figures:
        return False
    return shadow.figures["L2"].integrated_brier <= serving.figures["L2"].integrated_brier


def compared(serving: Tuned, trial: Tuned, shadow: Model, *, taken: bool) -> str:
    """Return in a sentence what the model in the shadow was worth."""
    name = f"model {shadow.sha256[:12]} of {shadow.day}"
    if "L2" not in serving.figures or "L2" not in trial.figures:
        return f"{name} runs in the shadow; there is nothing to compare it with"
    ours, theirs = (state.figures["L2"].integrated_brier for state in (serving, trial))
    scored = f"integrated Brier score {theirs:.4f} against {ours:.4f} of model {serving.model_sha256[:12]}"
    if taken:
        return f"{name} has taken over from the shadow: {scored}"
    return f"{name} runs in the shadow and may take over from {shadow.day + SHADOW} on: {scored}"
