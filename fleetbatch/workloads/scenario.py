"""Driving scenarios: an environment, its configuration and a seed in; how a policy drove it out."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import pyarrow as pa

from fleetbatch.bundle.policy import PolicyBundle, open_policy
from fleetbatch.errors import RejectedError
from fleetbatch.inference import open_network
from fleetbatch.workloads.driving import MisfitError, Policy, Scenario, ScenarioError, drive, take_first_steps
from fleetbatch.workloads.protocol import Answer, AnswerRow, Device, Workload
from fleetbatch.workloads.trajectory import measures, simulated_s

STEPS_MAX: Final = 10_000
"""Decisions after which an episode counts as endless, unless the order says another number (`steps_max`)."""
TERMINATIONS: Final = ("collision", "off_road", "terminated", "time_limit")


class ScenarioWorkload(Workload):
    """Drives scenarios; two answers agree when what they measured does. How long the policy took is nobody's business.

    Options: `package`, such as highway-env==1.12.1, is what a car must have installed; `steps_max`.
    """

    name = "scenario"
    needs = ("gymnasium",)
    opener = "fleetbatch.sharding.scenarios:Scenarios"
    options = frozenset({"package", "steps_max"})
    rows_per_s = 0.5
    """40 s of highway-env with 30 cars, driven twice a simulated second, took one core 2 s."""
    tolerance: ClassVar[float] = 1e-3
    """Of a measure, relative where it is above one: machines round differently."""

    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:
        """Open the policy, see that it reproduces its goldens, and that the pinned package is the one here."""
        if model is None:
            summary = "scenarios need a policy: name its bundle, such as driving-policy"
            raise RejectedError(summary)
        _refuse_other_package(options.get("package", ""))
        policy = open_driver(open_policy(model), threads=device.threads)
        return driver(policy, steps_max=_steps_max(options))

    def misfit(self, model: bytes | None, row: bytes) -> str:
        """Return why policy and environment do not fit each other: what one gives the other does not take."""
        if model is None:
            return ""  # `open` refuses it, and says what it needs
        try:
            take_first_steps(msgspec.json.decode(row, type=Scenario), open_driver(open_policy(model), threads=1))
        except MisfitError as error:
            return str(error)
        except ScenarioError:
            pass  # a seed with which it breaks, or an observation that is none, says nothing of other rows
        return ""

    def labels(self, model: bytes | None) -> tuple[str, ...]:  # noqa: ARG002 (the same for every policy)
        """Return every way in which an episode ends."""
        return TERMINATIONS

    def differs(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        """Return the first measure that is another one, or nothing."""
        for name, our in ours.items():
            if name not in {"item_id", "row_group", "policy_ms", "trajectory"} and not self._alike(our, theirs[name]):
                return f"{name} is {theirs[name]!r}, ours is {our!r}"
        if theirs["policy_ms"] is None or not theirs["policy_ms"] >= 0:
            return f"policy_ms is {theirs['policy_ms']!r}"
        return ""

    def _alike(self, ours: Any, theirs: Any) -> bool:  # noqa: ANN401 (any measure)
        if not isinstance(ours, float) or not isinstance(theirs, float):
            return bool(ours == theirs)
        return abs(ours - theirs) <= self.tolerance * max(1.0, abs(ours))


def open_driver(bundle: PolicyBundle, *, threads: int) -> Policy:
    """Return the bundle's policy; raise RejectedError when it cannot run here or does not reproduce its goldens."""
    network, manifest = open_network(bundle.model, threads=threads), bundle.manifest

    def policy(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if observation.size != manifest.values:
            message = f"the policy takes {manifest.values} values, the environment gives {observation.size}"
            raise MisfitError(message)
        return network({manifest.input: observation[np.newaxis]}).reshape(-1)

    for golden in bundle.goldens:
        found = policy(np.asarray(golden.observation, np.float32))
        if found.shape != (len(golden.output),) or not np.allclose(
            found, golden.output, rtol=0, atol=manifest.golden_tolerance
        ):
            summary = f"policy {bundle.sha256[:12]} does not reproduce its goldens; it is not used"
            raise RejectedError(summary, [f"it gives {found.tolist()}, the golden says {list(golden.output)}"])
    return policy


def driver(policy: Policy, *, steps_max: int = STEPS_MAX) -> Answer:
    """Return what answers scenarios with a policy; one that cannot be driven to its end has an error."""
    schema = ScenarioWorkload().answer_schema

    def answer(rows: pa.Table) -> pa.Table:
        items = rows.select(["item_id", "bytes"]).to_pylist()
        answers = [{"item_id": item["item_id"], **_driven(item["bytes"], policy, steps_max)} for item in items]
        return pa.Table.from_pylist(answers, schema=schema)

    return answer


def _driven(content: bytes, policy: Policy, steps_max: int) -> dict[str, Any]:
    """Return the answer columns of one scenario."""
    try:
        scenario = msgspec.json.decode(content, type=Scenario)
        episode = drive(scenario, policy, steps_max=steps_max)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        return {"error": f"not a scenario: {error}"}
    except ScenarioError as error:
        return {"error": str(error)}
    watched = episode.trajectory
    return {
        "environment": scenario.environment,
        "seed": scenario.seed,
        "config": msgspec.json.encode(scenario.config, order="sorted").decode(),
        "termination": episode.termination,
        "reward": episode.reward,
        "steps": episode.steps,
        "simulated_s": simulated_s(watched) if watched else None,
        "policy_ms": 1000 * episode.policy_s / max(1, episode.steps),
        **(measures(watched) if watched else {}),
    }


def _steps_max(options: Mapping[str, str]) -> int:
    told = options.get("steps_max", str(STEPS_MAX))
    if not told.isdecimal() or int(told) < 1:
        summary = f"`options.steps_max` is {told!r}; expected a whole number above 0"
        raise RejectedError(summary)
    return int(told)


def _refuse_other_package(pinned: str) -> None:
    """Raise RejectedError when the package that the order pins (name==version) is not what is installed."""
    if not pinned:
        return
    name, _, wanted = pinned.partition("==")
    if not name or not wanted:
        summary = f"`options.package` is {pinned!r}; expected one version of a package, such as highway-env==1.12.1"
        raise RejectedError(summary)
    try:
        found = version(name)
    except PackageNotFoundError as error:
        summary = f"the order needs {pinned}, which is not installed here"
        raise RejectedError(summary) from error
    if found != wanted:
        summary = f"the order needs {pinned}; here is {name} {found}"
        raise RejectedError(summary)
