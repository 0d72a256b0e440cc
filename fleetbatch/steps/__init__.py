"""The trusted steps of a night, one per task: each opens the deployment's doors, calls one room, and may run twice.

Rooms are imported when a step needs them: the wait looks at a night every few seconds and needs none.
"""

from fleetbatch.steps.waiting import Progress, progress

__all__ = ["Progress", "progress"]
