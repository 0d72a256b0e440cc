"""Every car is planned for or left out with a reason; charge comes before compute."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from signal_rows import PLUGGED, said, signals

from fleetbatch.contracts import conform
from fleetbatch.fleet import Dials, fold, frame, nothing_heard, plugged, snapshot
from fleetbatch.fleet.charge import HORIZON_S, Charging, limit_s, ready_s

NOW = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
MODEL = "ab" * 32
BATTERY = "Vehicle.Powertrain.TractionBattery"
SILENT: dict[str, Any] = {PLUGGED: None, "Vehicle.Speed": None}
"""What is left of a vehicle's words without its owner's consent to telemetry."""
SOC, CHARGING = f"{BATTERY}.StateOfCharge.Current", f"{BATTERY}.Charging.IsCharging"


def ledger_cars(*rows: dict[str, Any]) -> pa.Table:
    known = {
        "owner_id": 7,
        "consent": True,
        "revoked": False,
        "reputation": 1.0,
        "running_shard": None,
        "running_done_through": None,
        "last_beat_at": None,
    }
    types: dict[str, pa.DataType] = {
        "car_id": pa.uint64(),
        "owner_id": pa.uint64(),
        "consent": pa.bool_(),
        "revoked": pa.bool_(),
        "reputation": pa.float64(),
        "running_shard": pa.uint64(),
        "running_done_through": pa.int16(),
        "last_beat_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.Table.from_pylist([{**known, **row} for row in rows], pa.schema(types))


def windows(*cars: int) -> pa.Table:
    rows = [{"car_id": one, "survival": [0.5] * 96, "level": "L0", "stays_used": 0} for one in cars]
    return conform(
        pa.Table.from_pylist(
            rows,
            pa.schema(
                {
                    "car_id": pa.uint64(),
                    "survival": pa.list_(pa.float32(), 96),
                    "level": pa.string(),
                    "stays_used": pa.int32(),
                }
            ),
        ),
        "idle_windows",
    )


def open_shards(*kinds: tuple[str, str, str]) -> pa.Table:
    names = ("workload", "model_sha256", "data_class")
    return pa.Table.from_pylist(
        [dict(zip(names, kind, strict=True)) for kind in kinds], pa.schema(dict.fromkeys(names, pa.string()))
    )


FRAME = frame(open_shards(("image", MODEL, "open"), ("video", MODEL, "confidential")), ["orin", "thor"])


def seen(heard: list[dict[str, Any]], known: pa.Table, ahead: pa.Table) -> tuple[list[dict[str, Any]], dict[int, str]]:
    found = snapshot(fold(nothing_heard(), signals(*heard)), known, ahead, FRAME, Dials(), now=NOW)
    return found.cars.to_pylist(), {row["car_id"]: row["reason"] for row in found.excluded.to_pylist()}


def test_a_willing_car_becomes_a_row_of_the_planner() -> None:
    [row], out = seen(
        [said(1, NOW, hardware_class="thor", cached_models=[MODEL], link_down_bytes_per_s=5e6)],
        ledger_cars({"car_id": 1}),
        windows(1),
    )
    assert not out
    assert (row["hw"], row["cached"], row["link_down_Bps"], row["owner_id"]) == (1, 3, 5e6, 7)
    assert row["survival"][:2] == [255, 127]


@pytest.mark.parametrize(
    ("heard", "known", "ahead", "reason"),
    [
        ([said(1, NOW)], ledger_cars(), windows(1), "not_enrolled"),
        ([said(1, NOW)], ledger_cars({"car_id": 1, "revoked": True}), windows(1), "key_revoked"),
        ([said(1, NOW)], ledger_cars({"car_id": 1, "consent": False}), windows(1), "no_consent"),
        ([], ledger_cars({"car_id": 1}), windows(), "no_signals"),
        ([said(1, NOW - timedelta(hours=1))], ledger_cars({"car_id": 1}), windows(1), "silent"),
        ([said(1, NOW, **{PLUGGED: False})], ledger_cars({"car_id": 1}), windows(1), "unplugged"),
        ([said(1, NOW, **SILENT, willing=False)], ledger_cars({"car_id": 1}), windows(1), "unwilling"),
        ([said(1, NOW, **{"Vehicle.Speed": 3.0})], ledger_cars({"car_id": 1}), windows(1), "driving"),
        ([said(1, NOW, willing=False)], ledger_cars({"car_id": 1}), windows(1), "unwilling"),
        ([said(1, NOW)], ledger_cars({"car_id": 1, "reputation": 0.2}), windows(1), "distrusted"),
        ([said(1, NOW, link_down_bytes_per_s=float("nan"))], ledger_cars({"car_id": 1}), windows(1), "unreadable"),
        ([said(1, NOW, link_down_bytes_per_s=-4.0)], ledger_cars({"car_id": 1}), windows(1), "unreadable"),
        ([said(1, NOW)], ledger_cars({"car_id": 1}), windows(), "no_window"),
        ([said(1, NOW, departure_at=NOW)], ledger_cars({"car_id": 1}), windows(1), "leaving"),
    ],
)
def test_a_car_that_may_not_work_says_why(
    heard: list[dict[str, Any]], known: pa.Table, ahead: pa.Table, reason: str
) -> None:
    rows, out = seen(heard, known, ahead)
    assert rows == []
    assert out == {1: reason}


def test_a_running_car_is_not_silent_while_it_beats() -> None:
    beats = {"car_id": 1, "running_shard": 9, "running_done_through": 2, "last_beat_at": NOW - timedelta(seconds=30)}
    [row], _ = seen([said(1, NOW - timedelta(hours=2))], ledger_cars(beats), windows(1))
    assert (row["running_shard"], row["running_row_group"], row["last_seen_s"]) == (9, 2, 30.0)


def test_consent_to_compute_covers_open_data_and_no_other_class() -> None:
    known = ledger_cars({"car_id": 1}, {"car_id": 2})
    consents = pa.array([["compute"], ["compute", "data:confidential"]])
    found = snapshot(
        fold(nothing_heard(), signals(said(1, NOW), said(2, NOW))),
        known.append_column("consents", consents), windows(1, 2), FRAME, Dials(), now=NOW,
    )  # fmt: skip
    assert found.cars["consent"].to_pylist() == [1, 3]


def test_no_cars_at_all_is_an_empty_snapshot() -> None:
    rows, out = seen([], ledger_cars(), windows())
    assert (rows, out) == ([], {})


def test_a_ninth_hardware_class_shares_a_place_so_that_cars_cannot_blow_up_the_frame() -> None:
    many = frame(open_shards(), [f"class-{number}" for number in range(40)])
    assert len(many.hardware) == 8
    assert many.hardware_index("class-39") == 7
    assert many.hardware[-1] == "other"


def test_a_frame_without_cars_still_has_a_place_for_one() -> None:
    assert frame(open_shards(), []).hardware == ("other",)


def test_the_newest_row_counts_and_the_plug_since_when_it_is_in() -> None:
    first = NOW - timedelta(hours=3)
    rows = [
        said(1, first),
        said(1, NOW - timedelta(hours=2), **{PLUGGED: False}),
        said(1, NOW - timedelta(hours=1)),
        said(1, NOW),
    ]
    newest = fold(nothing_heard(), signals(*rows))
    assert newest["plugged_in_at"].to_list() == [NOW - timedelta(hours=1)]
    assert newest["at"].to_list() == [NOW]


def test_a_stay_keeps_the_charge_that_it_began_with_and_when_charging_was_complete() -> None:
    ago = [NOW - timedelta(hours=h) for h in (5, 4, 3, 2, 1)]
    half, full = {SOC: 50.0, CHARGING: True}, {SOC: 80.0, CHARGING: False}
    words = [said(1, ago[0], **{SOC: 20.0}, **{PLUGGED: False}), said(1, ago[1]), said(1, ago[2], **half)]
    words += [said(1, ago[3], **full), said(1, ago[4], **full)]
    for parts in ([words], [[word] for word in words]):
        newest = nothing_heard()
        for part in parts:
            newest = fold(newest, signals(*part))
        [row] = plugged(newest, "UTC").to_pylist()
        assert (row["plugged_in_at"], row["soc_at_plug_in"], row["charge_complete_at"]) == (ago[1], 0.5, ago[3])
    assert plugged(fold(newest, signals(said(1, NOW, **{PLUGGED: False}))), "UTC").num_rows == 0


def test_folding_file_by_file_or_all_at_once_is_the_same() -> None:
    chance = np.random.default_rng(3)
    rows = [
        said(int(chance.integers(1, 5)), NOW + timedelta(minutes=n), **{PLUGGED: bool(chance.random() < 0.7)})
        for n in range(60)
    ]
    piecewise = nothing_heard()
    for number in range(0, 60, 7):
        piecewise = fold(piecewise, signals(*rows[number : number + 7]))
    assert piecewise.equals(fold(nothing_heard(), signals(*rows)))


def test_a_long_silence_ends_a_stay() -> None:
    newest = fold(nothing_heard(), signals(said(1, NOW - timedelta(hours=9)), said(1, NOW)))
    assert newest["plugged_in_at"].to_list() == [NOW]


def test_a_car_that_may_not_speak_of_its_vehicle_is_taken_by_its_own_word() -> None:
    [row], out = seen([said(1, NOW, **SILENT)], ledger_cars({"car_id": 1}), windows(1))
    assert (row["car_id"], row["ready_s"], row["limit_s"], out) == (1, 0.0, HORIZON_S, {})


def test_a_stay_by_a_cars_own_word_lasts_while_it_is_willing_and_carries_nothing_heard_before() -> None:
    ago = [NOW - timedelta(hours=h) for h in (5, 4, 3, 2, 1)]
    words = [said(1, ago[0], **{SOC: 20.0}), said(1, ago[1], **SILENT), said(1, ago[2], **SILENT, willing=False)]
    words += [said(1, ago[3], **SILENT), said(1, ago[4], **SILENT)]
    begun = [ago[0], ago[1], None, ago[3], ago[3]]
    newest = nothing_heard()
    for number, word in enumerate(words):
        newest = fold(newest, signals(word))
        assert newest.equals(fold(nothing_heard(), signals(*words[: number + 1])))
        assert newest["plugged_in_at"].to_list() == [begun[number]]
        rows = plugged(newest, "UTC").to_pylist()
        assert [row["habits"] for row in rows] == ([] if begun[number] is None else [number == 0])
        assert {row["soc_at_plug_in"] for row in rows} <= {0.2 if number == 0 else None}


def test_only_plugged_cars_are_asked_how_long_they_stay() -> None:
    newest = fold(nothing_heard(), signals(said(1, NOW), said(2, NOW, **{PLUGGED: False})))
    assert plugged(newest, "Europe/Berlin").to_pylist()[0]["car_id"] == 1
    assert plugged(newest, "Europe/Berlin").num_rows == 1


def charging(**changes: float) -> Charging:
    usual = {
        "soc": 0.5, "reserve_soc": 0.2, "full_in_s": 3600.0, "charge_w": 7000.0, "plug_w": 7400.0, "compute_w": 700.0,
        "departs_in_s": 7200.0,
    }  # fmt: skip
    return Charging(**{name: np.array([value]) for name, value in {**usual, **changes}.items()})


def test_below_the_reserve_a_car_is_ready_when_its_charge_gets_there() -> None:
    [seconds] = ready_s(charging(soc=0.1, reserve_soc=0.4, full_in_s=9000.0, plug_w=11_000.0))
    assert seconds == pytest.approx(3000.0)


def test_a_car_below_the_reserve_that_does_not_say_when_it_is_full_is_not_ready() -> None:
    assert ready_s(charging(soc=0.1, full_in_s=float("nan"))) == [HORIZON_S]


def test_with_room_at_the_plug_a_car_is_ready_while_it_charges() -> None:
    assert ready_s(charging(compute_w=300.0)) == [0.0]


def test_without_room_a_car_is_ready_when_it_is_charged_whatever_departure_was_stated() -> None:
    for departs in (float("nan"), 7200.0, 90_000.0):
        assert ready_s(charging(charge_w=7000.0, compute_w=350.0, departs_in_s=departs)) == [3600.0]


def test_only_a_stated_departure_bounds_a_car() -> None:
    assert limit_s(charging()) == [7200.0]
    assert limit_s(charging(departs_in_s=float("nan"))) == [HORIZON_S]


def test_a_car_that_waits_for_its_charge_is_planned_from_when_it_will_be_ready() -> None:
    tight = {
        f"{BATTERY}.Charging.ChargeVoltage.Phase1": 230.0,
        f"{BATTERY}.Charging.ChargeCurrent.Phase1": 16.0,
        f"{BATTERY}.Charging.MaximumChargingCurrent.Phase1": 16.0,
        f"{BATTERY}.Charging.TimeToComplete": 1800.0,
    }
    why = {"willing": False, "unwilling_reason": "charger_busy: 0 W to spare, wanted 200 W"}
    [row], out = seen([said(1, NOW, **tight, **why)], ledger_cars({"car_id": 1}), windows(1))
    assert (row["ready_s"], out) == (1800.0, {})
    rows, out = seen(
        [said(1, NOW, **tight, willing=False, unwilling_reason="too_hot: 50 C")], ledger_cars({"car_id": 1}), windows(1)
    )
    assert (rows, out) == ([], {1: "unwilling"})
    [row], _ = seen([said(1, NOW, **tight)], ledger_cars({"car_id": 1}), windows(1))
    assert row["ready_s"] == 0.0


def test_a_snapshot_does_not_depend_on_the_order_of_rows() -> None:
    rows = [said(number, NOW) for number in range(1, 9)]
    known = ledger_cars(*({"car_id": number} for number in range(1, 9)))
    first, _ = seen(rows, known, windows(*range(1, 9)))
    second, _ = seen(rows[::-1], known.take(list(range(7, -1, -1))), windows(*range(8, 0, -1)))
    assert first == second
    assert isinstance(nothing_heard(), pl.DataFrame)


def test_a_car_is_given_nothing_that_it_has_not_installed() -> None:
    heard = signals(said(1, NOW, workloads=None), said(2, NOW, workloads=["video"]))
    consents = pa.array([["compute", "data:confidential"]] * 2)
    known = ledger_cars({"car_id": 1}, {"car_id": 2}).append_column("consents", consents)
    found = snapshot(fold(nothing_heard(), heard), known, windows(1, 2), FRAME, Dials(), now=NOW)
    assert found.cars["consent"].to_pylist() == [1, 3]
