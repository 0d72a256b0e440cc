import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from agent_story import lease
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.car.conditions import NOTHING_KNOWN, SPEED
from fleetbatch.car.identity import make_key
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.ranges import TAIL_BYTES, RangeFile
from fleetbatch.runner.delivery import GroupAnswers, make_part
from fleetbatch.runner.energy import Drawn
from fleetbatch.runner.frames import Failed, GroupDone, Share, Work, from_worker, read_frame, to_worker, write_frame
from fleetbatch.runner.process import main
from fleetbatch.runner.remote import RemoteShard
from fleetbatch.runner.signals import FileSignals, open_signals
from fleetbatch.sealing import KEY_BYTES, seal

KEY = bytes(range(KEY_BYTES))
GROUPS = 4
GROUP_ROWS = 500


class Shelf:
    """A store that remembers what was asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.data[start:stop]


def shard_rows() -> pa.Table:
    rows = [{"item_id": f"s-{n:06d}", "bytes": bytes([n % 251]) * 4000, "format": "PNG"} for n in range(2000)]
    return conform(pa.Table.from_pylist(rows, schema=contract("shard").schema), "shard")


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """A shard as the cut writes it."""
    rows, file = shard_rows(), io.BytesIO()
    with pq.ParquetWriter(
        file,
        rows.schema,
        encryption_properties=seal(KEY),
        write_page_checksum=True,
        write_page_index=True,
        compression={name: "none" if name == "bytes" else "zstd" for name in rows.schema.names},
        use_dictionary=["format", "error"],  # type: ignore[arg-type] # the stubs know only yes and no
    ) as writer:
        for group in range(GROUPS):
            writer.write_table(rows.slice(group * GROUP_ROWS, GROUP_ROWS), row_group_size=GROUP_ROWS)
    return file.getvalue()


# --- the shard ----------------------------------------------------------------------------------------------------


def test_a_row_group_costs_one_request_and_brings_its_rows(sealed: bytes) -> None:
    shelf = Shelf(sealed)
    shard = RemoteShard(shelf.fetch, len(sealed), KEY)
    assert shard.row_groups == GROUPS
    assert shelf.asked == [(len(sealed) - TAIL_BYTES, len(sealed))]
    for group in (2, 0):
        shelf.asked.clear()
        assert shard.read(group).equals(shard_rows().slice(group * GROUP_ROWS, GROUP_ROWS))
        [(start, stop)] = shelf.asked
        assert stop - start < len(sealed) / GROUPS * 1.1


def test_only_one_row_group_is_held(sealed: bytes) -> None:
    shard = RemoteShard(Shelf(sealed).fetch, len(sealed), KEY)
    tracemalloc.start()
    for group in range(GROUPS):
        shard.read(group)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * GROUP_ROWS * 4000


def test_what_was_fetched_ahead_is_read_without_another_request_and_gone_afterwards(sealed: bytes) -> None:
    shelf = Shelf(sealed)
    shard = RemoteShard(shelf.fetch, len(sealed), KEY)
    tracemalloc.start()
    fetched_bytes = shard.fetch(1) + shard.fetch(3)
    shelf.asked.clear()
    for group in (1, 3):
        assert shard.read(group).equals(shard_rows().slice(group * GROUP_ROWS, GROUP_ROWS))
    left_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shelf.asked == []
    assert fetched_bytes > 2 * GROUP_ROWS * 4000
    assert left_bytes < GROUP_ROWS * 4000 / 10


def test_another_key_does_not_open_the_shard(sealed: bytes) -> None:
    with pytest.raises(RejectedError, match="cannot be unsealed"):
        RemoteShard(Shelf(sealed).fetch, len(sealed), KEY[::-1])


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused_or_harmless_but_never_believed(sealed: bytes, at: int, bit: int) -> None:
    spoiled = bytearray(sealed)
    spoiled[at % len(sealed)] ^= 1 << bit
    try:
        shard = RemoteShard(Shelf(bytes(spoiled)).fetch, len(sealed), KEY)
        read = pa.concat_tables([shard.read(group) for group in range(GROUPS)])
    except RejectedError:
        return
    assert read.equals(shard_rows())


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 5000)), max_size=20))
def test_a_range_file_reads_like_a_file(reads: list[tuple[int, int]]) -> None:
    data = bytes(range(256)) * 700
    far, near = RangeFile(Shelf(data).fetch, len(data)), io.BytesIO(data)
    far.hold(far.span(1000, 3000))
    for position, size in reads:
        assert far.seek(position) == near.seek(position)
        assert far.read(size) == near.read(size)
        assert far.tell() == near.tell()


# --- parts --------------------------------------------------------------------------------------------------------

LEASE = lease(row_groups=3)


def group_answers(row_group: int) -> GroupAnswers:
    rows = [{"item_id": f"s-{row_group}-{n}", "row_group": row_group, "error": "broken"} for n in range(5)]
    table = conform(pa.Table.from_pylist(rows, schema=contract("answers_image").schema), "answers_image")
    return GroupAnswers(table=table, drawn=Drawn(wh=0.5, busy_s=2.0))


def test_a_part_holds_the_rows_of_its_row_groups_in_order_and_is_the_same_bytes_again() -> None:
    groups = {number: group_answers(number) for number in range(3)}
    part = make_part(LEASE, 1, 3, groups)
    assert (part.rows, part.drawn) == (10, Drawn(wh=1.0, busy_s=4.0, source="measured"))
    read = pq.read_table(pa.BufferReader(part.content))
    assert read["row_group"].to_pylist() == [1] * 5 + [2] * 5
    assert make_part(LEASE, 1, 3, groups).content == part.content
    assert conform(read, "answers_image").equals(read)


# --- the pipe -----------------------------------------------------------------------------------------------------


def test_messages_survive_the_pipe_and_a_closed_pipe_is_seen() -> None:
    pipe = io.BytesIO()
    work = Work(lease=LEASE, row_group=2, one_by_one=True, dead={3: "given up"})
    done = GroupDone(lease_id="lease-1", row_group=2, start=0, answers=b"\0" * 100_000, down_bytes_per_s=1e6)
    failed = Failed(lease_id="lease-1", refused=True, detail="no")
    share = Share(lease_id="lease-1")
    for message in (work, share, done, failed):
        write_frame(pipe, message)
    whole = pipe.getvalue()
    pipe.seek(0)
    frames = [read_frame(pipe) for _ in range(5)]
    assert frames[4] is None
    assert [to_worker(frame or b"") for frame in frames[:2]] == [work, share]
    assert [from_worker(frame or b"") for frame in frames[2:4]] == [done, failed]
    assert read_frame(io.BytesIO(whole[:50])) is None


# --- signals ------------------------------------------------------------------------------------------------------


def test_a_signals_file_says_what_the_car_and_its_owner_say(tmp_path: Path) -> None:
    file = tmp_path / "signals.json"
    source = open_signals(f"file:{file}")
    assert source.current() == NOTHING_KNOWN
    told = {"signals": {SPEED: 0, "Vehicle.Odd": [1]}, "reserve_soc": 0.3, "departure_at": "2026-11-23T06:30:00+01:00"}
    file.write_text(json.dumps(told))
    reading = source.current()
    assert reading.signals == {SPEED: 0}
    assert reading.reserve_soc == 0.3
    assert reading.departure_at is not None
    assert reading.departure_at.isoformat() == "2026-11-23T06:30:00+01:00"
    assert reading.consent


NONSENSE = [
    *("", "{", "[]", '{"signals": 3}'),
    *('{"signals": {}, "departure_at": "tomorrow"}', '{"signals": {}, "departure_at": 5}'),
    '{"signals": {}, "departure_at": "2026-11-23T06:30:00"}',
    *('{"signals": {}, "reserve_soc": "half"}', '{"signals": {}, "reserve_soc": 1.5}'),
]


@pytest.mark.parametrize("told", NONSENSE)
def test_a_signals_file_that_makes_no_sense_says_nothing(tmp_path: Path, told: str) -> None:
    file = tmp_path / "signals.json"
    file.write_text(told)
    assert FileSignals(file).current() == NOTHING_KNOWN


@pytest.mark.parametrize("url", ["kuksa:127.0.0.1:55555", "file:", "", "/tmp/signals.json"])
def test_a_source_that_is_not_known_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(RejectedError, match="use file:PATH"):
        open_signals(url)


# --- what a person got wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({}, "cannot read"),
        ({"--key": b"no key at all"}, "not a private key in PEM"),
        ({"--key": make_key(), "--signals": "can0"}, "signals source 'can0' is not known"),
        ({"--key": make_key(), "--hardware": b"power_w = 0"}, "must be above zero"),
        ({"--key": make_key(), "--hardware": b"theads = 2"}, "`theads` is not known"),
        ({"--key": make_key(), "--hardware": b'power_w = "much"'}, "expected something like 60.0"),
        ({"--key": make_key(), "--hardware": b"= 3"}, "is not TOML"),
        ({"--key": make_key(), "--hardware": b"power_w = inf"}, "must be above zero, and finite"),
        ({"--key": make_key(), "--hardware": b"threads = 1.5"}, "must be a whole number"),
        ({"--key": make_key(), "--hardware": b'precision = "int8"'}, "int8 is for an order to ask for"),
        ({"--key": make_key(), "--hardware": b'precision = ["fp16"]'}, "expected something like ''"),
        ({"--key": make_key(), "--row-limit-s": "nan"}, "--row-limit-s is nan"),
    ],
)
def test_a_wrong_key_or_flag_is_one_clear_line_and_exit_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: dict[str, str | bytes], why: str
) -> None:
    told: dict[str, str] = {"--gateway": "http://127.0.0.1:9", "--key": str(tmp_path / "no.pem"), "--signals": "file:x"}
    for number, (flag, value) in enumerate(flags.items()):
        file = tmp_path / str(number)
        if isinstance(value, bytes):
            file.write_bytes(value)
        told[flag] = value if isinstance(value, str) else str(file)
    assert main([word for pair in told.items() for word in pair]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert why in line


@pytest.mark.parametrize("value", ["9" * 400, "-" + "9" * 400])
def test_a_signal_beyond_all_numbers_is_not_known_and_ends_no_runner(tmp_path: Path, value: str) -> None:
    (tmp_path / "signals.json").write_text(f'{{"signals": {{"{SPEED}": {value}, "other": 1}}}}')
    assert FileSignals(tmp_path / "signals.json").current().signals == {"other": 1}
