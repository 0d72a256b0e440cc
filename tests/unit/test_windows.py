"""How long will this car stay: the ladder's lower steps, on generated and hand-made stays."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.windows import as_bytes, bookable, predict, read_stays
from fleetbatch.windows.forecast import survival_of
from fleetbatch.windows.history import generate_stays

OSLO = ZoneInfo("Europe/Oslo")
NOW = datetime(2026, 11, 24, 21, tzinfo=UTC)


def stays(rows: list[tuple[int, datetime, datetime | None]], timezone: str = "Europe/Oslo") -> pa.Table:
    stamp = pa.timestamp("us", tz="UTC")
    table = {
        "car_id": pa.array([row[0] for row in rows], pa.uint64()),
        "plugged_in_at": pa.array([row[1] for row in rows], stamp),
        "unplugged_at": pa.array([row[2] for row in rows], stamp),
        "timezone": pa.array([timezone] * len(rows), pa.string()),
    }
    return conform(pa.table(table), "stays")


def plugged(rows: list[tuple[int, datetime]], timezone: str = "Europe/Oslo") -> pa.Table:
    return stays([(car, at, None) for car, at in rows], timezone).select(["car_id", "plugged_in_at", "timezone"])


def commuter(car: int, days: int, *, until: datetime, leaves: int = 7) -> pa.Table:
    """Plugged in at 18:00 and gone at `leaves` o'clock local, every day before `until`."""
    rows: list[tuple[int, datetime, datetime | None]] = []
    for ago in range(days, 0, -1):
        day = (until.astimezone(OSLO) - timedelta(days=ago)).replace(hour=18, minute=0)
        rows.append((car, day, (day + timedelta(days=1)).replace(hour=leaves)))
    return stays(rows)


def fleet(cars: int = 120, *, seed: int = 5) -> tuple[pa.Table, pa.Table]:
    names = pa.table({"car_id": pa.array(range(1, cars + 1), pa.uint64()), "timezone": ["Europe/Oslo"] * cars})
    past = generate_stays(names, until=NOW, days=90, seed=seed)
    still = past.filter(pa.array(past["unplugged_at"].is_null().to_pylist()))
    return still.select(["car_id", "plugged_in_at", "timezone"]), past


def test_survival_never_rises_and_stays_a_probability() -> None:
    cars, past = fleet()
    curves = survival_of(predict(cars, past, NOW))
    assert curves.min() >= 0
    assert curves.max() <= 1
    assert (np.diff(curves, axis=1) <= 0).all()


def test_a_new_car_is_a_group_car_and_gets_a_whole_curve() -> None:
    _, past = fleet()
    answer = predict(plugged([(999_999, NOW - timedelta(hours=3))]), past, NOW)
    assert answer["level"].to_pylist() == ["L0"]
    assert answer["stays_used"].to_pylist() == [0]
    assert np.isfinite(survival_of(answer)).all()


def test_a_car_whose_habits_may_not_be_used_is_forecast_as_one_never_seen() -> None:
    past = pa.concat_tables([fleet()[1], commuter(500, 60, until=NOW)])
    known, stranger = (plugged([(car, NOW - timedelta(hours=3))]) for car in (500, 999_999))
    forgotten = known.append_column("habits", pa.array([False]))
    told = predict(forgotten, past, NOW)
    assert told["car_id"].to_pylist() == [500]
    assert told.drop(["car_id"]) == predict(stranger, past, NOW).drop(["car_id"])
    assert told["survival"] != predict(known, past, NOW)["survival"]


def test_a_fleet_without_any_past_still_gets_curves() -> None:
    answer = predict(plugged([(1, NOW)]), empty("stays"), NOW)
    curve = survival_of(answer)[0]
    assert np.isfinite(curve).all()
    assert 0.2 < curve[43] < 0.6


def test_what_happens_after_now_changes_nothing() -> None:
    cars, past = fleet()
    later = generate_stays(
        pa.table({"car_id": pa.array([1, 2, 3], pa.uint64()), "timezone": ["Europe/Oslo"] * 3}),
        until=NOW + timedelta(days=60),
        days=58,
        seed=77,
    )
    told = pl.DataFrame(past).with_columns(unplugged_at=pl.col("unplugged_at").fill_null(NOW + timedelta(minutes=5)))
    assert predict(cars, past, NOW) == predict(cars, pa.concat_tables([past, later]), NOW)
    assert predict(cars, past, NOW) == predict(cars, told.to_arrow(), NOW)


def test_a_past_read_once_serves_for_later_rounds() -> None:
    cars, past = fleet()
    later = NOW + timedelta(minutes=15)
    ended = pl.DataFrame(past)["unplugged_at"].is_between(NOW, later).any()
    assert not ended
    assert predict(cars, read_stays(past, NOW), NOW) == predict(cars, past, NOW)
    again = survival_of(predict(cars, read_stays(past, NOW), later))
    assert again == pytest.approx(survival_of(predict(cars, past, later)), abs=0.01)


def test_the_order_of_rows_changes_nothing() -> None:
    cars, past = fleet()
    shuffled = past.take(np.random.default_rng(1).permutation(past.num_rows))
    assert predict(cars, past, NOW) == predict(cars, shuffled, NOW)
    backwards = predict(cars.take(np.arange(cars.num_rows)[::-1]), past, NOW)
    assert predict(cars, past, NOW) == backwards.take(np.arange(cars.num_rows)[::-1])


