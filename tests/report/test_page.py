"""The page: it holds what the run holds, escapes what it quotes, loads nothing, and says "not yet" instead of
failing.
"""

import base64
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from report.fake_run import FakeRun, write_fake_run
from sparring.data.errors import RunError
from sparring.data.records import Target
from sparring.report.numbers import percent, points
from sparring.report.page import write_report
from sparring.report.run import read_run

HOSTILE = '<script>alert("q")</script>"><img src=x onerror=alert(1)> & {{ 7 * 7 }}'
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Elements with their attributes and text; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]

    def attributes(self, *names: str) -> list[str]:
        return [
            value for _, attrs in self.elements for name, value in attrs.items() if name in names and value
        ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    write_fake_run(out, held_out=32, rounds=2, steps=12)
    return out


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    path = write_report(finished)
    assert path == finished.resolve() / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_figures_of_the_summary_are_on_the_page(finished: Path, page: Page) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for gain in summary["gains"].values():
        assert f"{points(gain['value'])}points" in page.text
        assert f"{points(gain['ci95'][0])} to {points(gain['ci95'][1])}, n = {gain['n']}" in page.text
    titles = page.attributes("title")
    for row, defender in zip(summary["payoff"]["accuracy"], ("Base", "Round 1", "Round 2"), strict=True):
        for cell, opponent in zip(
            row, ("Clean", "Re-encoded", "Bootstrap", "Round 1", "Round 2"), strict=True
        ):
            low, high = cell["ci95"]
            stated = (
                f"{defender} Defender, {opponent}: accuracy {percent(cell['value'])}, 95 % interval "
                f"{100 * low:.1f} to {100 * high:.1f}, n = 32"
            )
            assert stated in titles
    assert "not yet" not in page.text.lower()
    assert "no edit of the frozen Attacker was accepted" in page.text
    assert "DiffusionNFT" in page.text
    assert "11 min 24 s" in page.text


def test_what_no_reward_pays_for_stands_beside_the_reward(page: Page, tmp_path: Path) -> None:
    assert "Beside the reward" in page.text
    for shown in ("0.250 → 0.610", "98.0\u202f% → 71.0\u202f%", "0.93 → –", "0.93 → 0.90"):
        assert shown in page.text
    assert len(page.with_class("warned")) == 1
    assert page.text.count("the reward rose while") == 3  # at the top, in the round's card, in the table
    write_fake_run(tmp_path, held_out=4, rounds=2, until_round=1, steps=2)
    assert "Beside the reward" not in Page(write_report(tmp_path).read_text(encoding="utf-8")).text


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert all(value.startswith("data:image/") for value in page.attributes("src"))
    assert page.attributes("href", "action", "srcset", "xlink:href") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    (policy,) = [
        attrs["content"]
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_style_sheet_loads_nothing(finished: Path, page: Page) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", (finished / "report.html").read_text(), re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_gallery_shows_before_after_and_difference(finished: Path, page: Page) -> None:
    exhibits = page.with_class("exhibit")
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    assert len(pictures) == 4 * len(exhibits) > 0
    assert all(attrs["class"] == "small" and attrs["width"] == attrs["height"] == "72" for attrs in pictures)
    stored = {
        hashlib.sha256(Image.open(path).convert("RGB").tobytes()).digest() for path in finished.rglob("*.png")
    }
    for four in zip(pictures[::4], pictures[1::4], pictures[2::4], pictures[3::4], strict=True):
        shown = [
            Image.open(io.BytesIO(base64.b64decode(str(p["src"]).split(",")[1]))).convert("RGB") for p in four
        ]
        assert [hashlib.sha256(image.tobytes()).digest() in stored for image in shown] == [
            True,
            True,
            False,
            False,
        ]
    kinds = {name for attrs in exhibits for name in str(attrs["class"]).split()}
    assert {"fooled", "held", "rejected"} <= kinds
    assert "fooled, then won back" in page.text
    assert "Round 2 Defender" in page.text


def test_every_card_has_its_id_and_what_fooled_comes_first(finished: Path, page: Page) -> None:
    kinds = [str(attrs["class"]).split()[2] for attrs in page.with_class("exhibit")]
    assert kinds == sorted(kinds, key=["fooled", "held", "rejected"].index)
    assert len(page.with_class("id")) == len(kinds)
    exhibits = {exhibit.question_id for exhibit in read_run(finished).exhibits}
    named = re.findall(r'<span class="id">([^<]+)</span>', (finished / "report.html").read_text())
    assert set(named) <= exhibits
    assert len(named) == len(kinds)


def test_pictures_and_charts_say_what_they_show(page: Page) -> None:
    alts = [str(attrs["alt"]) for tag, attrs in page.elements if tag == "img"]
    assert all(text.startswith("Clean picture of ") for text in alts[::4])
    assert all(
        re.match(r"The same, edited by the .* Attacker: .*(changed|of light|darker|lighter)", text)
        for text in alts[1::4]
    )
    charts = [
        str(attrs["aria-label"]) for tag, attrs in page.elements if tag == "svg" and "aria-label" in attrs
    ]
    assert len(charts) > 10
    assert all(re.search(r"\d", text) for text in charts)
    (progress,) = [text for text in charts if text.startswith("Accuracy of every Defender")]
    assert progress.count(" %") == 3 * 3


SUCCESS = {"rising": [0.2, 0.45], "falling": [0.45, 0.2], "level": [0.3, 0.31]}


@pytest.mark.parametrize("course", SUCCESS)
def test_the_legend_says_what_the_figures_say(finished: Path, tmp_path: Path, course: str) -> None:
    """Attack success on the base Defender, from the bootstrap Attacker to the second one."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    summary = json.loads((out / "summary.json").read_text())
    payoff, (first, last) = summary["payoff"], SUCCESS[course]

    def rate(value: float) -> dict[str, object]:
        return {"value": value, "n": 300, "ci95": [value - 0.05, value + 0.05]}

    payoff["valid_asr"][0] = [None, None, rate(first), rate((first + last) / 2), rate(last)]
    payoff["valid_asr"][2][4] = rate(0.05)
    for row in payoff["accuracy"]:
        row[0], row[4] = rate(0.9), rate(0.7)
    (out / "summary.json").write_text(json.dumps(summary))
    text = " ".join(Page(write_report(out).read_text(encoding="utf-8")).text.replace("\u202f", " ").split())
    verb = {"rising": "rose", "falling": "fell", "level": "went (its intervals overlap)"}[course]
    claim = f"Attack success {verb} from {100 * first:.1f} % to {100 * last:.1f} % against the Base Defender"
    assert claim in text
    assert (
        "Weaker than the Attacker before: Round 1 (32.5 %) after Bootstrap (45.0 %), Round 2" in text
    ) == (course == "falling")
    assert "accuracy went (its intervals overlap) from 70.0 % to 70.0 % under the Round 2 Attacker" in text
    for phrase in (
        "Attackers get better",
        "Defenders learn",
        "opponents that get harder",
        "robustness gained",
    ):
        assert phrase not in text


def test_a_count_that_no_judge_looked_at_is_not_called_kept(
    finished: Path, page: Page, tmp_path: Path
) -> None:
    assert "object count not judged" in page.text
    assert "object count kept" not in page.text
    judged = tmp_path / "judged"
    shutil.copytree(finished, judged)
    recipe = yaml.safe_load((judged / "recipe.yaml").read_text())
    (judged / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"judge": {"model": "some/judge"}}))
    text = write_report(judged).read_text()
    assert "object count kept" in text
    assert "object count not judged" not in text


def test_every_filter_hides_the_others(finished: Path, page: Page) -> None:
    text = (finished / "report.html").read_text()
    ids = {str(attrs["id"]) for tag, attrs in page.elements if tag == "input"}
    assert ids >= {"o-all", "o-fooled", "o-held", "o-rejected", "a-all", "a-0", "a-1", "a-2"}
    for name in ids - {"o-all", "a-all"}:
        kind = name.removeprefix("o-") if name.startswith("o-") else name.replace("a-", "by-")
        assert f"#gallery:has(#{name}:checked) .exhibit:not(.{kind})" in text
        assert page.with_class(kind)


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    def alter(run: FakeRun) -> None:
        targets = (Target('"><script>', (1, 2, 30, 40)),)
        run.questions = [
            replace(
                q,
                question=HOSTILE,
                options=(HOSTILE, *q.options[1:]),
                category="<b>bold</b>",
                targets=targets,
            )
            for q in run.questions
        ]
        run.suffix = "</blockquote><script>alert('reply')</script>"

    write_fake_run(tmp_path / "run", held_out=12, rounds=1, steps=2, alter=alter)
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert "<b>bold" not in text
    assert "script" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert HOSTILE in page.text
    assert "</blockquote><script>alert('reply')</script>" in page.text


@pytest.mark.parametrize("until", [0, 1, 2])
def test_an_unfinished_run_says_not_yet(tmp_path: Path, until: int) -> None:
    write_fake_run(tmp_path / "run", held_out=16, rounds=2, until_round=until, steps=6)
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "This run is not finished." in page.text
    assert "not yet" in page.text
    assert page.with_class("exhibit")
    unplayed = len(page.with_class("unplayed"))
    assert unplayed == 3 * 5 - {0: 3, 1: 3, 2: 8}[until]
    assert ("stopped in, round" in page.text) == (until > 0)


def test_the_algorithms_of_an_unfinished_run_are_its_recipes(tmp_path: Path) -> None:
    write_fake_run(tmp_path, held_out=16, rounds=2, until_round=1, steps=6)
    file = tmp_path / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    for spelling in (
        {"type": "diffusion_nft", "beta": 0.1},
        "diffusion_nft",
    ):  # runs of earlier versions hold the name
        recipe["attacker"]["algorithm"] = spelling
        file.write_text(yaml.safe_dump(recipe))
        assert "DiffusionNFT" in Page(write_report(tmp_path).read_text(encoding="utf-8")).text


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, held_out=4)
    run.ledger.close()
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "no held-out game has been played" in text
    (tmp_path / "ledger.sqlite").unlink()
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "no held-out game has been played" in text
    assert "name: arena" in text


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", "{", "no JSON"),
        ("summary.json", '{"schema": 7}', "schema 1"),
        ("recipe.yaml", "[", "no YAML"),
        ("recipe.yaml", "- a", "no recipe"),
        ("ledger.sqlite", "not a database, but long enough to look like a file of one", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=words):
        write_report(tmp_path)


def test_a_picture_that_is_gone_is_said(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for path in (out / "pictures" / "evaluation" / "round1").rglob("*.png"):
        path.unlink()
    page = Page(write_report(out).read_text(encoding="utf-8"))
    assert re.search(r"\d+ are not shown because a picture's file is gone or damaged", page.text)
    assert page.with_class("exhibit")
    assert "Round 1 Attacker, " not in page.text
    assert "Round 2 Attacker, " in page.text


def test_the_same_run_gives_the_same_bytes_and_stays_as_it_was(finished: Path) -> None:
    before = (finished / "ledger.sqlite").read_bytes()
    first = write_report(finished).read_bytes()
    assert write_report(finished).read_bytes() == first
    assert (finished / "ledger.sqlite").read_bytes() == before
    assert len(first) < 5_000_000
    assert not list(finished.glob("*.partial"))


def test_metrics_that_are_not_finite_leave_gaps(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, held_out=4, rounds=1, steps=4)
    for step, value in enumerate((0.5, float("nan"), float("inf"), 0.75)):
        run.ledger.record_update(
            "round1/attacker",
            step,
            {"reward_mean": value, "accepted": 0.5, "note": "text", "loss": float("nan")},
        )
    run.ledger.close()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    Page(text)
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", text, re.IGNORECASE)
    assert "Round 1: Reward" in text
