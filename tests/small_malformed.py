"""Records of a JSONL file with something wrong in each, of many kinds: the reason that is to be told for each
kind, and how to make one.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Made = str | bytes
Maker = Callable[[Path, str], Made]


def line(name: str, **changes: Any) -> str:
    """A good record, but for the changes; ... leaves a key out."""
    plain: dict[str, Any] = {
        "id": name,
        "image": "0.png",
        "question": "Light?",
        "options": ["no", "yes"],
        "answer": "A",
        "targets": [{"name": "lever", "box": [4, 4, 20, 24]}],
    }
    return json.dumps({key: value for key, value in (plain | changes).items() if value is not ...})


def with_file(suffix: str, data: Callable[[], bytes]) -> Maker:
    def make(folder: Path, name: str) -> str:
        (folder / f"{name}{suffix}").write_bytes(data())
        return line(name, image=f"{name}{suffix}")

    return make


def with_link(target: Callable[[Path], Path]) -> Maker:
    def make(folder: Path, name: str) -> str:
        os.symlink(target(folder), folder / f"{name}.png")
        return line(name, image=f"{name}.png")

    return make


def whole(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 30).convert("RGB").save(stream, kind)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 30,000 pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def flipped() -> bytes:
    data = bytearray(whole())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def outside(folder: Path) -> Path:
    path = folder.parent / "outside.png"
    path.write_bytes(whole())
    return path


def absolute(folder: Path, name: str) -> str:
    return line(name, image=str(outside(folder)))


def dots(folder: Path, name: str) -> str:
    outside(folder)
    return line(name, image="../outside.png")


def target(**changes: Any) -> list[dict[str, Any]]:
    own = {"name": "lever", "box": [4, 4, 20, 24]} | changes
    return [{key: value for key, value in own.items() if value is not ...}]


def said(**changes: Any) -> Maker:
    return lambda folder, name: line(name, **changes)


KINDS: dict[str, tuple[str, Maker]] = {
    "image bomb": ("image too large", with_file(".png", bomb)),
    "truncated PNG": ("image broken", with_file(".png", lambda: whole()[:-200])),
    "truncated JPEG": ("image broken", with_file(".jpg", lambda: whole("JPEG")[:-200])),
    "flipped byte": ("image broken", with_file(".png", flipped)),
    "text called PNG": ("not an image", with_file(".png", lambda: b"no picture at all\n" * 9)),
    "SVG called PNG": (
        "not an image",
        with_file(".png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    ),
    "empty file": ("not an image", with_file(".png", lambda: b"")),
    "image not there": ("image missing", said(image="nowhere.png")),
    "image is a folder": ("image missing", said(image=".")),
    "image name too long": ("image missing", said(image="x" * 5000 + ".png")),
    "absolute path": ("image outside the folder", absolute),
    "path with dots": ("image outside the folder", dots),
    "link out of the folder": ("image outside the folder", with_link(outside)),
    "link to itself": (
        "image missing",
        lambda folder, name: with_link(lambda f: f / f"{name}.png")(folder, name),
    ),
    "broken JSON": ("broken JSON", lambda folder, name: line(name)[:-9]),
    "JSON that is no object": ("broken JSON", lambda folder, name: "[1, 2]"),
    "deeply nested JSON": ("broken JSON", lambda folder, name: "[" * 100_000),
    "not UTF-8": ("not UTF-8", lambda folder, name: line(name).encode().replace(b"Light", b"L\xff\xfe")),
    "key twice": ("duplicate key", lambda folder, name: line(name)[:-1] + ', "answer": "B"}'),
    "missing key": ("missing key", said(question=...)),
    "unknown key": ("unknown key", said(quetsion="?")),
    "empty question": ("empty text", said(question="  ")),
    "question is a number": ("wrong type", said(question=3)),
    "control characters": ("wrong type", said(question="Light\x00?")),
    "one option": ("number of options", said(options=["yes"])),
    "option twice": ("duplicate option", said(options=["Yes", "yes "])),
    "answer is no option": ("answer is no option", said(answer="C")),
    "several answers": ("several answers", said(answer=["A", "B"])),
    "box outside": ("box outside the image", said(targets=target(box=[4, 4, 90, 24]))),
    "box reversed": ("box is empty", said(targets=target(box=[20, 4, 4, 24]))),
    "box of three": ("wrong type", said(targets=target(box=[20, 4, 4]))),
    "box of fractions": ("wrong type", said(targets=target(box=[4.5, 4, 20, 24]))),
    "box of NaN": (
        "wrong type",
        lambda folder, name: line(name).replace("[4, 4, 20, 24]", "[NaN, 4, 20, 24]"),
    ),
    "target without box": ("missing key", said(targets=target(box=...))),
    "targets is an object": ("wrong type", said(targets={"name": "lever"})),
    "duplicate id": ("duplicate id", lambda folder, name: line("q0")),
    "line too long": ("line too long", said(question="x" * (2**24 + 5))),
}


def spoil(path: Path, every: int) -> dict[int, tuple[str, str]]:
    """Put `every` bad records of each kind among a good file's; line number -> (kind, reason) of the bad
    ones.
    """
    good = path.read_bytes().splitlines()
    kinds = [kind for kind in KINDS for _ in range(1 if kind == "line too long" else every)]
    lines: list[bytes] = [good[0]]  # the record whose id is given again comes first
    bad: dict[int, tuple[str, str]] = {}
    rest = good[1:]
    for number, kind in enumerate(kinds):
        made = KINDS[kind][1](path.parent, f"bad{number}")
        lines.append(made if isinstance(made, bytes) else made.encode())
        bad[len(lines)] = kind, KINDS[kind][0]
        until = len(good) * (number + 1) // len(kinds)
        lines += rest[max(0, len(lines) - len(bad) - 1) : until]
    lines += rest[len(lines) - len(bad) - 1 :]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return bad
