"""The measures of a driven scenario, on trajectories whose answers follow by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.workloads import trajectory as m
from fleetbatch.workloads.trajectory import Trajectory


def driven(speeds: list[float], *, step_s: float | list[float] = 1.0, **changed: Any) -> Trajectory:
    """A drive straight on with these speeds, nobody ahead."""
    count = len(speeds)
    steps_s = np.broadcast_to(np.array(step_s, np.float64), count - 1)
    along = np.concatenate([[0.0], np.cumsum(speeds[1:] * steps_s)])
    values: dict[str, Any] = {
        "position_m": np.column_stack([along, np.zeros(count)]),
        "speed_mps": np.array(speeds),
        "heading_rad": np.zeros(count),
        "stretch": np.zeros(count, np.int64),
        "lane": np.zeros(count, np.int64),
        "gap_m": np.full(count, np.inf),
        "ahead_mps": np.zeros(count),
        "impact_mps": None,
    }
    arrays = {name: value if value is None else np.asarray(value) for name, value in changed.items()}
    return Trajectory(steps_s=steps_s, **(values | arrays))


def test_a_steady_drive_on_an_empty_road_has_speed_and_progress_and_nothing_else() -> None:
    found = m.measures(driven([10.0] * 5))
    assert (found["progress_m"], found["mean_speed_mps"], found["max_speed_mps"]) == (40.0, 10.0, 10.0)
    assert found["collision"] is False
    assert found["comfortable"] is True
    for name in ("min_ttc_s", "min_gap_m", "min_time_headway_s", "impact_speed_mps", "max_drac_mps2"):
        assert found[name] is None
    assert (found["rms_jerk_mps3"], found["max_abs_acceleration_mps2"], found["exposed_s"]) == (0.0, 0.0, 0.0)


def test_closing_in_on_a_slower_vehicle_gives_time_to_collision_gap_and_headway() -> None:
    t = driven([20.0, 20.0, 20.0], gap_m=[30.0, 20.0, 10.0], ahead_mps=[10.0, 10.0, 10.0])
    assert m.time_to_collision_s(t).tolist() == [3.0, 2.0, 1.0]
    assert (m.min_ttc_s(t), m.min_gap_m(t), m.min_time_headway_s(t)) == (1.0, 10.0, 0.5)
    assert m.exposed_s(t) == 1.5  # below three seconds, not at it: half of the first step, and the second
    assert m.max_drac_mps2(t) == pytest.approx(10.0**2 / (2 * 10.0))


def test_behind_a_faster_vehicle_there_is_no_time_to_collision_but_a_gap() -> None:
    t = driven([10.0, 10.0], gap_m=[8.0, 9.0], ahead_mps=[12.0, 12.0])
    assert (m.min_ttc_s(t), m.min_gap_m(t), m.min_time_headway_s(t)) == (None, 8.0, 0.8)
    assert m.max_drac_mps2(t) is None


def test_a_standing_vehicle_has_no_headway() -> None:
    assert m.min_time_headway_s(driven([0.0, 0.0], gap_m=[5.0, 5.0])) is None


def test_overlapping_vehicles_have_no_gap_and_no_time() -> None:
    t = driven([10.0, 10.0], gap_m=[2.0, -1.0], ahead_mps=[0.0, 0.0], impact_mps=10.0)
    found = m.measures(t)
    assert (found["collision"], found["impact_speed_mps"]) == (True, 10.0)
    assert (found["min_gap_m"], found["min_ttc_s"]) == (0.0, 0.0)


def test_acceleration_and_jerk_are_differences_of_speed() -> None:
    t = driven([0.0, 1.0, 4.0, 4.0], step_s=0.5)
    assert m.acceleration_mps2(t).tolist() == [2.0, 6.0, 0.0]
    assert m.jerk_mps3(t).tolist() == [8.0, -12.0]
    assert m.rms_jerk_mps3(t) == pytest.approx(math.sqrt((8.0**2 + 12.0**2) / 2))
    found = m.measures(t)
    assert (found["max_abs_acceleration_mps2"], found["min_acceleration_mps2"]) == (6.0, 0.0)
    assert found["comfortable"] is False  # 6 m/s2 is above nuPlan's 2.40


def test_hard_braking_is_the_largest_acceleration_whatever_its_sign() -> None:
    found = m.measures(driven([10.0, 4.0, 4.0]))
    assert (found["max_abs_acceleration_mps2"], found["min_acceleration_mps2"]) == (6.0, -6.0)


def test_a_turn_has_a_yaw_rate_and_a_sideways_acceleration_also_across_the_half_circle() -> None:
    t = driven([10.0, 10.0, 10.0], heading_rad=[math.pi - 0.1, -math.pi + 0.1, -math.pi + 0.2])
    assert m.yaw_rate_radps(t) == pytest.approx([0.2, 0.1])
    assert m.lateral_mps2(t) == pytest.approx([2.0, 1.0])
    assert not m.is_comfortable(driven([10.0, 10.0], heading_rad=[0.0, 0.5]))  # 5 m/s2 sideways, above 4.89


def test_lanes_count_when_they_change_and_time_beside_the_road_is_told() -> None:
    t = driven([1.0] * 6, lane=[0, 1, 0, 1, 2, 2], stretch=[0, 0, -1, 0, 0, 0], step_s=0.5)
    assert (m.lane_changes(t), m.off_road_s(t)) == (2, 0.5)  # half of the step before, half of the one after
    assert m.lane_changes(driven([1.0] * 4, lane=[0, 1, 1, 0], stretch=[0, 1, 2, 2])) == 1  # a junction is no change


def test_progress_follows_the_path_and_not_the_straight_line() -> None:
    assert m.progress_m(driven([1.0] * 3, position_m=[[0, 0], [3, 4], [3, 0]])) == 9.0


@pytest.mark.parametrize("steps_s", [[0.05] * 4, [0.5] * 4, [0.1, 0.4, 1.0, 0.5]], ids=["short", "long", "uneven"])
def test_what_lasts_all_the_time_lasts_as_long_as_is_simulated_and_no_longer(steps_s: list[float]) -> None:
    t = driven([20.0] * 5, step_s=steps_s, gap_m=[10.0] * 5, ahead_mps=[10.0] * 5, stretch=[-1] * 5)
    assert m.exposed_s(t) == m.off_road_s(t) == m.simulated_s(t) == pytest.approx(sum(steps_s))


def test_what_is_so_at_the_last_sample_or_at_the_first_only_lasts_half_of_that_step() -> None:
    leaves = driven([1.0] * 4, step_s=[1.0, 1.0, 0.2], stretch=[0, 0, 0, -1])
    returns = driven([1.0] * 4, step_s=[0.4, 1.0, 1.0], stretch=[-1, 0, 0, 0])
    assert (m.off_road_s(leaves), m.off_road_s(returns)) == (0.1, 0.2)


@pytest.mark.parametrize("step_s", [0.01, 0.1, 0.25])
def test_the_time_exposed_hardly_depends_on_how_often_the_world_is_looked_at(step_s: float) -> None:
    gaps = 50.0 - 10.0 * np.arange(0.0, 5.0 + step_s / 2, step_s)  # 10 m/s faster: 3 s are left at 30 m, after 2 s
    count = gaps.size
    t = driven([20.0] * count, step_s=step_s, gap_m=gaps, ahead_mps=[10.0] * count, impact_mps=10.0)
    assert m.exposed_s(t) == pytest.approx(3.0, abs=step_s / 2 + 1e-9)


def test_uneven_steps_weigh_as_long_as_they_are() -> None:
    t = driven([0.0, 2.0, 2.0, 5.0], step_s=[1.0, 3.0, 1.0])
    assert m.mean_speed_mps(t) == pytest.approx((1.0 * 1.0 + 2.0 * 3.0 + 3.5 * 1.0) / 5.0)
    assert m.acceleration_mps2(t).tolist() == [2.0, 0.0, 3.0]
    assert m.jerk_mps3(t).tolist() == [-1.0, 1.5]  # over the 2 s between the middles of two steps
    assert m.rms_jerk_mps3(t) == pytest.approx(math.sqrt((1.0 + 1.5**2) / 2))


def test_one_sample_is_enough_for_a_measure_and_too_little_for_the_others() -> None:
    found = m.measures(driven([5.0]))
    assert (found["mean_speed_mps"], found["progress_m"], found["rms_jerk_mps3"]) == (5.0, 0.0, None)


def test_the_digest_ignores_what_is_below_a_millimetre_and_the_sign_of_zero() -> None:
    same = driven([1.0, 1.0], position_m=[[-1e-5, 0.0], [1.00004, -0.0]])
    assert m.digest(same) == m.digest(driven([1.0, 1.0], position_m=[[0.0, 0.0], [1.0, 0.0]]))
    assert m.digest(same) != m.digest(driven([1.0, 1.0], position_m=[[0.0, 0.0], [1.002, 0.0]]))


@given(st.lists(st.floats(0, 60), min_size=3, max_size=20), st.floats(0.05, 1.0))
def test_measures_are_numbers_or_nothing_and_bounded_by_each_other(speeds: list[float], step_s: float) -> None:
    found = m.measures(driven(speeds, step_s=step_s, gap_m=[30.0] * len(speeds)))
    assert all(value is None or isinstance(value, str) or math.isfinite(value) for value in found.values())
    assert found["mean_speed_mps"] <= found["max_speed_mps"] + 1e-9  # type: ignore[operator]
    assert abs(found["min_acceleration_mps2"]) <= found["max_abs_acceleration_mps2"] + 1e-9  # type: ignore[operator,arg-type]
