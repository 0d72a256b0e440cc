"""Videos are cut so that every frame comes out as it went in, and what cannot be cut is refused by name."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_cuts import ALL, FILMS, cut, decoded, segment_of
from videos import Film, damaged, edited, film_file, frames_of, same, sound_only

from fleetbatch.errors import RejectedError
from fleetbatch.sharding.openers import list_input, open_input
from fleetbatch.sharding.video import Videos
from fleetbatch.sharding.video_plan import Coded, VideoDials, plan_pieces, read_dials, sampled
from fleetbatch.workloads.segments import Segment, Undecodable, wanted_frames


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_of_every_segment_is_the_sources_to_the_bit_and_at_its_time(tmp_path: Path, name: str) -> None:
    content = film_file(FILMS[name])
    _, rows = cut(tmp_path, content)
    assert same(decoded(rows), frames_of(content))
    assert sum(row.answers or 0 for row in rows) == FILMS[name].frames
    assert all(segment_of(row).sha256 == hashlib.sha256(row.content or b"").hexdigest() for row in rows)


def test_a_closed_group_is_never_cut_at_a_keyframe_that_is_no_idr_frame(tmp_path: Path) -> None:
    _, closed = cut(tmp_path, film_file(FILMS["B frames"]))
    _, opened = cut(tmp_path, film_file(FILMS["open GOP"]))
    assert [segment_of(row).frame_start for row in closed] == [0, 20, 40]
    assert [segment_of(row).frames for row in opened] == [50]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"every_frames": "7"}, [0, 7, 14, 21, 28, 35, 42, 49]),
        ({"every_s": "0.5"}, [0, 13, 25, 38]),
        ({}, [0, 25]),
    ],
    ids=str,
)
def test_only_groups_with_a_wanted_frame_travel_and_only_it_is_answered(
    tmp_path: Path, options: dict[str, str], wanted: list[int]
) -> None:
    content = film_file(FILMS["B frames"])
    _, rows = cut(tmp_path, content, options)
    whole = frames_of(content)
    assert same(decoded(rows), {number: whole[number] for number in wanted})
    assert sum(segment_of(row).frames for row in rows) <= 10 * len(wanted)


def test_cutting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    content = film_file(FILMS["Matroska"])
    assert cut(tmp_path, content)[1] == cut(tmp_path, content)[1]


REFUSED: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "hevc": (lambda: film_file(Film(codec="libx265")), "its video is hevc; only H.264"),
    "mpeg4": (lambda: film_file(Film(codec="mpeg4")), "its video is mpeg4; only H.264"),
    "sound only": (sound_only, "holds no video stream, only audio"),
    "no frames": (lambda: film_file(Film(frames=0)), "cannot be opened as a video"),
    "no frames, but sound": (lambda: film_file(Film(frames=0, sound=True)), "holds no video stream, only audio"),
    "empty": (lambda: b"", "cannot be opened as a video"),
    "text": (lambda: b"not a video\n" * 100, "cannot be opened as a video"),
    "names other files": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "cannot be opened as a video"),
    "B frames in AVI": (lambda: film_file(Film(container="avi", between=2)), "B frames carry no times of their own"),
    "another container": (lambda: film_file(Film(container="flv")), "its container is not taken"),
    "bare stream": (lambda: film_file(Film(container="h264")), "carry no times"),
    "cut off before its index": (lambda: film_file(Film())[:1500], "cannot be opened as a video"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_one_dead_letter_that_says_why(tmp_path: Path, name: str) -> None:
    content, why = REFUSED[name]
    _, [row] = cut(tmp_path, content())
    assert row.content is None
    assert row.error is not None
    assert why in row.error


def test_a_folder_without_a_single_video_is_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(RejectedError, match="none can be used") as caught:
        list_input(open_input("video", str(tmp_path), {}))
    assert "film.mp4: cannot be opened as a video" in str(caught.value)


def test_times_that_begin_anew_after_a_day_are_followed_across_it(tmp_path: Path) -> None:
    content = film_file(Film(container="mpegts", muxing={"output_ts_offset": str(2**33 / 90_000 - 1)}))
    _, rows = cut(tmp_path, content)
    assert [row.error for row in rows] == [None] * len(rows)
    assert same(decoded(rows), frames_of(content))


def test_a_group_above_the_limit_names_the_dial_that_would_take_it(tmp_path: Path) -> None:
    _, [row] = cut(tmp_path, film_file(FILMS["open GOP"]), {**ALL, "segment_bytes": "1000"})
    assert row.error is not None
    assert "frames 0 to 49 hold no IDR frame but the first" in row.error
    assert "options.segment_bytes" in row.error


def test_an_edit_list_hides_frames_and_they_stay_hidden(tmp_path: Path) -> None:
    content = edited(film_file(Film(between=2)), later=5, milliseconds=1000)
    _, rows = cut(tmp_path, content)
    shown = frames_of(content)
    assert 24 <= len(shown) <= 26
    assert same(decoded(rows), shown)
    assert segment_of(rows[0]).seconds(segment_of(rows[0]).pts_start) == 0


def test_a_group_that_an_edit_list_parts_is_named_and_the_others_are_cut() -> None:
    hidden = {6, 7, 13, 25, 26}
    packets = [Coded(number, 100, number % 10 == 0, hidden=number in hidden) for number in range(30)]
    pieces = plan_pieces(packets, Fraction(1, 25), VideoDials(every_frames=1), complete=True)
    assert [(piece.frame_start, piece.frames, piece.error is None) for piece in pieces] == [
        (0, 8, False),
        (8, 9, False),
        (17, 8, False),
    ]
    assert all("parted by the edit list" in (piece.error or "") for piece in pieces)
    before_and_after = [packet._replace(hidden=packet.pts in {10, 11, 28, 29}) for packet in packets]
    pieces = plan_pieces(before_and_after, Fraction(1, 25), VideoDials(every_frames=1), complete=True)
    assert [(piece.frames, piece.segment and piece.segment.hidden) for piece in pieces] == [(10, 0), (8, 2), (8, 0)]


def test_a_video_of_which_nothing_is_shown_is_a_dead_letter() -> None:
    packets = [Coded(number, 100, number == 0, hidden=True) for number in range(5)]
    [piece] = plan_pieces(packets, Fraction(1, 25), VideoDials(), complete=True)
    assert piece.error == "its edit list shows no frame"


def test_a_car_does_not_decode_what_no_wanted_frame_needs(tmp_path: Path) -> None:
    content = film_file(Film(between=1, settings={"qp": "1", "b_strategy": "0"}))
    whole = frames_of(content)
    _, rows = cut(tmp_path, content, {"every_frames": "4", "segment_s": "9"})
    [row] = rows
    assert row.content is not None
    segment = msgspec.structs.replace(segment_of(row), wanted=(0, 4))
    needed = {0, 2, 4}  # every second frame is a B frame that no other refers to
    order = [0, 2, 1, 4, 3, 6, 5]
    for packet, number in enumerate(order):
        spoiled = damaged(bytes(row.content), packet)
        assert _as_in(whole, spoiled, segment) is (number not in needed), number


def _as_in(whole: dict[int, tuple[int, np.ndarray]], content: bytes, segment: Segment) -> bool:
    """Return whether the wanted frames decode, and to what they were."""
    try:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in wanted_frames(content, segment)]
    except Undecodable:
        return False
    return all(np.array_equal(ours, whole[n][1]) for ours, n in zip(frames, segment.wanted, strict=True))


@pytest.mark.parametrize("name", ["hevc", "odd sides", "group too large"])
def test_what_cannot_be_cut_is_encoded_anew_only_when_the_order_says_so_and_the_rows_say_it(
    tmp_path: Path, name: str
) -> None:
    films = {"hevc": Film(codec="libx265"), "odd sides": Film(codec="mpeg4", size=(97, 65))}
    film = films.get(name, FILMS["open GOP"])
    content = film_file(film)
    options = {**ALL, "reencode": "true", "segment_bytes": "2000"}
    _, rows = cut(tmp_path, content, options)
    found, whole = decoded(rows), frames_of(content)
    assert {number: pts for number, (pts, _) in found.items()} == {number: pts for number, (pts, _) in whole.items()}
    assert max(float(np.abs(found[n][1].astype(int) - whole[n][1]).mean()) for n in whole) < 3
    assert all(segment_of(row).reencoded for row in rows)
    _, rows = cut(tmp_path, film_file(Film()), {**ALL, "reencode": "true"})
    assert not any(segment_of(row).reencoded for row in rows)


def test_wrong_options_are_refused_all_at_once() -> None:
    with pytest.raises(RejectedError) as caught:
        Videos({"every_frames": "2.5", "every_s": "0", "segment_bytes": "many", "reencode": "yes"})
    for word in ("both", "every_frames", "every_s", "segment_bytes", "reencode"):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["1/", "/2", "1/2/3"])
def test_half_a_fraction_is_no_number(text: str) -> None:
    with pytest.raises(RejectedError, match="every_s"):
        Videos({"every_s": text})


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "1/1e999999999", "9" * 5000, "NaN", "inf", "1/0"])
def test_a_number_that_would_take_the_machines_memory_is_refused_before_it_is_worked_out(text: str) -> None:
    with pytest.raises(RejectedError, match="every_s"):
        Videos({"every_s": text})


def test_a_number_may_be_a_fraction() -> None:
    assert Videos({"every_s": "1/3"}).dials.every_s == Fraction(1, 3)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_every_wanted_frame_is_in_exactly_one_piece(data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    steps = data.draw(st.lists(st.integers(1, 4), min_size=sum(groups), max_size=sum(groups)))
    pts = np.cumsum(steps).tolist()
    starts = set(np.cumsum([0, *groups]).tolist())
    packets = [Coded(at, 100, number in starts, hidden=False) for number, at in enumerate(pts)]
    dials = VideoDials(
        every_frames=data.draw(st.integers(0, 5)),
        every_s=Fraction(data.draw(st.integers(1, 30)), 10),
        segment_s=Fraction(data.draw(st.integers(1, 30)), 10),
        segment_bytes=data.draw(st.integers(300, 3000)),
    )
    pieces = plan_pieces(packets, Fraction(1, 10), dials, complete=True)
    wanted = sampled(pts, Fraction(1, 10), dials)
    found = [n for p in pieces if p.segment for n in (p.frame_start + offset for offset in p.segment.wanted)]
    dead = {n for p in pieces if p.error for n in range(p.frame_start, p.frame_start + p.frames)}
    assert found == [number for number in wanted if number not in dead]
    assert all(sum(packet.size for packet in p.packets) <= dials.segment_bytes for p in pieces if p.segment)
    assert all(p.packets[0].idr for p in pieces if p.segment)


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    every=st.fractions(Fraction(1, 4), 3, max_denominator=100),
)
@settings(deadline=None, max_examples=60)
def test_sampling_by_time_takes_the_first_frame_at_or_after_every_turn(steps: list[int], every: Fraction) -> None:
    pts = np.cumsum(steps).tolist()
    dials = read_dials({"every_s": str(every)})
    times = [Fraction(at - pts[0], 25) for at in pts]
    turns = {bisect_left(times, turn * every) for turn in range(int(times[-1] / every) + 1)}
    assert sampled(pts, Fraction(1, 25), dials) == sorted(turns)
