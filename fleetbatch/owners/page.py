"""An owner's statement as a page that opens off-line. Pure."""

from fleetbatch.pages import page, paragraph, section, table
from fleetbatch.protocol import ConsentEntry, StatementNight, StatementReply

_MICRO = 1_000_000
UNREADABLE = "cannot be told now, its archive cannot be read; what was paid for it is in what was paid so far"
"""Of a night that a statement lacks."""
_HEAD = ("night", "order", "data", "rows", "minutes", "kWh", "MB read", "MB sent", "credits", "in escrow")


def statement_page(told: StatementReply) -> str:
    """Return the statement as one HTML document."""
    paid = f"paid to the owner so far, for all cars: {told.owner_paid_micro / _MICRO:.6f} credits"
    waits = f"of this car, waiting for its audit: {told.escrow_micro / _MICRO:.6f} credits"
    return page(
        f"Statement of car {told.car_id}",
        [
            section("What it earned", paragraph(paid), paragraph(waits)),
            section(
                "What it did, night by night",
                *(paragraph(f"night {night} {UNREADABLE}") for night in told.unreadable_nights),
                table(_HEAD, [_night(night) for night in told.nights]),
            ),
            section(
                "What its owner said",
                table(("when (UTC)", "answer", "to", "notice", "record"), [_consent(one) for one in told.consents]),
            ),
        ],
    )


def _night(night: StatementNight) -> tuple[object, ...]:
    return (
        night.night,
        night.order if night.generation == 1 else f"{night.order}, generation {night.generation}",
        night.data_class,
        night.rows,
        round(night.minutes, 1),
        f"{night.energy_wh / 1000:.3f}",
        round(night.bytes_read / 1e6, 1),
        round(night.bytes_sent / 1e6, 1),
        f"{night.paid_micro / _MICRO:.6f}",
        f"{night.escrow_micro / _MICRO:.6f}",
    )


def _consent(entry: ConsentEntry) -> tuple[str, ...]:
    return entry.at[:19], "yes" if entry.granted else "no", entry.purpose, entry.notice_version, entry.sha256[:16]
