"""The network behind L2: learnt in numpy, served as ONNX, refused when it asks for what nobody knows yet."""

import io
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from windows_story import NOW, SMALL, bundle_of, bytes_of, past, plugged_in, small_model

from fleetbatch.errors import RejectedError
from fleetbatch.windows import Forecaster, open_forecaster, predict
from fleetbatch.windows.bundle import open_bundle
from fleetbatch.windows.clock import EPOCH, hours
from fleetbatch.windows.features import FEATURES, see
from fleetbatch.windows.forecast import survival_of
from fleetbatch.windows.landmarks import landmarks, thinned
from fleetbatch.windows.learning import check_parity, learn_model
from fleetbatch.windows.network import (
    Lessons,
    Network,
    NetworkDials,
    _forward,
    _gradients,
    _new_network,
    log_survival,
    train,
)
from fleetbatch.windows.shrink import ShrinkDials
from fleetbatch.windows.stays import read_stays


def forecaster() -> Forecaster:
    return open_forecaster(bundle_of(small_model()))


def rows(count: int = 40, features: int = 6, intervals: int = 5) -> Lessons:
    chance = np.random.default_rng(2)
    left_in = chance.integers(0, intervals + 2, count)[:, None]
    return Lessons(
        features=chance.standard_normal((count, features)).astype(np.float32),
        base=chance.standard_normal((count, intervals)).astype(np.float32),
        at_risk=np.arange(intervals) <= left_in,
        left=np.arange(intervals) == left_in,
    )


def test_the_gradients_are_those_of_the_loss() -> None:
    taught = rows()
    network = _new_network(6, 5, NetworkDials(hidden=4), np.random.default_rng(0))
    exact = Network(**_as_doubles(network))

    def loss() -> float:
        odds, _ = _forward(exact, taught.features, taught.base, None)
        return float(((np.logaddexp(0, odds) - taught.left * odds) * taught.at_risk).sum() / len(odds))

    odds, kept = _forward(exact, taught.features, taught.base, None)
    error: Any = (1 / (1 + np.exp(-odds)) - taught.left) * taught.at_risk / len(odds)
    for parameter, gradient in zip(exact.parameters(), _gradients(exact, error, taught.base, kept), strict=True):
        before = parameter.flat[0]
        parameter.flat[0] = before + 1e-5
        higher = loss()
        parameter.flat[0] = before - 1e-5
        slope = (higher - loss()) / 2e-5
        parameter.flat[0] = before
        assert slope == pytest.approx(gradient.flat[0], abs=1e-6)


def _as_doubles(network: Network) -> dict[str, Any]:
    return {
        "weights": tuple(w.astype(np.float64) for w in network.weights),
        "biases": tuple(b.astype(np.float64) for b in network.biases),
        "base_share": network.base_share.astype(np.float64),
    }


def test_a_network_learns_a_hazard_that_its_base_does_not_know() -> None:
    chance = np.random.default_rng(1)
    hasty = chance.random(4000) < 0.5
    left = chance.random((4000, 1)) < np.where(hasty, 0.6, 0.1)[:, None]
    taught = Lessons(
        features=np.stack([hasty, np.zeros(4000)], axis=1).astype(np.float32),
        base=np.full((4000, 1), -0.7, np.float32),
        at_risk=np.ones((4000, 1), np.bool_),
        left=left,
    )
    ensemble = train(taught, NetworkDials(hidden=8, networks=1, epochs=80, batch=256), 0)
    stayed = np.exp(log_survival(ensemble, np.array([[1, 0], [0, 0]], np.float32), taught.base[:2]))
    assert stayed[:, 0] == pytest.approx([0.4, 0.9], abs=0.05)


def test_a_feature_that_never_varied_cannot_speak_later() -> None:
    taught = rows()
    taught.features[:, 0] = 0.0
    ensemble = train(taught, NetworkDials(hidden=8, networks=1, epochs=2, batch=16), 0)
    told = taught.features.copy()
    told[:, 0] = 7.0
    assert (log_survival(ensemble, told, taught.base) == log_survival(ensemble, taught.features, taught.base)).all()


def test_the_same_stays_give_the_same_bundle() -> None:
    assert bytes_of(small_model()) == bytes_of(learn_model(past(), NOW - timedelta(days=20), SMALL))


def test_what_happened_after_the_cut_teaches_nothing() -> None:
    cut = NOW - timedelta(days=20)
    frame = pl.DataFrame(past())
    over = pl.col("unplugged_at") <= cut
    early = frame.filter(pl.col("plugged_in_at") <= cut).with_columns(
        unplugged_at=pl.when(over).then("unplugged_at").otherwise(cut + timedelta(hours=1))
    )
    assert learn_model(early.to_arrow(), cut, SMALL).model == small_model().model


