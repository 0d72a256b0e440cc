"""Videos of a drawn drive (drive_scene.py): seed and clip say everything about a file. Pure, but for a cache."""

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import av
import numpy as np

from fleetbatch.errors import RejectedError
from fleetbatch.sharding.drive_scene import HEIGHT, RATE, WIDTH, draw

DIALS: Final = {"clips": (1, 1_000_000), "frames": (1, 90_000), "seed": (0, 2**63 - 1), "broken": (0, 1_000_000)}
"""Smallest and largest value of each dial."""
SPOILED: Final = ("empty", "text", "short", "sound", "hevc")
"""How a clip is spoiled on purpose: without content, not a video, cut off, without pictures, of another codec."""
FRAME_BYTES: Final = 4096
"""About the size of a frame at most."""
_CACHED_CLIPS: Final = 64
"""A clip is asked for when it is listed and again for each of its segments."""
_SETTINGS: Final = {"g": str(RATE), "bf": "2", "crf": "26", "preset": "ultrafast", "sc_threshold": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Driving:
    """Dials of the generator."""

    clips: int = 24
    frames: int = 100
    seed: int = 1
    broken: int = 0
    """How many of `clips` are spoiled, spread evenly."""


def driving(dials: Mapping[str, str]) -> Driving:
    """Return the dials that an order names; raise RejectedError with all that is wrong with them."""
    problems, read = [], {}
    for name, text in dials.items():
        if name not in DIALS:
            problems.append(f"drive has no dial {name!r}; it has {', '.join(DIALS)}")
        elif not text.isascii() or not text.isdigit() or not DIALS[name][0] <= int(text) <= DIALS[name][1]:
            problems.append(f"{name}={text!r}: expected a whole number from {DIALS[name][0]} to {DIALS[name][1]}")
        else:
            read[name] = int(text)
    if problems:
        summary = "the generator drive cannot draw this"
        raise RejectedError(summary, problems)
    return Driving(**read)


def uris(dials: Driving) -> Iterator[str]:
    """Yield `drive://seed/clip?frames=100` for every clip, in order; a spoiled one says how."""
    for clip in range(dials.clips):
        number = clip * dials.broken // dials.clips
        spoiled = number != (clip + 1) * dials.broken // dials.clips
        how = f"&spoiled={SPOILED[number % len(SPOILED)]}" if spoiled else ""
        yield f"drive://{dials.seed}/{clip}?frames={dials.frames}{how}"


@functools.lru_cache(maxsize=_CACHED_CLIPS)
def clip_file(uri: str) -> bytes:
    """Return the file that a uri of `uris` names, spoiled if it says so."""
    parts = urlsplit(uri)
    told = dict(parse_qsl(parts.query))
    seed, clip, frames = int(parts.netloc), int(parts.path.removeprefix("/")), int(told["frames"])
    match told.get("spoiled"):
        case "empty":
            return b""
        case "text":
            return b"This is not a video.\n"
        case "short":
            whole = encode(seed, clip, frames)
            return whole[: len(whole) // 2]
        case "sound":
            return _sound()
        case "hevc":
            return encode(seed, clip, min(frames, RATE), codec="libx265", settings={"x265-params": "log-level=none"})
        case _:
            return encode(seed, clip, frames)


def encode(
    seed: int,
    clip: int,
    frames: int,
    *,
    codec: Literal["libx264", "libx265"] = "libx264",
    settings: Mapping[str, str] | None = None,
) -> bytes:
    """Return a clip as MP4, an IDR frame every second; one thread, so that it is the same every time."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=RATE, options=dict(settings or _SETTINGS))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(seed, clip, number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _sound() -> bytes:
    """Return a second of silence as MP4."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
