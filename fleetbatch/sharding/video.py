"""The opener of video orders: a video becomes segments, cut by stream copy at IDR frames."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import msgspec

from fleetbatch.picture_heads import PIXELS_MAX
from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.shard_rows import Row, dead_row
from fleetbatch.sharding.sources import Source, path_of, why_not
from fleetbatch.sharding.video_file import NotAVideo, Place, Video, copy_packets, read_video
from fleetbatch.sharding.video_plan import Piece, VideoDials, plan_pieces, read_dials
from fleetbatch.sharding.video_reencode import reencode
from fleetbatch.workloads.segments import Segment, Undecodable, wanted_frames

CODEC: Final = "h264"
_OVERHEAD_BYTES: Final = 4096
"""The MP4 boxes around the packets, besides those that grow with their number."""
_PACKET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Entry):
    """One piece of a video, as planned."""

    file: str
    """The uri of the video."""
    piece: Piece = field(repr=False)
    size: tuple[int, int]
    """Width and height in pixels."""
    decoder_bytes: int
    reencoded: bool


@dataclass(frozen=True, slots=True)
class Videos:
    """Every item is a video; each segment with a wanted frame is a row, and what cannot be cut is a dead letter."""

    options: Mapping[str, str]
    expects: str = "videos (H.264 in MP4, MOV, Matroska or MPEG-TS)"
    dials: VideoDials = field(init=False)

    def __post_init__(self) -> None:
        """Refuse wrong options before anything is read."""
        object.__setattr__(self, "dials", read_dials(self.options))

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield the pieces of every video, in the order in which they are shown."""
        for entry in source.entries():
            if entry.error is not None:
                yield entry
                continue
            try:
                yield from self._pieces(source, entry)
            except OSError as error:
                yield Entry(uri=entry.uri, size_bytes=0, error=why_not(error))

    def row(self, source: Source, entry: Entry) -> Row:
        """Copy one segment out of its video; the video's first and last one are decoded, to see that they can be."""
        assert isinstance(entry, Cut), "dead entries are rows already"
        assert entry.piece.segment is not None
        place = _place(source, entry.file)
        taken = _anew(place, _state_of(place), self.dials.segment_s) if entry.reencoded else place
        content = taken if isinstance(taken, NotAVideo) else copy_packets(taken, entry.piece.packets)
        if isinstance(content, NotAVideo):
            return dead_row(content.reason)
        segment = msgspec.structs.replace(
            entry.piece.segment,
            reencoded=entry.reencoded,
            sha256=hashlib.sha256(content).hexdigest(),
            decoder_bytes=entry.decoder_bytes,
        )
        if entry.piece.edge and (why := _not_whole(content, segment)):
            return dead_row(why)
        return Row(
            content=content,
            format="MP4",
            width=entry.size[0],
            height=entry.size[1],
            attributes=msgspec.json.encode(segment).decode(),
            answers=len(segment.wanted),
        )

    def _pieces(self, source: Source, entry: Entry) -> Iterator[Entry]:
        video, pieces, reencoded = self._planned(_place(source, entry.uri))
        for piece in pieces:
            uri = entry.uri + _fragment(piece, video)
            if piece.error is not None or isinstance(video, NotAVideo):
                yield Entry(uri=uri, size_bytes=0, error=piece.error)
                continue
            yield Cut(
                uri=uri,
                size_bytes=sum(coded.size + _PACKET_BYTES for coded in piece.packets) + _OVERHEAD_BYTES,
                file=entry.uri,
                piece=piece,
                size=(video.width, video.height),
                decoder_bytes=video.decoder_bytes,
                reencoded=reencoded,
            )
        if isinstance(video, Video):
            yield from _other_tracks(entry.uri, video)
            yield from _other_recording(entry.uri, video)

    def _planned(self, place: Place) -> tuple[Video | NotAVideo, list[Piece], bool]:
        """Return a video, its pieces, and whether it was encoded anew because that helps and the order says so."""
        video = read_video(place)
        pieces = _plan(video, self.dials)
        if isinstance(video, NotAVideo) or not self.dials.reencode or not any(piece.mendable for piece in pieces):
            return video, pieces, False
        anew = _anew(place, _state_of(place), self.dials.segment_s)
        if isinstance(anew, NotAVideo):
            some = any(piece.segment for piece in pieces)
            return (video, pieces, False) if some else (anew, _plan(anew, self.dials), False)
        mended = read_video(anew)
        if isinstance(mended, Video):
            mended = replace(
                mended, complete=video.complete, track=video.track, tracks=video.tracks, further=video.further
            )
        return mended, _plan(mended, self.dials), True


