"""The backtest on a small generated file, and the room's days over a real folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from windows_story import NOW, SMALL, live, past, plugged_in

from fleetbatch import layout
from fleetbatch.cli import EXIT_REJECTED, run_command
from fleetbatch.errors import RejectedError
from fleetbatch.steps.__main__ import run as step
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName
from fleetbatch.windows.backtest import MODELS, Backtest, BacktestDials, backtest
from fleetbatch.windows.calibration import CalibrationDials
from fleetbatch.windows.daily import ingest_day, refit_cell, tune_day
from fleetbatch.windows.forecast import predict
from fleetbatch.windows.refit import Gates, RefitDials
from fleetbatch.windows.rolling import RollingDials
from fleetbatch.windows.serving import tonight
from fleetbatch.windows.sessions import read_sessions
from fleetbatch.windows.stored import latest_state
from fleetbatch.windows.tuning import TuningDials

CUT = NOW - timedelta(days=30)
CELL = CellName("north")
DIALS = BacktestDials(learning=SMALL, warm_up=timedelta(days=20))


def sessions(folder: Path, frame: pl.DataFrame | None = None) -> Path:
    stays = pl.DataFrame(past()) if frame is None else frame
    path = folder / "sessions.parquet"
    stays.select(
        user_id=pl.format("user-{}", "car_id"),
        site=pl.lit("HOME"),
        plug_in="plugged_in_at",
        plug_out="unplugged_at",
        tz=pl.col("timezone") + "(assumed)",
        energy_kwh=pl.lit(1.0),
        source=pl.lit("generated"),
    ).write_parquet(path)
    return path


def run(path: Path) -> Backtest:
    return backtest(path, CUT, source="generated", dials=DIALS)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    return run(sessions(tmp_path_factory.mktemp("sessions")))


def test_the_summary_has_every_figure_of_every_model(scored: Backtest) -> None:
    assert set(scored.summary) >= {"group_kaplan_meier", "shrinkage", "network"}
    for told in json.loads(json.dumps(scored.summary)).values():
        assert set(told) == {
            *("n", "brier", "integrated_brier", "calibration_error", "smape"),
            *("booked_all", "evicted_all", "booked_night", "evicted_night"),
        }
        assert set(told["brier"]) == set(told["calibration_error"]) == {"0.5", "1", "2", "4", "8"}
    assert scored.table.num_rows == len(scored.summary)
    assert {"night", "over 20 past stays", "booked 8-12 h"} <= set(scored.strata["stratum"].to_pylist())


def test_habits_beat_groups_and_groups_beat_nothing(scored: Backtest) -> None:
    order = pl.DataFrame(scored.table).sort("integrated_brier")["model"].to_list()
    assert order.index("shrinkage") < order.index("group_kaplan_meier") < order.index("global_kaplan_meier")


def test_the_same_file_gives_the_same_numbers_and_doubled_rows_count_once(scored: Backtest, tmp_path: Path) -> None:
    stays = pl.DataFrame(past())
    unended = stays.with_columns(unplugged_at=pl.lit(None, pl.Datetime("us", "UTC")))
    assert run(sessions(tmp_path, pl.concat([stays, unended]))).summary == scored.summary


TINY = BacktestDials(
    learning=replace(SMALL, network=replace(SMALL.network, hidden=4, networks=1, epochs=1), stays_min=40),
    warm_up=timedelta(days=15),
    refit=timedelta(days=20),
)
MID = NOW - timedelta(days=25)


def few() -> pl.DataFrame:
    """The sessions of eight users, as a file has them."""
    stays = pl.DataFrame(past(8, days=70))
    return stays.select(
        user_id=pl.format("user-{}", "car_id"),
        site=pl.lit("HOME"),
        plug_in="plugged_in_at",
        plug_out="unplugged_at",
        tz=pl.col("timezone"),
        source=pl.lit("norway12"),
    )


ENDS = ("plug_in", "plug_out")
late = pl.col("plug_in") > MID
FILES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "lacks every column that is not needed": lambda f: f.drop("site", "source"),
    "has an empty site": lambda f: f.with_columns(site=pl.lit(None, pl.String)),
    "has users and sites that are new in the scored part": lambda f: f.with_columns(
        user_id=pl.when(late).then(pl.format("new-{}", "user_id")).otherwise("user_id"),
        site=pl.when(late).then(pl.lit("NEW")).otherwise("site"),
    ),
    "has sessions that have no end": lambda f: f.with_columns(
        plug_out=pl.when(pl.int_range(pl.len()) % 3 > 0).then("plug_out")
    ),
    "marks open sessions by a flag": lambda f: f.with_columns(censored=pl.int_range(pl.len()) % 5 == 0),
    "counts its users": lambda f: f.with_columns(user_id=pl.col("user_id").str.slice(5).cast(pl.Int32)),
    "mixes time zones": lambda f: f.with_columns(
        tz=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("Australia/Lord_Howe")).otherwise("tz")
    ),
    "has nanoseconds and local time": lambda f: f.with_columns(
        pl.col("plug_in", "plug_out").dt.cast_time_unit("ns").dt.convert_time_zone("Asia/Tokyo")
    ),
    "has users with two cars": lambda f: pl.concat(
        [f, f.with_columns(pl.col("plug_in") + pl.duration(hours=1), pl.col("plug_out") + pl.duration(hours=3))]
    ),
    "has every user once": lambda f: f.with_columns(user_id=pl.format("{}-{}", "user_id", pl.int_range(pl.len()))),
    "has sessions that end before they begin": lambda f: f.with_columns(
        plug_out=pl.when(pl.int_range(pl.len()) % 4 > 0)
        .then("plug_out")
        .otherwise(pl.col("plug_in") - pl.duration(hours=1))
    ),
}


def finite(scored: Backtest) -> bool:
    return (
        np.isfinite([value for row in scored.table.drop(["model"]).to_pylist() for value in row.values()]).all().item()
    )


@pytest.mark.parametrize("what", FILES)
def test_a_backtest_goes_through_whatever_the_file_is_like(what: str, tmp_path: Path) -> None:
    FILES[what](few()).write_parquet(tmp_path / "sessions.parquet")
    scored = backtest(tmp_path / "sessions.parquet", MID, dials=TINY)
    assert finite(scored)
    assert scored.summary["network"]["n"] == scored.summary["shrinkage"]["n"]


@pytest.mark.parametrize("cut", [NOW - timedelta(days=68), NOW - timedelta(days=55), NOW - timedelta(days=3)])
def test_a_backtest_may_be_cut_near_either_end_of_the_file(cut: datetime, tmp_path: Path) -> None:
    few().write_parquet(tmp_path / "sessions.parquet")
    assert finite(backtest(tmp_path / "sessions.parquet", cut, dials=TINY))


def test_a_model_learns_anew_while_the_scored_part_goes_on(tmp_path: Path) -> None:
    few().write_parquet(tmp_path / "sessions.parquet")
    told: list[str] = []
    backtest(tmp_path / "sessions.parquet", MID, dials=TINY, tell=told.append)
    learnt = [line.split()[4].rstrip(",") for line in told if line.startswith("learning")]
    assert learnt == [f"{MID + timedelta(days=days):%Y-%m-%d}" for days in (-15, 0, 20)]
    assert "scored: L1 clock-aligned shrinkage" in told


def test_a_model_learns_anew_only_before_something_that_is_forecast(tmp_path: Path) -> None:
    mistyped = pl.col("plug_in").is_in(few()["plug_in"].sort().tail(2).to_list())
    ahead = [pl.when(mistyped).then(pl.col(n).dt.offset_by("100y")).otherwise(n).alias(n) for n in ENDS]
    few().with_columns(*ahead).write_parquet(tmp_path / "sessions.parquet")
    told: list[str] = []
    assert finite(backtest(tmp_path / "sessions.parquet", MID, dials=TINY, tell=told.append))
    assert sum(line.startswith("learning") for line in told) == 4


def test_a_session_that_was_lost_from_sight_is_followed_to_its_users_next_or_for_five_days(tmp_path: Path) -> None:
    evening = NOW - timedelta(days=9)
    begins = [evening, evening + timedelta(days=2), evening]
    sessions = pl.DataFrame({"user_id": ["a", "a", "b"], "plug_in": begins, "tz": ["UTC"] * 3})
    sessions = sessions.with_columns(plug_out=pl.lit(None, pl.Datetime("us", "UTC")))
    sessions.write_parquet(tmp_path / "sessions.parquet")
    stays = pl.DataFrame(read_sessions(tmp_path / "sessions.parquet"))
    seen = (stays["seen_until"] - stays["plugged_in_at"]).to_list()
    assert sorted(seen) == [timedelta(days=2), timedelta(days=5), timedelta(days=5)]


def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "sessions.parquet"

    def refusal(frame: pl.DataFrame) -> str:
        frame.write_parquet(path)
        with pytest.raises(RejectedError) as refused:
            backtest(path, MID, dials=TINY)
        return str(refused.value)

    with pytest.raises(RejectedError, match="cannot read"):
        backtest(tmp_path / "nothing.parquet", CUT)
    path.write_text("no")
    with pytest.raises(RejectedError, match="cannot read"):
        backtest(path, CUT)
    assert "`plug_in` is missing" in refusal(pl.DataFrame({"user_id": ["a"]}))
    assert "`plug_in` is String" in refusal(few().with_columns(pl.col("plug_in").cast(pl.String)))
    naive = few().with_columns(pl.col("plug_out").dt.replace_time_zone(None))
    assert "expected instants with a time zone" in refusal(naive)
    blank = few().with_columns(tz=pl.when(pl.int_range(pl.len()) > 1).then("tz"))
    assert "`tz` is empty in 2 rows, counted from 0: 0, 1" in refusal(blank)
    assert "'Mars/Olympus' is not an IANA name" in refusal(few().with_columns(tz=pl.lit("Mars/Olympus")))
    assert "holds no session of source 'norway12'" in refusal(few().with_columns(source=pl.lit("elsewhere")))
    assert "leaves no ended session on one of its sides" in refusal(few().filter(pl.col("plug_in") < MID))


def test_the_command_prints_a_table_by_model_and_by_stratum_and_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few().write_parquet(tmp_path / "sessions.parquet")
    words = [
        "windows",
        "backtest",
        "--sessions",
        str(tmp_path / "sessions.parquet"),
        "--train-until",
        f"{MID:%Y-%m-%d}",
    ]
    assert run_command(words) == 0
    text = capsys.readouterr()
    assert {"brier_8h", "integrated_brier", "evicted_night"} <= set(text.out.split())
    assert "network, by stratum" in text.out
    assert "over 20 past stays" in text.out
    assert "learning from sessions before" in text.err
    assert run_command([*words, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(MODELS)
    assert run_command([*words[:-1], "2001-01-01"]) == EXIT_REJECTED
    assert "leaves no ended session on one of its sides" in capsys.readouterr().err


def cell_with_a_past(folder: Path) -> Store:
    """A store whose days hold the stays that ended on them."""
    store = open_store(folder.as_uri(), deployment_key=bytes(32))
    live(store, CELL, past(), now=NOW)
    return store


def test_a_cell_learns_tunes_and_forecasts_with_its_model_and_twice_is_once(tmp_path: Path) -> None:
    store = cell_with_a_past(tmp_path)
    today = NOW.date()
    rolling = RollingDials(calibration=CalibrationDials(forecasts_min=200))
    tuning = TuningDials(learning=SMALL, rolling=rolling, look_back=timedelta(days=20), judged_min=50)
    lenient = Gates(unseen=timedelta(days=15), better_than_fallback=2.0, calibration_error=1.0, evicted=1.0)
    early = NOW - timedelta(days=100)
    refused = refit_cell(store, CELL, early.date(), now=early, dials=RefitDials(tuning=tuning, gates=lenient))
    assert refused.bundle is None
    assert "too few to learn from" in refused.problems[0]
    assert tune_day(store, CELL, today, now=NOW, dials=tuning).reason == "there is no model"
    assert tonight(store, CELL, today).reason == "there is no model"

    assert refit_cell(store, CELL, today, now=NOW, dials=RefitDials(tuning=tuning, gates=lenient)).bundle is not None
    state = tune_day(store, CELL, today, now=NOW, dials=tuning)
    assert set(state.figures) == {"L1", "L2"}
    assert state.model_sha256
    assert tune_day(store, CELL, today, now=NOW, dials=tuning) == state
    page = store.read(layout.windows_page(CELL, str(today))).decode()
    assert f"{state.level} serves" in page
    assert "circle" in page
    assert latest_state(store, CELL, before=today + timedelta(days=1)) == state

    served = tonight(store, CELL, today)
    assert (served.level, served.reason) == (state.level, state.reason)
    if served.forecaster is not None:
        answer = predict(plugged_in(past()), past(), NOW, forecaster=served.forecaster)
        assert set(answer["model_sha256"].to_pylist()) == {state.model_sha256}


def test_a_day_without_telemetry_carries_the_open_stays_on(tmp_path: Path) -> None:
    store = cell_with_a_past(tmp_path)
    tomorrow = NOW.date() + timedelta(days=1)
    before = store.read(layout.open_stays(CELL, str(NOW.date())))
    told = ingest_day(store, CELL, tomorrow, timezone="Europe/Oslo", now=datetime(2026, 11, 26, tzinfo=UTC))
    assert (told.closed, told.broken) == (0, ())
    assert told.open == plugged_in(past()).num_rows
    again = ingest_day(store, CELL, tomorrow, timezone="Europe/Oslo", now=datetime(2026, 11, 26, tzinfo=UTC))
    assert again == told
    assert store.read(layout.open_stays(CELL, str(NOW.date()))) == before
    assert replace(told, closed=0) == told


def test_the_steps_of_a_day_go_through_every_cell_and_missed_days(tmp_path: Path) -> None:
    cell_with_a_past(tmp_path / "store")
    (tmp_path / "deployment.key").write_text("00" * 32)
    urls = 'ledger_url = "postgresql://none"\ngateway_ledger_url = "postgresql://none"\ngateway_url = "http://none"'
    settings = tmp_path / "fleetbatch.toml"
    settings.write_text(
        f'store = "{(tmp_path / "store").as_uri()}"\ndeployment_key_file = "deployment.key"\n'
        f'[[cells]]\nname = "{CELL}"\nregion = "eu"\ntimezone = "Europe/Oslo"\n{urls}\n'
    )
    now = NOW + timedelta(days=3)
    words = {"settings": str(settings), "now": now.isoformat(), "day": f"{now - timedelta(days=1):%Y-%m-%d}"}
    told = step("windows_ingest", words)
    assert list(told["closed"]) == [f"{CELL}/{NOW + timedelta(days=ago):%Y-%m-%d}" for ago in (1, 2)]
    tuned = step("windows_tune", words | {"day": f"{now:%Y-%m-%d}"})
    assert tuned["levels"] == {CELL: "L1: there is no model"}
    assert "rejected" in step("windows_tune", words | {"settings": str(tmp_path / "nothing.toml")})
