"""Driving scenarios: the same answers whatever runs beside them, and a reason for every one that cannot be driven."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from model_bundles import Shape, colour_model
from onnx import TensorProto, helper, numpy_helper

from fleetbatch.bundle.policy import PolicyGolden, PolicyManifest, build_policy, open_policy
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.orders import model_file
from fleetbatch.packing.policy import pack_policy
from fleetbatch.workloads import Answer, Device, answer_rows, workload
from fleetbatch.workloads.driving import Scenario, drive
from fleetbatch.workloads.scenario import ScenarioWorkload, driver

CPU = Device(provider="CPUExecutionProvider")
SHORT: dict[str, Any] = {"duration": 4, "vehicles_count": 4}
HIGHWAY = "highway_env:highway-fast-v0"
SCENARIO = ScenarioWorkload()
SEEN: dict[str, Any] = {"observation": {"type": "Kinematics", "vehicles_count": 3, "features": ["x", "y", "vx"]}}


def policy(*, values: int = 25, choice: int = 1, wrong: bool = False, nothing: bool = False) -> bytes:
    """A policy that always chooses the same of five."""
    bias = np.eye(5, dtype=np.float32)[choice] * (np.nan if nothing else 1)
    parts = [
        numpy_helper.from_array(np.zeros((values, 5), np.float32), "weight"),
        numpy_helper.from_array(bias.astype(np.float32), "bias"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["seen", "weight", "bias"], ["action"])],
        "same",
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, [1, values])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, 5])],
        parts,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    golden = PolicyGolden(observation=(0.0,) * values, output=tuple(np.roll(np.eye(5)[choice], int(wrong)).tolist()))
    manifest = PolicyManifest(name="same", input="seen", values=values)
    return build_policy(manifest, model.SerializeToString(), (golden,))


def rows(*scenarios: Scenario | bytes) -> pa.Table:
    contents = [s if isinstance(s, bytes) else json.dumps(as_json(s)).encode() for s in scenarios]
    items = [{"item_id": f"s-{number:06d}", "bytes": content} for number, content in enumerate(contents)]
    return conform(pa.Table.from_pylist(items, schema=contract("shard").schema), "shard")


def as_json(scenario: Scenario) -> dict[str, Any]:
    return {"environment": scenario.environment, "seed": scenario.seed, "config": scenario.config}


def highway(seed: int, **config: Any) -> Scenario:
    return Scenario(environment=HIGHWAY, seed=seed, config=SHORT | config)


def answered(answer: Answer, table: pa.Table) -> list[dict[str, Any]]:
    found = answer_rows(SCENARIO, answer, table, row_group=0).to_pylist()
    return [{name: value for name, value in row.items() if name != "policy_ms"} for row in found]


@pytest.fixture(scope="module")
def idle() -> Answer:
    return SCENARIO.open(policy(), CPU, {})


def test_a_scenario_is_answered_alike_whatever_ran_before_it_and_beside_it(idle: Answer) -> None:
    first, second = highway(1), highway(2, vehicles_density=2.0)
    together = answered(idle, rows(first, second))
    assert answered(idle, rows(second))[0] | {"item_id": ""} == together[1] | {"item_id": ""}
    other_way = answered(idle, rows(second, first))
    assert [row["trajectory"] for row in reversed(other_way)] == [row["trajectory"] for row in together]
    assert together[0]["trajectory"] != together[1]["trajectory"]


def test_rows_of_many_kinds_of_environments_are_answered_alike_in_any_order_and_batch() -> None:
    takes = {4: 2, 3: 1, 2: 1, 18: 2, 288: 1, 25: 5, 9: 3}  # values that are seen to values of an action
    by_what_is_seen = driver(lambda seen: np.sin(np.arange(1, 1 + takes[seen.size]) * float(seen.sum())))
    short = {"duration": 2}
    scenarios = [
        Scenario(environment="CartPole-v1", seed=1),
        Scenario(environment="highway_env:parking-v0", seed=2, config=short),  # things observed by name, values taken
        Scenario(environment="Pendulum-v1", seed=3),
        Scenario(environment="highway_env:racetrack-v0", seed=4, config=short),
        highway(5),
        Scenario(environment="highway_env:intersection-v0", seed=6, config=short | SEEN),
    ]
    backwards = answered(by_what_is_seen, rows(*reversed(scenarios)))[::-1]
    one_by_one = [answered(by_what_is_seen, rows(scenario))[0] for scenario in scenarios]
    assert [row["error"] for row in one_by_one] == [None] * len(scenarios)
    assert [row | {"item_id": ""} for row in backwards] == [row | {"item_id": ""} for row in one_by_one]


def test_an_answer_says_what_was_driven_and_how(idle: Answer) -> None:
    [row] = answered(idle, rows(highway(1)))
    assert row["error"] is None
    assert (row["environment"], row["seed"], json.loads(row["config"])) == (HIGHWAY, 1, SHORT)
    assert row["termination"] in SCENARIO.labels(None)
    assert row["collision"] == (row["termination"] == "collision")
    assert 0 < row["simulated_s"] <= 4.0
    assert row["progress_m"] == pytest.approx(row["mean_speed_mps"] * row["simulated_s"], rel=0.1)


def test_time_is_that_of_the_steps_of_physics_and_the_last_of_them_ends_it(idle: Answer) -> None:
    [row] = answered(idle, rows(highway(1, simulation_frequency=5, policy_frequency=2)))
    assert row["simulated_s"] == pytest.approx(row["steps"] * 2 / 5), "5 // 2 steps of physics for one of the policy"
    straight_on = driver(lambda _: np.array([0.0]))
    racetrack = {"duration": 4, "terminate_off_road": True}
    [left] = answered(straight_on, rows(Scenario(environment="highway_env:racetrack-v0", seed=1, config=racetrack)))
    assert (left["error"], left["termination"], left["steps"]) == (None, "off_road", 15)
    assert left["off_road_s"] == pytest.approx(2.5 / 15), "the last three samples, the very last for half a step"


def test_an_environment_without_a_road_is_driven_with_what_can_be_said_of_it() -> None:
    balance = driver(lambda _: np.array([0.0, 1.0]))
    [row] = answered(balance, rows(Scenario(environment="CartPole-v1", seed=3)))
    assert (row["error"], row["termination"]) == (None, "terminated")
    assert row["steps"] == row["reward"] > 1
    assert row["progress_m"] is None


def test_an_environment_without_a_table_of_its_own_is_configured_by_its_keyword_arguments() -> None:
    right_then_down = driver(lambda seen: np.eye(4)[2 if seen[0] % 4 < 3 else 1])
    by_chance, sure = (
        Scenario(environment="FrozenLake-v1", seed=3, config={"is_slippery": slippery, "map_name": "4x4"})
        for slippery in (True, False)
    )
    slipped, walked = answered(right_then_down, rows(by_chance, sure))
    assert (walked["error"], walked["termination"], walked["steps"]) == (None, "terminated", 4), "a hole in the ice"
    assert json.loads(walked["config"]) == {"is_slippery": False, "map_name": "4x4"}
    assert slipped["error"] is None


def test_an_environment_that_observes_several_things_or_cannot_be_shown_is_driven_too() -> None:
    seen = set()

    def policy(observed: np.ndarray) -> np.ndarray:
        seen.add(observed.size)
        return np.zeros(2)

    parking = Scenario(environment="highway_env:parking-v0", seed=3, config={"duration": 3})
    lane = Scenario(environment="highway_env:lane-keeping-v0", seed=3)
    parked, kept = answered(driver(policy, steps_max=500), rows(parking, lane))
    assert (parked["error"], parked["termination"], parked["simulated_s"]) == (None, "time_limit", 3.0)
    assert "the policy gives 2 values, the environment takes Box" in kept["error"]
    assert 3 * 6 in seen, "what is observed, achieved and desired"


@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        (b"{", "not a scenario"),
        (b'{"environment": "CartPole-v1", "seed": "one"}', "not a scenario"),
        (Scenario(environment="Nowhere-v0", seed=1), "environment Nowhere-v0 cannot be made: NameNotFound"),
        (Scenario(environment="no_such_module:Here-v0", seed=1), "cannot be made"),
        (highway(1, vehicle_count=3), "knows no configuration vehicle_count"),
        (highway(1, render_mode="human"), "knows no configuration render_mode"),
        (Scenario(environment="FrozenLake-v1", seed=1, config={"ice": 1}), "unexpected keyword argument 'ice'"),
        (highway(1, vehicles_count="many"), f"environment {HIGHWAY} cannot be made: TypeError"),
        (highway(1, simulation_frequency=0), "no time passes in the environment"),
        (Scenario(environment="CartPole-v1", seed=1), "the policy takes 25 values, the environment gives 4"),
        (highway(1, action={"type": "ContinuousAction"}), "the policy gives 5 values, the environment takes Box"),
    ],
)
def test_a_scenario_that_cannot_be_driven_is_a_dead_letter_with_its_reason(
    idle: Answer, scenario: Scenario | bytes, why: str
) -> None:
    [row] = answered(idle, rows(scenario))
    assert why in row["error"]
    assert {name for name, value in row.items() if value is not None} == {"item_id", "row_group", "error"}


def test_an_endless_episode_and_a_policy_without_a_number_are_dead_letters() -> None:
    nothing = driver(lambda _: np.full(5, np.nan))
    assert answered(nothing, rows(highway(1)))[0]["error"] == "the policy gave no number at step 0"
    patient = SCENARIO.open(policy(), CPU, {"steps_max": "2"})
    assert answered(patient, rows(highway(1)))[0]["error"] == "the episode is not over after 2 steps"


def test_whatever_an_environment_prints_and_warns_of_stays_with_it(
    idle: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert answered(idle, rows(Scenario(environment="highway_env:merge-v0", seed=1)))[0]["environment"]
    assert capfd.readouterr().out == ""


# --- comparing ----------------------------------------------------------------------------------------------------


def test_answers_agree_when_their_measures_do_and_nobody_asks_how_fast_the_policy_was(idle: Answer) -> None:
    ours = answer_rows(SCENARIO, idle, rows(highway(1)), row_group=0)
    [row] = ours.to_pylist()

    def why(**changed: Any) -> str:
        theirs = pa.Table.from_pylist([row | changed], schema=ours.schema)
        return dict(SCENARIO.compare(ours, theirs).disagreements).get("s-000000", "")

    assert why() == why(policy_ms=7.0, trajectory="0" * 16) == why(progress_m=row["progress_m"] * 1.0005) == ""
    assert "progress_m" in why(progress_m=row["progress_m"] * 1.01)
    assert "collision" in why(collision=not row["collision"])
    assert "policy_ms" in why(policy_ms=None)
    assert "min_ttc_s" in why(min_ttc_s=-1.0)
    assert "error" in why(error="lazy")


# --- the policy ---------------------------------------------------------------------------------------------------


def test_a_policy_that_does_not_reproduce_its_goldens_is_not_used() -> None:
    for bad in (policy(wrong=True), policy(nothing=True)):
        with pytest.raises(RejectedError, match="does not reproduce its goldens"):
            SCENARIO.open(bad, CPU, {})


def test_what_is_no_policy_bundle_is_refused_by_what_it_is() -> None:
    for data, why in (
        (None, "scenarios need a policy"),
        (model_file("road-signs").read_bytes(), "for workload 'image'"),
        (b"PK", "not a zip of ours"),
    ):
        with pytest.raises(RejectedError, match=why):
            SCENARIO.open(data, CPU, {})


def test_a_policy_is_packed_from_its_onnx_file_alone_and_refused_by_what_is_wrong_with_it() -> None:
    model = open_policy(policy(choice=3)).model
    packed = open_policy(pack_policy(model, "mine"))
    assert (packed.manifest.name, packed.manifest.input, packed.manifest.values) == ("mine", "seen", 25)
    assert all(golden.output.index(max(golden.output)) == 3 for golden in packed.goldens)
    for wrong, why in ((b"hello", "is not an ONNX file"), (colour_model(Shape()), "expected float32 [1, values")):
        with pytest.raises(RejectedError) as refused:
            pack_policy(wrong, "mine")
        assert why in refused.value.problems[0]


def test_a_pinned_package_of_another_version_is_refused() -> None:
    with pytest.raises(RejectedError, match=r"needs highway-env==0\.1; here is highway-env"):
        SCENARIO.open(policy(), CPU, {"package": "highway-env==0.1"})
    with pytest.raises(RejectedError, match="not installed here"):
        SCENARIO.open(policy(), CPU, {"package": "no-such-package==1"})
    for pinned in ("highway-env>=1.0", "highway-env", "==1.0"):
        with pytest.raises(RejectedError, match="expected one version of a package"):
            SCENARIO.open(policy(), CPU, {"package": pinned})


def test_the_default_policy_crashes_less_often_than_one_that_does_nothing() -> None:
    shipped = open_policy(model_file("driving-policy").read_bytes())
    assert shipped.manifest.workload == "scenario"
    learnt = workload("scenario").open(model_file("driving-policy").read_bytes(), CPU, {})
    scenarios = rows(*(Scenario(environment=HIGHWAY, seed=seed) for seed in range(100, 103)))
    ends = [row["termination"] for row in answered(learnt, scenarios)]
    idle = [row["termination"] for row in answered(driver(lambda _: np.eye(5)[1]), scenarios)]
    assert ends.count("collision") < idle.count("collision")


def test_an_episode_follows_from_its_scenario_and_policy_alone() -> None:
    first, again = (drive(highway(5), lambda _: np.eye(5)[3], steps_max=100) for _ in range(2))
    assert replace(first, policy_s=0.0, trajectory=None) == replace(again, policy_s=0.0, trajectory=None)
    assert first.trajectory is not None
    assert again.trajectory is not None
    assert np.array_equal(first.trajectory.position_m, again.trajectory.position_m)
