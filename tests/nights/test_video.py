"""A night over video, from a few lines of an order to the published table: a row for every frame looked at."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from night import Night, night_in
from videos import Film, damaged, film_file, light_bundle, sound_only

from fleetbatch.checks import check_order
from fleetbatch.local.postgres import Postgres
from fleetbatch.orders import stored_order
from fleetbatch.steps.closing import check_step, publish_step, report_step

EVERY_FIFTH = {"every_frames": 5, "segment_s": 0.4}


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    (tmp_path / "light.zip").write_bytes(light_bundle())
    with night_in(tmp_path, postgres) as night:
        yield night


def films(night: Night) -> str:
    folder = night.home / "films"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.mp4").write_bytes(film_file(Film(frames=80, between=number)))
    (folder / "hurt.mp4").write_bytes(damaged(film_file(Film(frames=60, settings={"qp": "1"})), 33))
    (folder / "hevc.mp4").write_bytes(film_file(Film(codec="libx265")))
    (folder / "sound.mp4").write_bytes(sound_only())
    return str(folder)


def labels_of(files: list[str]) -> list[tuple[str, int, float]]:
    """Return each label with how often it was found and its best score, as DuckDB reads them."""
    everything = f"SELECT unnest(detections, recursive := true) FROM read_parquet({files})"
    by_label = duckdb.sql(f"SELECT label, count(*), max(score) FROM ({everything}) GROUP BY label")
    assert by_label is not None
    return by_label.fetchall()


def test_every_frame_is_published_once_though_cars_leave_in_the_midst_of_a_shard(night: Night) -> None:
    leaver = night.park("leaver")
    night.begin(workload="video", source=films(night), model="light.zip", options=EVERY_FIFTH)
    night.wait_until(lambda: leaver.lease and night.parts())
    leaver.unplug()
    dying = night.park("dying")
    night.wait_until(lambda: dying.lease)
    dying.kill()
    night.park("relief")

    merged = night.merge()

    assert {"leaver", "relief"} <= {who for *_, who in night.parts()}
    assert night.stats()["resumed_shards"] >= 1
    assert night.stats()["disagreements"] == 0
    assert 0 < night.stats()["audited_rows"] <= merged.rows_in, "segments are counted, not their frames"
    assert (merged.rows_in, merged.missing_rows) == (2 * 8 + 6 + 2, 0)
    strange = check_order(night.store, stored_order(night.store, night.key), merged, labels=("bus",))
    assert [check.column for check in strange.checks if not check.success] == ["labels_unknown"]
    assert check_step(night.settings, night.key).passed
    published = publish_step(night.settings, night.key, now=night.now)
    files = [f"{published.table}/{file}" for file in published.files]
    rows = pl.read_parquet(files)
    for number in range(2):
        film = rows.filter(pl.col("source_uri").str.contains(f"/{number}.mp4")).sort("frame")
        assert film["frame"].to_list() == list(range(0, 80, 5))
        assert film["seconds"].to_list() == pytest.approx([frame / 25 for frame in range(0, 80, 5)])
        assert all(len(found) >= 2 for found in film["detections"])
    dead = rows.filter(pl.col("error").is_not_null())
    assert sorted(dead["frame"].drop_nulls().to_list()) == [35]
    assert dead.filter(pl.col("frame").is_null())["source_uri"].str.extract(r"/(\w+)\.mp4").sort().to_list() == [
        "hevc",
        "sound",
    ]
    [(label, count, best)] = labels_of(files)
    assert (label, count) == ("light", rows["detections"].list.len().sum())
    assert best > 0.9
    summary = report_step(night.settings, night.key, task_instances=8, now=night.now)
    assert summary["state"] == "complete"
    assert summary["headline"] == {"light": count}


def test_a_car_that_moves_its_boxes_or_leaves_frames_out_is_found_out(night: Night) -> None:
    def moved(answers: pa.Table) -> pa.Table:
        rows = answers.to_pylist()
        for row in rows:
            for one in row["detections"] or ():
                one["left"], one["right"] = one["left"] + 20, one["right"] + 20
        return pa.Table.from_pylist(rows, schema=answers.schema)

    night.park("mover", spoil=moved)
    night.park("skipper", spoil=lambda answers: answers.slice(0, answers.num_rows - 1))
    night.begin(workload="video", source=films(night), model="light.zip", options=EVERY_FIFTH)
    night.wait_until(lambda: night.stats()["disagreements"] >= 2)
    assert night.parts() == []
