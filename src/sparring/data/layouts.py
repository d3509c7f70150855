"""Every layout that questions come in, told by what lies there: one reader each, used by every verb."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparring.data.choices import LISTS
from sparring.data.coco import is_coco, read_coco
from sparring.data.errors import DataError, Fault
from sparring.data.files import PICTURES, files_below, lines_of, read_json
from sparring.data.items import Records
from sparring.data.rows import Layout, read_rows
from sparring.data.suites import HALLUSION, pope_files, read_amber, read_hallusionbench, read_pope, read_vqav2
from sparring.data.tables import SUFFIXES
from sparring.data.text_tables import LFS, LONGEST_LINE, json_object, rows_in, table_kind
from sparring.data.vstar import read_relations, read_vstar, vstar_files

Reader = Callable[[Path, Path | None], Records]


@dataclass(frozen=True, slots=True)
class Format:
    """A layout: what it is in words, its reader, and whether the right option is always the first in its
    files."""

    words: str
    read: Reader
    first_is_right: bool = False


def _table(path: Path, images: Path | None) -> Records:
    return read_rows(path, Layout(), images)


FORMATS: dict[str, Format] = {
    "jsonl": Format("a file of JSON lines or a JSON list", _table),
    "huggingface": Format("Parquet files, or a data set that `datasets` saved", _table),
    "vlmevalkit": Format("a TSV or CSV, such as VLMEvalKit's", _table),
    "vstar": Format("a folder like V*Bench, of pairs of JSON and picture", read_vstar, first_is_right=True),
    "vstar-relations": Format("the spatial-relation file of V*'s training data", read_relations),
    "coco": Format("a COCO detection file", read_coco),
    "pope": Format("POPE's JSON lines", read_pope),
    "hallusionbench": Format("HallusionBench.json", read_hallusionbench),
    "vqav2": Format("VQAv2's questions and annotations", read_vqav2),
    "amber": Format("AMBER's annotations and queries", read_amber),
}
FOLDERS = ("vstar", "pope", "hallusionbench", "vqav2", "amber")
TABLES = {"tsv": "vlmevalkit", "csv": "vlmevalkit", "lines": "jsonl", "list": "jsonl"}


@dataclass(frozen=True, slots=True)
class Found:
    """Data of a known layout. path: what is read, which may be the only table of the folder that was
    named."""

    path: Path
    name: str

    @property
    def format(self) -> Format:
        return FORMATS[self.name]


def find_layout(path: Path, name: str = "auto") -> Found:
    """What lies at a path; name: what it is said to be, "auto" tells it by what is there.

    Raises DataError, saying in one line what it looks like, where there is nothing, nothing that is known, or
    another layout than named.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Name a file or folder of questions.")
    found = _found(path)
    if name == "auto":
        if found is None:
            raise DataError(
                f"{path}: this is {looks_like(path)}. Known are "
                f"{'; '.join(own.words for own in FORMATS.values())}."
            )
        return found
    if path.is_dir() and name in FOLDERS:
        return Found(path, name)
    if found is None or found.name != name:
        raise DataError(
            f"{path}: this is {looks_like(path)}, not {FORMATS[name].words}. Leave --format out, or name "
            f"the other file."
        )
    return found


def _found(path: Path) -> Found | None:
    kind = table_kind(path)
    if path.is_dir():
        if kind is not None:
            return Found(path, "huggingface")
        return _folder(path)
    if kind in ("parquet", "arrow", "saved"):
        return Found(path, "huggingface")
    if kind in ("tsv", "csv"):
        return Found(path, TABLES[kind])
    if kind == "list":
        return _json(path)
    if kind == "lines":
        return Found(path, "pope" if _is_pope(path) else "jsonl")
    return None


def _folder(path: Path) -> Found | None:
    if pope_files(path):
        return Found(path, "pope")
    if files_below(path, "HallusionBench.json"):
        return Found(path, "hallusionbench")
    if files_below(path, "**/query_discriminative.json", "**/query_all.json") and files_below(
        path, "**/annotations.json"
    ):
        return Found(path, "amber")
    if files_below(path, "*uestions*.json") and files_below(path, "*nnotations*.json"):
        return Found(path, "vqav2")
    tables = [file for suffix in SUFFIXES if suffix != ".json" for file in files_below(path, f"*{suffix}")]
    if len(tables) == 1 and not files_below(path, "*/*.json"):
        return _found(tables[0])
    return Found(path, "vstar") if vstar_files(path) else None


def _json(path: Path) -> Found | None:
    whole = read_json(path)
    if is_coco(whole):
        return Found(path, "coco")
    first = next(iter(rows_in(whole) or ()), None)
    keys = set(first) if isinstance(first, dict) else set()
    if {"conversations", "target_instances"} <= keys:
        return Found(path, "vstar-relations")
    if set(HALLUSION) <= keys:
        return Found(path, "hallusionbench")
    if isinstance(whole, dict) and ("images" in whole or "annotations" in whole):
        return Found(path, "coco")  # damaged; its reader says what is missing
    return Found(path, "jsonl") if rows_in(whole) is not None else None


def _is_pope(path: Path) -> bool:
    """Does a file of JSON lines begin as POPE's do: a text about an image, labelled yes or no, without
    options?
    """
    first = next(lines_of(path, LONGEST_LINE), None)
    try:
        values = json_object(first[2]) if first else {}
    except Fault:
        return False
    label = str(values.get("label", "")).lower()
    return label in ("yes", "no") and {"text", "image"} <= values.keys() and not {*LISTS, "A"} & values.keys()


def data_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder that hold no pictures: of what decides what the
    records are."""
    digest = hashlib.sha256()
    for file in (
        [path]
        if path.is_file()
        else (file for file in files_below(path, "**/*") if file.suffix.lower() in SUFFIXES)
    ):
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def looks_like(path: Path) -> str:
    """What lies at a path, in words for somebody who has named the wrong one."""
    if path.is_dir():
        if found := _found(path):
            return found.format.words
        files = [file for file in sorted(path.iterdir()) if file.is_file()]
        tables = [file.name for file in files if file.suffix.lower() in SUFFIXES]
        if len(tables) > 1:
            return f"a folder of several files, of which one must be named ({', '.join(tables[:5])})"
        if any(file.suffix.lower() in PICTURES for file in files):
            return "a folder of pictures, without questions"
        return f"a folder without questions ({', '.join(file.name for file in files[:3]) or 'no files'})"
    with path.open("rb") as file:
        start = file.read(512)
    if not start.strip():
        return "an empty file"
    for magic, words in (
        (b"\x89PNG", "a picture (PNG)"),
        (b"\xff\xd8", "a picture (JPEG)"),
        (b"PK", "a zip archive or an Excel file; unpack it, or save it as CSV"),
        (b"\x1f\x8b", "a gzip archive; unpack it"),
        (b"%PDF", "a PDF"),
        (LFS, "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
        (b"SQLite", "an SQLite database"),
        (b"<", "a web page or XML"),
    ):
        if start.startswith(magic):
            return words
    try:
        found = _found(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    if found is not None:
        return found.format.words
    if b"\0" in start:
        return "a binary file of no known kind"
    head = start.splitlines()[0][:60].decode("utf-8", "replace")
    return (
        f'a text file that begins "{head}"'
        if not start.lstrip().startswith((b"{", b"["))
        else "a JSON object without a list of records"
    )
