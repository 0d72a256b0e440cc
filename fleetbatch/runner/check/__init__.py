"""What a car integrator runs to see that a runner, its signals and its network work against a gateway."""

from fleetbatch.runner.check.checking import check_car
from fleetbatch.runner.check.findings import Finding

__all__ = ["Finding", "check_car"]
