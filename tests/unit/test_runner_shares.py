"""What a worker gives up for another that is idle: rows that it has not begun, and nothing else changes."""

import math
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from agent_story import lease
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.contracts import conform, contract
from fleetbatch.runner.frames import FromWorker, GroupDone, Spare, Work
from fleetbatch.runner.whereabouts import Whereabouts
from fleetbatch.runner.worker import SPARE_BYTES_MAX, SPARE_S_MIN, Bench, Opened, Reader, shared
from fleetbatch.units import MIB
from fleetbatch.workloads import Device, workload

ROWS = 12
HERE = Device(provider="CPUExecutionProvider", threads=1)
ROAD_SIGNS = Path(__file__).parents[2] / "fleetbatch" / "models" / "road_signs.zip"
LEASE = lease()


def rows() -> pa.Table:
    some = [{"item_id": f"s-{n}", "bytes": f"no picture {n}".encode(), "format": "PNG"} for n in range(ROWS)]
    return conform(pa.Table.from_pylist(some, schema=contract("shard").schema), "shard")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A worker's bench with its model open, in this process."""
    kind = workload("image")
    answer = kind.open(ROAD_SIGNS.read_bytes(), HERE, {})
    opened = Opened(wanted=(LEASE.workload, LEASE.model_sha256, LEASE.options), kind=kind, answer=answer)
    where = Whereabouts.create()
    return Bench(device=HERE, cache=tmp_path, reader=Reader(worker_bytes=400 * MIB), whereabouts=where, opened=opened)


def streamed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def computed(bench: Bench, work: Work) -> list[FromWorker]:
    return list(bench.compute(work, None))


def answers(done: FromWorker) -> pa.Table:
    assert isinstance(done, GroupDone), done
    return pa.ipc.open_stream(done.answers).read_all()


def test_who_is_asked_gives_the_later_half_once_and_both_halves_are_the_answers_of_the_whole(bench: Bench) -> None:
    work = Work(lease=LEASE, row_group=0, start=3, stop=3 + ROWS, rows=streamed(rows()))
    [whole] = computed(bench, work)
    bench.share_of, bench.opened = LEASE.lease_id, slow(bench)
    spare, first = computed(bench, work)
    assert isinstance(spare, Spare)
    assert (spare.row_group, spare.start, spare.stop) == (0, 3 + ROWS // 2, 3 + ROWS)
    [second] = computed(bench, msgspec.structs.replace(work, start=spare.start, stop=spare.stop, rows=spare.rows))
    assert isinstance(second, GroupDone)
    assert second.start == spare.start
    assert pa.concat_tables([answers(first), answers(second)]).equals(answers(whole))


def test_who_is_asked_for_another_lease_gives_nothing(bench: Bench) -> None:
    bench.share_of, bench.opened = "lease-0", slow(bench)
    [done] = computed(bench, Work(lease=LEASE, row_group=0, rows=streamed(rows())))
    assert answers(done).num_rows == ROWS


def test_a_row_that_was_given_up_stays_so_whoever_takes_it(bench: Bench) -> None:
    bench.share_of, bench.opened = LEASE.lease_id, slow(bench)
    work = Work(lease=LEASE, row_group=0, rows=streamed(rows()), one_by_one=True, dead={ROWS - 1: "it hangs"})
    spare, _ = computed(bench, work)
    assert isinstance(spare, Spare)
    [second] = computed(bench, Work(lease=LEASE, row_group=0, start=spare.start, stop=spare.stop, rows=spare.rows))
    assert answers(second)["error"].to_pylist()[-1] == "it hangs"


def test_who_takes_over_from_one_that_was_lost_leaves_what_that_one_had_given_up(bench: Bench) -> None:
    """The rows that came with the piece are still all of them."""
    [done] = computed(bench, Work(lease=LEASE, row_group=0, start=3, stop=3 + 5, rows=streamed(rows())))
    assert answers(done)["item_id"].to_pylist() == rows()["item_id"].to_pylist()[:5]


def slow(bench: Bench) -> Opened:
    """What is open, as if its last rows had taken long."""
    assert bench.opened is not None
    bench.opened.row_s = 1.0
    return bench.opened


@given(count=st.integers(1, 60), start=st.integers(0, 60), row_s=st.floats(0, 10) | st.just(math.inf))
def test_what_is_kept_is_what_is_begun_and_half_of_the_rest(count: int, start: int, row_s: float) -> None:
    start = min(start, count - 1)
    table = pa.table({"bytes": [b"x"] * count})
    kept = shared(table, start, row_s)
    if (count - start) * row_s < SPARE_S_MIN or count - start == 1:
        assert kept == count
    else:
        assert 0 <= (kept - start) - (count - kept) <= 1


def test_of_large_rows_fewer_are_given_up_and_of_the_largest_none() -> None:
    rows_of = [bytes(SPARE_BYTES_MAX // 4)] * 16
    kept = shared(pa.table({"bytes": rows_of}), 0, 1.0)
    assert 12 < kept < 16
    assert shared(pa.table({"bytes": [bytes(SPARE_BYTES_MAX + 1)] * 2}), 0, 1.0) == 2