def _plan(video: Video | NotAVideo, dials: VideoDials) -> list[Piece]:
    """Return a video's pieces; the packets of those groups that are cut, and of all the others, are all there are."""
    if isinstance(video, NotAVideo):
        return [Piece(frame_start=0, frames=0, error=video.reason)]
    if max(video.pixels, video.width * video.height) > PIXELS_MAX:
        larger = "" if video.pixels == video.width * video.height else f", and then {video.pixels},"
        why = f"{video.width} x {video.height} pixels{larger} are more than the {PIXELS_MAX} that are decoded"
        return [Piece(frame_start=0, frames=0, error=why)]
    if video.codec != CODEC:
        why = f"its video is {video.codec}; only H.264 is cut as it is: convert it, or say options.reencode"
        return [Piece(frame_start=0, frames=0, error=why, mendable=True)]
    return plan_pieces(video.packets, video.time_base, dials, complete=video.complete)


def _not_whole(content: bytes, segment: Segment) -> str:
    """Return why the segment does not decode by itself into exactly its frames, or nothing."""
    every = msgspec.structs.replace(segment, wanted=tuple(range(segment.frames)))
    try:
        last = [pts for pts, _ in wanted_frames(content, every)][-1]
    except Undecodable as error:
        return str(error)
    return "" if last == segment.pts_end else f"its last frame has pts {last}, not {segment.pts_end}"


def _other_tracks(uri: str, video: Video) -> Iterator[Entry]:
    """Yield a dead letter for every video track that nobody looks at: it may be another camera's."""
    for track in range(1, video.tracks + 1):
        if track != video.track:
            why = f"a further video track; only track {video.track} is looked at: give every track a file of its own"
            yield Entry(uri=f"{uri}#track={track}", size_bytes=0, error=why)


def _other_recording(uri: str, video: Video) -> Iterator[Entry]:
    """Yield a dead letter for what another recording holds that was put behind the first."""
    if video.further:
        why = "another recording begins here, of which no player shows anything: give every recording a file of its own"
        yield Entry(uri=f"{uri}#bytes={video.further}-", size_bytes=0, error=why)


def _fragment(piece: Piece, video: Video | NotAVideo) -> str:
    """Return what names a piece in its video's uri: its frames and, where the video has several tracks, the track."""
    told = [f"track={video.track}"] if isinstance(video, Video) and video.tracks > 1 else []
    if piece.frames:
        told.append(f"frames={piece.frame_start}-{piece.frame_start + piece.frames - 1}")
    elif piece.frame_start:
        told.append(f"frames={piece.frame_start}-")
    return "#" + "&".join(told) if told else ""


def _place(source: Source, uri: str) -> Place:
    """Return the file itself where there is one, so that a large video is never in memory whole."""
    return path_of(uri) if uri.startswith("file:") else source.read(uri)


@functools.lru_cache(maxsize=1)
def _anew(place: Place, state: tuple[int, ...], segment_s: Fraction) -> bytes | NotAVideo:  # noqa: ARG001 (another state is another video)
    """Return a video encoded anew; its segments are asked for one after the other."""
    return reencode(place, seconds=segment_s)


def _state_of(place: Place) -> tuple[int, ...]:
    """Return what changes when a file is written again."""
    if isinstance(place, bytes):
        return ()
    found = place.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
