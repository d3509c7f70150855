"""The report of an evaluation: one page that loads nothing, with every item and filters that fit."""

import re
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from endpoint_server import dice, question, serving
from small_eval import write_custom
from sparring.cli import app

FORBIDDEN = re.compile(r"<script|https?://(?!www\.w3\.org)|src=\"(?!data:)", re.IGNORECASE)


def sometimes_silent(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """A letter, but for two questions."""
    return {"text": "who knows"} if "7?" in question(body) else dice(image, body)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_from_the_command_line_to_the_page(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 20)
    (tmp_path / "q" / "4.png").write_bytes(b"broken")
    lines = path.read_text().replace("Colour 5?", "<script>Colour 5?")
    path.write_text(lines)
    common = ["--suite", "custom", "--data", str(path), "--set", "device=cpu", "--max-new-tokens", "16"]
    with serving(sometimes_silent) as server:
        for name, model in (("a", "one"), ("b", "two")):
            said = invoke(
                "eval",
                *common,
                "--defender",
                f"{server.url}#{model}",
                "--out",
                str(tmp_path / name),
                "--seed",
                "01"[name == "b"],
            )
    assert "vlmevalkit" in said
    assert "always first" in said
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("<article") == 20
    assert not FORBIDDEN.search(page.replace(server.url, ""))
    assert {f"k-{kind}" for kind in ("all", "right", "wrong", "unparsed", "error")} == set(
        re.findall(r'id="(k-[a-z-]+)"', page)
    )
    kinds = re.findall(r'<article class="card exhibit ([a-z-]+)', page)
    assert kinds == sorted(kinds, key=["wrong", "right"].index), "what went wrong comes first"
    assert len(set(re.findall(r'<span class="id">([^<]+)</span>', page))) == 20
    assert len(re.findall(r'aria-label="Picture of [^"]+, \d+ by \d+ pixels"', page)) == 19
    assert "harmed" not in page.replace("object-fit", "")
    said = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c.json"))
    assert "all items" in said
    assert "differently: seed" in said
    page = (tmp_path / "b" / "report.html").read_text()
    assert {"k-harmed", "k-rescued"} <= set(re.findall(r'id="(k-[a-z-]+)"', page))
    assert page.count(" harmed") >= 1
    assert "McNemar" in page
    said = invoke("rescore", str(tmp_path / "a"), "--profile", "vlmevalkit")
    assert "vlmevalkit: accuracy" in said
    assert "profile vlmevalkit" in (tmp_path / "a" / "report.html").read_text()
    assert "Report" in invoke("report", str(tmp_path / "a"))


def test_what_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 2)
    for arguments, message in (
        (["--suite", "vstr", "--data", str(path), "--defender", "x"], "no such suite"),
        (
            ["--suite", "custom", "--data", str(path), "--defender", "x", "--profile", "mine"],
            "profile: must be",
        ),
        (["--suite", "custom", "--data", str(path)], "--defender is missing"),
        (
            ["--suite", "custom", "--data", str(path), "--defender", "x", "--profile", "lmms-eval"],
            "lmms-eval has no rule for custom",
        ),
        (["--suite", "mmstar", "--data", str(path), "--defender", "x"], '"l2_category" or "l2-category"'),
    ):
        result = CliRunner().invoke(app, ["eval", *arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
