"""Where questions come from: one class a format, all of them read by the same checks (`open_source`)."""

from __future__ import annotations

from pathlib import Path

from sparring.data.errors import DataError
from sparring.forge.sources.annotations import Coco, VStar, VStarRelations
from sparring.forge.sources.base import Source
from sparring.forge.sources.tables import HuggingFace, Jsonl, VlmEvalKit

__all__ = ["FORMATS", "Source", "open_source"]

FORMATS: dict[str, type[Source]] = {
    "jsonl": Jsonl,
    "huggingface": HuggingFace,
    "vlmevalkit": VlmEvalKit,
    "vstar": VStar,
    "vstar-relations": VStarRelations,
    "coco": Coco,
}


def open_source(path: str | Path, kind: str = "auto", images: str | Path | None = None) -> Source:
    """The source at that path; `auto` tells its kind by what lies there. Raises DataError where there is nothing, or nothing that is known."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Name the source with --data.")
    if images is not None and not Path(images).is_dir():
        raise DataError(f"{images}: no such folder of pictures.")
    found = FORMATS[_kind(path) if kind == "auto" else kind](path, Path(images) if images is not None else None)
    if path.is_dir() != isinstance(found, (HuggingFace, VStar)):
        raise DataError(f"{path}: a source of this format is a {'file' if path.is_dir() else 'folder'}.")
    return found


def _kind(path: Path) -> str:
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")) or any(
            path.rglob("*.parquet")
        ):
            return "huggingface"
        if any(path.rglob("*.json")):
            return "vstar"
    elif path.suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    elif path.suffix == ".tsv":
        return "vlmevalkit"
    elif path.suffix == ".json":
        with open(path, "rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        return "vstar-relations" if start.startswith(b"[") else "coco"
    raise DataError(f"{path}: its kind cannot be told. Name it with --format: {', '.join(FORMATS)}.")
