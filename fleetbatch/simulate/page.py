"""The page of a simulated night: work against its bound, what was wasted and why, energy, who earned what. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fleetbatch import pages
from fleetbatch.simulate.night import Night
from fleetbatch.simulate.plots import Line, over_the_night
from fleetbatch.simulate.scenario import HARDWARE, POWER_W
from fleetbatch.simulate.tally import credits_eur, values_of

WHY = {
    "left": "the owner left in mid row group",
    "crashed": "the car fell silent",
    "late": "overtaken by the deadline",
    "refused": "answers were wrong",
    "stopped": "charger busy, or out of reach",
}
TENTHS = 10


def night_page(night: Night, summary: Mapping[str, Any]) -> str:
    """Return the page as HTML that opens off-line."""
    said = summary["scenario"]
    share = f"{summary['realised_share']:.1%} of what somebody who knew every departure could have earned at most."
    body = [
        pages.paragraph(share, kind="good" if summary["realised_share"] >= GOOD else "bad"),
        pages.paragraph(
            f"{said['cars']} cars, {summary['cars_at_a_plug']} of them at a plug; {said['shards']} shards; "
            f"load {said['load']:g}; seed {said['seed']}; lived by {said['lived_by']}.",
            kind="faint",
        ),
        pages.section(
            "Value delivered over the night, against the bound",
            pages.paragraph(
                "A unit of work is a second of a middle car; the most urgent counts ten times.", kind="faint"
            ),
            _value(night),
        ),
        pages.section("Cars", _cars(night)),
        pages.section("Work done by priority", _priorities(summary)),
        pages.section("Busy seconds that came to nothing", _waste(summary)),
        pages.section("Energy, and who earned what", _energy(summary), _classes(night), _earned(night)),
        pages.section("Figures", _figures(summary)),
    ]
    return pages.page("A simulated night", body)


GOOD = 0.99


def _value(night: Night) -> str:
    rows = night.deliveries
    order = np.argsort(rows.at_s, kind="stable")
    total, end = np.cumsum(values_of(night)[order]), night.world.scenario.night_s
    marks = np.linspace(0.0, end, 97)
    upto = np.searchsorted(rows.at_s[order], marks, "right")
    done = np.concatenate([[0.0], total])[upto]
    bound = night.upper_bound + night.cost_value
    return over_the_night(
        [
            Line(name="delivered", at_s=marks.tolist(), values=done.tolist()),
            Line(name="bound for the night", at_s=[0.0, end], values=[bound, bound], dashed=True),
        ],
        unit="value",
    )


def _cars(night: Night) -> str:
    at_s = [moment.at_s for moment in night.moments]
    lines = {
        "plugged in": [float(moment.plugged) for moment in night.moments],
        "willing": [float(moment.willing) for moment in night.moments],
        "holding a shard": [float(moment.holding) for moment in night.moments],
    }
    return over_the_night([Line(name=name, at_s=at_s, values=values) for name, values in lines.items()], unit="cars")


def _priorities(summary: Mapping[str, Any]) -> str:
    shares = summary["done_share_by_priority"]
    names = ["priority 0, the most urgent", *(f"priority {place}" for place in range(1, len(shares)))]
    return pages.bars([(name, share, f"{share:.1%}") for name, share in zip(names, shares, strict=True)])


def _waste(summary: Mapping[str, Any]) -> str:
    busy = max(summary["busy_s"], 1e-9)
    rows = [(WHY[name], seconds, f"{seconds / busy:.2%}") for name, seconds in summary["lost_s"].items()]
    return pages.bars(rows)


def _energy(summary: Mapping[str, Any]) -> str:
    kwh, grams = summary["energy_kwh"], summary["carbon_g"]
    worth = summary["scenario"]["carbon_eur_per_tonne"]
    return pages.paragraph(
        f"{pages.count(round(kwh))} kWh for {summary['energy_eur']:.2f} EUR; {grams / 1000:,.1f} kg of CO2, "
        f"{grams / max(kwh, 1e-9):.0f} g a kWh; the plan counted a tonne as {worth:g} EUR."
    )


def _classes(night: Night) -> str:
    earned, fleet = credits_eur(night), night.world.fleet
    rows = []
    for place, name in enumerate(HARDWARE):
        mine = fleet.hw == place
        kwh = float(night.meter.busy_s[mine].sum()) * POWER_W[place] / JOULES_PER_KWH
        rows.append((name, int(mine.sum()), round(kwh, 1), round(float(earned[mine].sum()), 2)))
    return pages.table(("hardware", "cars", "kWh", "EUR earned"), rows)


JOULES_PER_KWH = 3.6e6


def _earned(night: Night) -> str:
    """Return what the cars earned, in tenths of the fleet from the least to the most."""
    tenths = np.array_split(np.sort(credits_eur(night)), TENTHS)
    rows = [
        (f"{place * 10} to {place * 10 + 10} % of cars", float(part.mean()), f"{part.mean():.2f} EUR a car")
        for place, part in enumerate(tenths)
        if len(part)
    ]
    return pages.bars(rows)


def _figures(summary: Mapping[str, Any]) -> str:
    rows = [(label(name), _said(value)) for name, value in summary.items() if not isinstance(value, dict | list)]
    return pages.table(("figure", "value"), rows)


UNITS = ("s", "kwh", "eur", "g", "units")


def label(name: str) -> str:
    """Return a figure's name for people: `energy_kwh` is energy, kWh."""
    words, _, unit = name.rpartition("_")
    if unit not in UNITS or not words:
        return name.replace("_", " ")
    return f"{words.replace('_', ' ')}, {unit.replace('kwh', 'kWh').replace('eur', 'EUR')}"


def _said(value: object) -> str | bool:
    """Return a figure as text, so that all of them stand in one line; what is large is a whole number."""
    match value:
        case bool():
            return value
        case int():
            return pages.count(value)
        case float():
            return pages.count(round(value)) if abs(value) >= LARGE else f"{value:.4g}"
        case _:
            return str(value)


LARGE = 1_000.0
