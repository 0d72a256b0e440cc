"""The one error of a network that may come back."""

from datetime import timedelta

from fleetbatch.errors import TransientError


class UnreachableError(TransientError):
    """The gateway or the store did not answer, or asked for patience."""

    def __init__(self, what: str, retry_after: timedelta | None = None) -> None:
        """Say what failed, and what the server asked for."""
        self.retry_after = retry_after
        super().__init__(what)


class ClockError(UnreachableError):
    """The car's clock is too far from the gateway's for a token to be sold: nobody refuses the car, only its time."""
