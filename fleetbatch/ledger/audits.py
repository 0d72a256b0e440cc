"""Audits: returned shards wait for an auditor, who claims them for a while and says what was found."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec

from fleetbatch import layout
from fleetbatch.ledger.book import put_aside
from fleetbatch.ledger.ids import lease_id, lease_key
from fleetbatch.ledger.leases import order_key
from fleetbatch.ledger.messages import AuditPart, AuditTask, AuditVerdict
from fleetbatch.ledger.pool import Connection, Pool, Row, fetch
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CarId, Fence, OwnerId, Sha256, ShardId


class Audits:
    """The statements about audits."""

    _pool: Pool

    def to_audit(self, limit: int) -> list[AuditTask]:
        """Claim up to that many returned shards for `dials.audit_claim`, longest waiting first.

        Another auditor gets none of them until then; a verdict that comes later still counts unless another came first.
        """

        def work(connection: Connection) -> list[AuditTask]:
            with connection.transaction():
                claims = fetch(connection, "claim_audits", {"limit": limit, "claim": self._pool.dials.audit_claim})
                names = ("night", "shard_id", "void_fence")
                parts = fetch(connection, "audit_parts", {name: [row[name] for row in claims] for name in names})
                put_aside(connection, claims)
            return _tasks(claims, parts)

        return self._pool.run(work)

    def record_audit(self, verdict: AuditVerdict) -> bool:
        """Record a verdict; return whether it counted (False: the shard is not waiting for it, or no longer).

        Passed: the shard is valid. Refused: all its parts are void and it starts again at row group 0, in the cloud
        lane after `auditing.attempts_max` attempts; leases whose own rows stood are paid all the same.
        """
        findings = verdict.findings
        parameters: dict[str, Any] = {
            "shard_id": verdict.shard_id,
            "fence": verdict.fence,
            "passed": verdict.passed,
            "detail": verdict.detail,
            "fences": [lease_key(f.lease_id).fence for f in findings],
            "strike_half_life": self._pool.dials.strike_half_life,
            "audited_rows": [f.audited_rows for f in findings],
            "disagreements": [f.disagreements for f in findings],
            "audited_items": [msgspec.json.encode(f.audited_items).decode() for f in findings],
        }
        of = {"night": date.fromisoformat(verdict.order_key.night), "shard_id": verdict.shard_id}

        def work(connection: Connection) -> bool:
            with connection.transaction():
                put_aside(connection, [of])
                [row] = fetch(connection, "record_audit", parameters)
                fetch(connection, "settle", of)
            return bool(row["counted"])

        return self._pool.run(work)


def _tasks(claims: Iterable[Row], parts: Iterable[Row]) -> list[AuditTask]:
    of: defaultdict[int, list[Row]] = defaultdict(list)
    for part in parts:
        of[part["shard_id"]].append(part)
    plain = ("row_groups", "rows", "size_bytes", "attempts", "claimed_until")
    tasks = []
    for row in sorted(claims, key=lambda row: int(row["shard_id"])):
        key, shard_id = order_key(row), ShardId(row["shard_id"])
        tasks.append(
            AuditTask(
                shard_id=shard_id,
                order_key=key,
                fence=Fence(row["fence"]),
                row_group_rows=tuple(row["row_group_rows"]),
                sha256=Sha256(row["sha256"]),
                key=layout.shard(key, shard_id),
                parts=tuple(_part(key, row, part) for part in of[shard_id]),
                **{name: row[name] for name in plain},
            )
        )
    return tasks


def _part(key: OrderKey, claim: Row, row: Row) -> AuditPart:
    shard_id = ShardId(row["shard_id"])
    lease = lease_id(claim["night"], shard_id, row["fence"])
    plain = ("start", "stop", "rows", "size_bytes", "hardware_class", "provider", "runner_version")
    return AuditPart(
        sha256=Sha256(row["sha256"]),
        key=layout.part(key, shard_id, lease, row["start"], row["stop"], Sha256(row["sha256"])),
        lease_id=lease,
        car_id=CarId(row["car_id"]),
        owner_id=OwnerId(row["owner_id"]),
        **{name: row[name] for name in plain},
    )