def test_what_is_seen_of_a_moment_is_blind_to_what_came_after_it() -> None:
    cut = NOW - timedelta(days=20)
    whole = read_stays(past(), NOW)
    asked = landmarks(whole).moments
    asked = asked.take(np.flatnonzero(asked.now_h < hours(cut)))
    moved = pl.DataFrame(past()).with_columns(
        unplugged_at=pl.when(pl.col("unplugged_at") > cut)
        .then(pl.col("unplugged_at") + timedelta(hours=7))
        .otherwise("unplugged_at")
    )
    changed = read_stays(moved.filter(pl.col("plugged_in_at") < cut).to_arrow(), NOW)
    groups = small_model().groups
    one, other = (see(stays, asked, groups, ShrinkDials()) for stays in (whole, changed))
    assert (one.features == other.features).all()
    assert (one.base == other.base).all()


def test_a_past_that_is_too_large_is_learnt_from_every_nth_car_and_each_of_these_whole() -> None:
    assert thinned(past(), EPOCH, 10**6) is past()
    few = pl.DataFrame(thinned(past(), EPOCH, len(landmarks(read_stays(past(), NOW))) // 4))
    assert set(few["car_id"]) == {4, 8, 12, 16, 20}
    assert few.equals(pl.DataFrame(past()).filter(pl.col("car_id").is_in(few["car_id"].implode())))


def test_too_few_stays_are_not_learnt_from() -> None:
    with pytest.raises(RejectedError, match="too few"):
        learn_model(past().slice(0, 50), NOW, SMALL)


def test_an_export_that_differs_from_its_reference_is_refused() -> None:
    chance = np.random.default_rng(0)
    inputs = (chance.standard_normal((3, len(FEATURES))).astype(np.float32), np.zeros((3, 34), np.float32))
    with pytest.raises(RejectedError, match="reference"):
        check_parity(small_model().model, inputs, np.zeros((3, 34), np.float32))


def test_a_modelled_curve_never_rises_and_a_new_car_has_one() -> None:
    cars = plugged_in(past())
    stranger = cars.slice(0, 1).set_column(0, "car_id", pa.array([10**9], pa.uint64()))
    answer = predict(
        pa.concat_tables([cars, stranger], promote_options="permissive"), past(), NOW, forecaster=forecaster()
    )
    curves = survival_of(answer)
    assert set(answer["level"].to_pylist()) == {"L2"}
    assert answer["stays_used"].to_pylist()[-1] == 0
    assert np.isfinite(curves).all()
    assert curves.min() >= 0
    assert curves.max() <= 1
    assert (np.diff(curves, axis=1) <= 0).all()


def test_a_modelled_curve_is_blind_to_later_events_and_to_the_order_of_rows() -> None:
    cars, model = plugged_in(past()), forecaster()
    told = pl.DataFrame(past()).with_columns(unplugged_at=pl.col("unplugged_at").fill_null(NOW + timedelta(hours=1)))
    shuffled = told.sample(fraction=1.0, shuffle=True, seed=1).to_arrow()
    assert predict(cars, past(), NOW, forecaster=model) == predict(cars, shuffled, NOW, forecaster=model)


def tampered(change: Callable[[dict[str, Any]], None], *, model: bytes = b"") -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes_of(small_model()))) as old, zipfile.ZipFile(sink, "w") as new:
        manifest = msgspec.json.decode(old.read("manifest.json"))
        change(manifest)
        new.writestr("manifest.json", msgspec.json.encode(manifest))
        new.writestr("model.onnx", model or old.read("model.onnx"))
        new.writestr("groups.npz", old.read("groups.npz"))
    return sink.getvalue()


def test_a_planted_leak_is_refused_by_the_feature_contract() -> None:
    def plant(manifest: dict[str, Any]) -> None:
        manifest["features"][3] = "energy_kwh"

    with pytest.raises(RejectedError, match="'energy_kwh' is not known at the moment of a forecast"):
        open_bundle(tampered(plant))


def test_every_fault_of_a_bundle_is_named_at_once() -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        manifest["features"] = manifest["features"][::-1]
        manifest["edges_h"] = [1.0]
        manifest["calibration"] = []

    with pytest.raises(RejectedError) as refused:
        open_bundle(tampered(spoil, model=b"other"))
    assert len(refused.value.problems) == 4


def test_bytes_that_are_no_bundle_are_refused() -> None:
    with pytest.raises(RejectedError, match="not a bundle"):
        open_bundle(b"PK")
