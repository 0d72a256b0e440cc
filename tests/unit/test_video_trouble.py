"""Files that are cut short, damaged or changed give the frames that are whole, and name the rest."""

import io
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from video_cuts import ALL, FILMS, cut, decoded, segment_of
from videos import Film, damaged, film_file, frames_of, index_first, packet_place, same, several_tracks

from fleetbatch.sharding.shard_rows import dead_row
from fleetbatch.sharding.sources import open_source
from fleetbatch.sharding.transport_stream import breaks
from fleetbatch.sharding.video import Videos
from fleetbatch.workloads.segments import Undecodable


def test_of_a_file_that_is_cut_short_the_whole_groups_are_used_and_the_rest_is_named(tmp_path: Path) -> None:
    content = index_first(film_file(Film(settings={"qp": "1"})), tmp_path)
    entries, rows = cut(tmp_path, content[: len(content) * 2 // 3])
    good = [row for row in rows if row.error is None]
    shown = sum(row.answers or 0 for row in good)
    assert 10 <= shown <= 40
    whole = frames_of(content)
    assert same(decoded(good), {number: whole[number] for number in range(shown)})
    assert rows[-1].error is not None
    assert "cut short" in rows[-1].error
    assert entries[-1].uri.endswith(f"#frames={shown}-")


@pytest.mark.parametrize(
    "film",
    [
        Film(container="matroska", between=2),
        Film(container="mpegts", between=2),
        Film(muxing={"movflags": "frag_every_frame+empty_moov"}),
    ],
    ids=lambda film: film.container,
)
@pytest.mark.parametrize("reencode", ["false", "true"])
def test_a_file_without_an_index_that_is_cut_short_says_so_too(tmp_path: Path, film: Film, reencode: str) -> None:
    content = film_file(film)
    _, rows = cut(tmp_path, content[: len(content) * 2 // 3], {**ALL, "reencode": reencode})
    *good, last = rows
    whole, found = frames_of(content), decoded(good)
    assert same(found, {number: whole[number] for number in found})
    assert len(found) in {20, 30}
    assert not any(segment_of(row).reencoded for row in good)
    assert last.error is not None
    assert "cut short" in last.error


def test_what_is_encoded_anew_of_a_file_that_is_cut_short_says_so_too(tmp_path: Path) -> None:
    content = film_file(Film(codec="libx265", container="matroska"))
    _, rows = cut(tmp_path, content[:-100], {**ALL, "reencode": "true"})
    assert segment_of(rows[0]).reencoded
    assert rows[-1].error is not None
    assert "cut short" in rows[-1].error


def test_bytes_lost_in_the_middle_cost_their_group_of_frames_and_no_other(tmp_path: Path) -> None:
    content = film_file(Film(container="mpegts"))
    lost = packet_place(content, 25)
    _, rows = cut(tmp_path, content[:lost] + content[lost + 188 :], {**ALL, "segment_s": "0.1"})
    [why] = [row.error for row in rows if row.error]
    assert why.endswith("are damaged: bytes of the file are lost among them, or another recording was put behind")
    whole, found = frames_of(content), decoded(rows)
    assert len(found) == 40
    # the lost frame is not counted
    assert same(found, {number: whole[number if number < 20 else number + 1] for number in found})


def test_a_damaged_first_group_is_found_when_it_is_cut_and_one_in_the_middle_when_it_is_computed(
    tmp_path: Path,
) -> None:
    content = film_file(Film(settings={"qp": "1"}))
    _, rows = cut(tmp_path, damaged(content, 3), {**ALL, "segment_s": "0.1"})
    assert [row.error is None for row in rows] == [False, True, True, True, True]
    _, rows = cut(tmp_path, damaged(content, 23), {**ALL, "segment_s": "0.1"})
    assert [row.error is None for row in rows] == [True] * 5
    with pytest.raises(Undecodable):
        decoded(rows)


def test_what_cannot_be_encoded_anew_either_is_one_dead_letter(tmp_path: Path) -> None:
    hurt = damaged(film_file(Film(codec="mpeg4")), 7)
    _, [row] = cut(tmp_path, hurt, {**ALL, "reencode": "true"})
    assert row.error is not None
    assert row.error.startswith("cannot be encoded anew")


def test_bytes_that_are_wrong_anywhere_end_in_rows_and_never_in_an_error(tmp_path: Path) -> None:
    chance = random.Random(7)
    whole = [film_file(film) for film in FILMS.values()]
    ends: Counter[str] = Counter()
    for _ in range(200):
        content = bytearray(chance.choice(whole))
        content = content[: chance.randrange(1, len(content))] if chance.random() < 0.4 else content
        for _ in range(chance.choice((1, 3, 20))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        for row in cut(tmp_path, bytes(content), {**ALL, "reencode": chance.choice(("true", "false"))})[1]:
            try:
                frames = len(decoded([row]))
                assert frames == (row.answers if row.error is None else 0)
                ends["computed" if frames else "dead"] += 1
            except Undecodable:
                ends["undecodable"] += 1
    assert min(ends["computed"], ends["dead"], ends["undecodable"]) > 5, ends


def test_a_file_that_changes_while_it_is_cut_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(film_file(Film()))
    source, opener = open_source(str(tmp_path)), Videos(ALL)
    entry = next(iter(opener.entries(source)))
    (tmp_path / "film").write_bytes(film_file(Film(settings={"qp": "1"})))
    assert opener.row(source, entry) == dead_row("the file changed while it was read")


def test_of_several_video_tracks_the_rows_say_which_is_looked_at_and_the_others_are_dead_letters(
    tmp_path: Path,
) -> None:
    entries, rows = cut(tmp_path, several_tracks(Film(frames=30), Film(frames=50), Film(frames=10)))
    named = [entry.uri.rpartition("#")[2] for entry in entries]
    assert named == ["track=1&frames=0-19", "track=1&frames=20-29", "track=2", "track=3"]
    assert [row.error is None for row in rows] == [True, True, False, False]
    assert all("only track 1 is looked at" in (row.error or "") for row in rows[2:])


def test_a_picture_of_the_film_is_no_further_track(tmp_path: Path) -> None:
    entries, rows = cut(tmp_path, several_tracks(Film(), cover=True))
    assert [entry.uri.rpartition("#")[2] for entry in entries] == ["frames=0-19", "frames=20-39", "frames=40-49"]
    assert [row.error for row in rows] == [None, None, None]


def test_a_clock_that_begins_anew_is_refused_by_name(tmp_path: Path) -> None:
    recorded = film_file(Film(container="mpegts"))
    _, [row] = cut(tmp_path, recorded + recorded)
    assert "a clock that begins anew" in (row.error or "")


@pytest.mark.parametrize("name", ["plain", "B frames", "with sound"])
def test_a_recording_put_behind_another_in_one_mp4_file_is_named_and_the_first_is_looked_at(
    tmp_path: Path, name: str
) -> None:
    first, second = film_file(FILMS[name]), film_file(Film(frames=10))
    entries, rows = cut(tmp_path, first + second)
    assert same(decoded(rows), frames_of(first))
    assert [row.error is None for row in rows] == [True, True, True, False]
    assert "another recording begins here" in (rows[-1].error or "")
    named = int(entries[-1].uri.rpartition("#bytes=")[2].removesuffix("-"))
    assert len(first) < named < len(first + second)
    assert not any(row.error for row in cut(tmp_path, first + bytes(1000))[1]), "padding is no recording"


@pytest.mark.parametrize("between", [0, 2])
def test_where_two_transport_streams_meet_the_last_group_before_is_named_and_every_other_frame_is_looked_at(
    tmp_path: Path, between: int
) -> None:
    first = film_file(Film(container="mpegts", between=between))
    joined = first + film_file(Film(container="mpegts", between=between, pts=range(100, 150)))
    entries, rows = cut(tmp_path, joined)
    [dead] = [entry.uri.rpartition("#")[2] for entry, row in zip(entries, rows, strict=True) if row.error]
    assert dead == "frames=40-49"
    whole = frames_of(joined)
    assert same(decoded(rows), {number: whole[number] for number in whole if not 40 <= number < 50})


def test_a_recorder_that_went_on_in_the_midst_of_a_packet_never_makes_one_picture_of_two(tmp_path: Path) -> None:
    first = film_file(Film(container="mpegts", settings={"qp": "8"}))
    second = film_file(Film(container="mpegts", settings={"qp": "8"}, pts=range(100, 150)))
    shown = dict(frames_of(first).values()) | dict(frames_of(second).values())
    for number in range(70, 86):  # packets are counted to sixteen: after one of these the second goes on counting
        _, rows = cut(tmp_path, first[: 188 * number + 107] + second)
        assert [row.error for row in rows if row.error], "the group before the joint is named"
        assert all(np.array_equal(pixels, shown[pts]) for pts, pixels in decoded(rows).values())


@pytest.mark.parametrize("lost", [b"", bytes(40), b"\x47" * 100], ids=["nothing", "zeros", "sync bytes"])
def test_a_transport_stream_says_where_its_packets_stop_being_one_behind_the_other(lost: bytes) -> None:
    packets = b"".join(b"\x47" + bytes([number % 256]) * 187 for number in range(1, 5000) if number % 256 != 0x47)
    half = 188 * 4400 + 50
    assert breaks(io.BytesIO(packets)) == []
    assert breaks(io.BytesIO(packets[:half] + lost + packets)) == [188 * 4401]
    blu_ray = b"".join(b"time" + packets[place : place + 188] for place in range(0, 188 * 20, 188))
    assert breaks(io.BytesIO(blu_ray)) == []
    assert breaks(io.BytesIO(blu_ray[: 192 * 9 + 7] + blu_ray)) == [192 * 10]
    assert breaks(io.BytesIO(bytes(1000))) == []


def test_frames_of_another_size_are_not_stretched_when_they_are_encoded_anew(tmp_path: Path) -> None:
    small = Film(codec="libx265", container="mpegts", frames=20)
    large = film_file(replace(small, size=(192, 128), pts=range(100, 120)))
    _, [row] = cut(tmp_path, film_file(small) + large, {**ALL, "reencode": "true"})
    assert row.error == "cannot be encoded anew: its frames are not of one size"


def test_what_cannot_be_encoded_anew_as_its_clock_goes_back_or_bytes_are_lost_says_so(tmp_path: Path) -> None:
    recorded = film_file(Film(container="mpegts"))
    _, [back] = cut(tmp_path, recorded + recorded, {**ALL, "reencode": "true"})
    assert "its frames' times go back" in (back.error or "")
    hevc = film_file(Film(codec="libx265", container="mpegts"))
    _, [lost] = cut(tmp_path, hevc[: len(hevc) // 2 // 188 * 188 + 107] + hevc, {**ALL, "reencode": "true"})
    assert "bytes of the file are lost" in (lost.error or "")