def test_the_representation_of_an_instant_changes_nothing() -> None:
    cars, past = fleet()
    tokyo = [
        past[name].cast(pa.timestamp("us", tz="Asia/Tokyo")) if pa.types.is_timestamp(past[name].type) else past[name]
        for name in past.column_names
    ]
    assert predict(cars, past, NOW) == predict(cars, pa.table(tokyo, names=past.column_names), NOW.astimezone(OSLO))


@pytest.mark.parametrize(
    ("day", "hours"),
    [((2026, 11, 24), 9), ((2026, 3, 28), 8), ((2026, 10, 24), 10)],
)
def test_a_commuter_leaves_by_the_clock_on_nights_of_any_length(day: tuple[int, int, int], hours: int) -> None:
    evening = datetime(*day, 22, tzinfo=OSLO)
    past = commuter(1, 40, until=evening)
    curve = survival_of(predict(plugged([(1, evening.replace(hour=18))]), past, evening.astimezone(UTC)))[0]
    assert curve[hours * 4 - 2] > 0.7
    assert curve[hours * 4 - 1] < 0.3


def test_a_commuter_with_two_routines_gets_two_modes() -> None:
    past = pa.concat_tables([commuter(1, 40, until=NOW), commuter(1, 40, until=NOW, leaves=11)])
    local = NOW.astimezone(OSLO)
    leaving = -np.diff(survival_of(predict(plugged([(1, local.replace(hour=18))]), past, NOW))[0])
    assert sorted(np.argsort(leaving)[-2:] + 1) == [9 * 4 - 1, 13 * 4 - 1]


def test_without_past_stays_shrinkage_is_the_group_and_with_many_it_is_the_car() -> None:
    local = NOW.astimezone(OSLO).replace(hour=18)
    others = pa.concat_tables([commuter(car, 30, until=NOW, leaves=12) for car in range(10, 40)])
    morning = 9 * 4 - 1
    at_eight = {}
    for days in (0, 2, 40):
        past = pa.concat_tables([others, commuter(1, days, until=NOW)]) if days else others
        at_eight[days] = survival_of(predict(plugged([(1, local)]), past, NOW))[0][morning]
    assert at_eight[0] > 0.9
    assert at_eight[0] > at_eight[2] > at_eight[40]
    assert at_eight[40] < 0.25


def test_exponential_stays_have_a_constant_hazard() -> None:
    chance = np.random.default_rng(3)
    starts = [NOW - timedelta(hours=float(h)) for h in chance.uniform(300, 3000, 4000)]
    rows = [(int(i), at, at + timedelta(hours=float(chance.exponential(8)))) for i, at in enumerate(starts)]
    cars = plugged([(10_000 + h, NOW - timedelta(hours=h)) for h in (0, 2, 7)])
    curves = survival_of(predict(cars, stays(list(rows)), NOW))
    for hour in (1, 4, 8):
        assert curves[:, hour * 4 - 1] == pytest.approx(np.exp(-hour / 8), abs=0.06)


def test_stays_that_go_on_do_not_shorten_the_curve() -> None:
    _, past = fleet()
    car = plugged([(999_999, NOW - timedelta(hours=3))])
    ended_only = past.filter(pa.array(past["unplugged_at"].is_valid().to_pylist()))
    with_open = pa.concat_tables([ended_only, stays([(500 + n, NOW - timedelta(hours=30), None) for n in range(300)])])
    assert (survival_of(predict(car, with_open, NOW)) >= survival_of(predict(car, ended_only, NOW)) - 1e-7).all()


@pytest.mark.parametrize("leak", ["unplugged_at", "energy_kwh", "duration_h"])
def test_a_column_that_tells_the_outcome_is_refused(leak: str) -> None:
    cars, past = fleet()
    with pytest.raises(RejectedError, match=leak):
        predict(cars.append_column(leak, pa.array([1.0] * cars.num_rows)), past, NOW)


def test_an_unknown_time_zone_is_refused_by_name() -> None:
    with pytest.raises(RejectedError, match="Europe/Osloo"):
        predict(plugged([(1, NOW)], "Europe/Osloo"), empty("stays"), NOW)


def test_booked_minutes_keep_to_the_risk_and_to_the_longest_asked() -> None:
    cars, past = fleet()
    answer = predict(cars, past, NOW)
    minutes, curves = bookable(answer, 0.1, 240), survival_of(answer)
    assert minutes.max() <= 240
    for booked, curve in zip(minutes, curves, strict=True):
        assert booked == 0 or curve[booked // 15 - 1] >= 0.9
    assert (bookable(answer, 0.2, 240) >= minutes).all()
    assert (bookable(answer, np.full(cars.num_rows, 0.1), 240) == minutes).all()


def test_the_planners_bytes_never_promise_more_than_the_curve() -> None:
    cars, past = fleet()
    answer = predict(cars, past, NOW)
    steps = np.array(as_bytes(answer).to_pylist(), dtype=float) / 255
    assert steps.shape == (cars.num_rows, 97)
    assert (steps[:, 0] == 1).all()
    assert (steps[:, 1:] <= survival_of(answer) + 1e-9).all()


def test_a_generated_past_is_the_same_for_the_same_seed_whoever_else_is_there() -> None:
    def past(cars: list[int], seed: int) -> pa.Table:
        names = pa.table({"car_id": pa.array(cars, pa.uint64()), "timezone": ["Europe/Oslo"] * len(cars)})
        return generate_stays(names, until=NOW, days=60, seed=seed)

    both = past([1, 2], 9)
    assert past([2], 9) == both.filter(pa.array([car == 2 for car in both["car_id"].to_pylist()]))
    assert past([1], 9) != past([1], 10)
