"""A small order of coloured pictures, really cut and sealed, in a real ledger; cars that compute it by hand."""

import hashlib
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from builders import colour_bundle
from PIL import Image
from turned_clock import migrate_with_turned_clock

from fleetbatch import layout
from fleetbatch.ledger.messages import ConsentChange, Delivered, Delivery, Enrolment, Granted, GrantRequest
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order
from fleetbatch.orders import freeze_order
from fleetbatch.sealing import shard_key, unseal, unwrap_secret
from fleetbatch.sharding import cut_order
from fleetbatch.store import Store, open_store
from fleetbatch.units import CarId, CellName, Night, OrderName, OwnerId, Sha256, ShardId
from fleetbatch.workloads import Device, answer_rows, workload

DEPLOYMENT_KEY = bytes(range(32))
Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


class AuditNight:
    """An opened order of four shards, six pictures each in three row groups; picture 20 cannot be read by anyone."""

    def __init__(self, url: str, folder: Path, ledger: PostgresLedger, *, deadline_hours: float = 8.0) -> None:
        migrate_with_turned_clock(url)
        self.ledger = ledger
        self.store: Store = open_store((folder / "store").as_uri(), deployment_key=DEPLOYMENT_KEY)
        self.now = datetime.now(UTC)
        self.order = self._open(folder, deadline_hours)
        self.secret = unwrap_secret(self.order.secret_wrapped, DEPLOYMENT_KEY)
        self.manifest = cut_order(self.store, self.order, secret=self.secret, shares={CellName("eu-1"): 1.0})
        ledger.open_order(self.order)
        ledger.register_shards(self.order.key, self.manifest)
        self.answer = workload("image").open(colour_bundle(), Device(provider="CPUExecutionProvider"), {})

    @property
    def shards(self) -> list[ShardId]:
        return [ShardId(row["shard_id"]) for row in self.manifest.to_pylist()]

    def enrol(self, *cars: int) -> None:
        enrolments = [
            Enrolment(car_id=CarId(car), owner_id=OwnerId(car), public_key_pem="key", region="eu") for car in cars
        ]
        self.ledger.enrol(enrolments)
        for car in cars:
            yes = ConsentChange(
                car_id=CarId(car), purpose="compute", granted=True, notice_version="1", notice_sha256=Sha256("0" * 64)
            )
            self.ledger.set_consent(yes)

    def take(self, car: int, shard: ShardId) -> Granted:
        request = GrantRequest(
            car_id=CarId(car),
            shard_id=shard,
            lease_for=timedelta(minutes=10),
            hardware_class="ecu_2",
            provider="CPUExecutionProvider",
            threads=1,
            power_w=60.0,
            runner_version="0.1.0",
        )
        [answer] = self.ledger.grant([request])
        assert isinstance(answer, Granted), answer
        return answer

    def deliver(self, lease: Granted, stop: int | None = None, *, change: Change = lambda rows: rows) -> None:
        """Compute [start, stop) honestly, change it, and deliver it in one part."""
        stop = lease.row_groups if stop is None else stop
        rows = [row for group in range(lease.start, stop) for row in self._answers(lease, group)]
        kept = pa.Table.from_pylist(change(rows))
        sink = io.BytesIO()
        pq.write_table(kept, sink)
        self.deliver_bytes(lease, stop, sink.getvalue(), rows=len(rows))

    def deliver_bytes(self, lease: Granted, stop: int, data: bytes, *, rows: int) -> None:
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        key = layout.part(lease.order_key, lease.shard_id, lease.lease_id, lease.start, stop, sha256)
        self.store.create(key, data)
        part = Delivery(
            car_id=lease.car_id,
            lease_id=lease.lease_id,
            fence=lease.fence,
            start=lease.start,
            stop=stop,
            rows=rows,
            size_bytes=len(data),
            sha256=Sha256(hashlib.sha256(data).hexdigest()),
            energy_wh=1.0,
            energy_source="estimated",
            busy_s=2.0,
        )
        [answer] = self.ledger.deliver([part])
        assert isinstance(answer, Delivered), answer

    def _answers(self, lease: Granted, group: int) -> list[dict[str, Any]]:
        key = unseal(shard_key(self.secret, lease.shard_id))
        file = pq.ParquetFile(pa.BufferReader(self.store.read(lease.key)), decryption_properties=key)
        rows = file.read_row_group(group)
        answers: list[dict[str, Any]] = answer_rows(workload("image"), self.answer, rows, row_group=group).to_pylist()
        return answers

    def _open(self, folder: Path, deadline_hours: float) -> FrozenOrder:
        pictures = folder / "pictures"
        pictures.mkdir()
        for number in range(24):
            Image.new("RGB", (16, 16), (10 * number, 120, 255 - 10 * number)).save(pictures / f"{number:02}.png")
        (pictures / "20.png").write_bytes(b"not a picture")
        (folder / "colours.zip").write_bytes(colour_bundle())
        order = Order(
            name=OrderName("colours"),
            workload="image",
            source=str(pictures),
            model=str(folder / "colours.zip"),
            region="any",
            priority=1,
            deadline_hours=deadline_hours,
            data_class="open",
            schedule="",
            timezone="UTC",
            cutting=Cutting(shard_rows=6, row_group_rows=2),
            auditing=Auditing(rows_per_1000=8, rows_min=2, attempts_max=2),
        )
        frozen = freeze_order(
            self.store, order, night=Night("2026-11-22"), force=False, now=self.now, deployment_key=DEPLOYMENT_KEY
        )
        assert isinstance(frozen, FrozenOrder)
        return frozen
