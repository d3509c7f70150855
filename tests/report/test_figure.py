"""The picture for a README."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from report.fake_run import FakeRun, write_fake_run
from sparring.data.errors import RunError
from sparring.data.records import Target
from sparring.report.charts import heat_map
from sparring.report.figure import TILE, pick, tile, wrap, write_picture
from sparring.report.numbers import ON_PAPER, color_of
from sparring.report.run import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    write_fake_run(out, held_out=32, rounds=2, steps=2)
    return out


def test_the_picture_shows_the_matrix_in_its_colours(run: Path, tmp_path: Path) -> None:
    write_picture(run, tmp_path / "a.png")
    write_picture(run, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = Image.open(tmp_path / "a.png")
    assert picture.width > 6 * TILE
    assert picture.height > 3 * TILE
    colors = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in picture.getcolors(2**24)}  # type: ignore[misc, union-attr]
    payoff = read_run(run).payoff
    table = heat_map(payoff["defenders"], payoff["opponents"], payoff["accuracy"], "accuracy")
    for row in table.cells:
        for cell in row:
            assert color_of((cell.value - table.low) / (table.high - table.low), ON_PAPER) in colors  # type: ignore[operator]


def test_edits_that_were_won_back_come_first(run: Path) -> None:
    examples = pick(read_run(run), 6)
    assert len({e.exhibit.question_id for e in examples}) == 6
    assert all(
        e.exhibit.accepted and e.exhibit.label_valid is not False and e.exhibit.clean_right for e in examples
    )
    ranks = [0 if e.exhibit.won_back else 1 if e.exhibit.outcome == "fooled" else 2 for e in examples]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0


def test_an_unfinished_run_has_a_picture_as_soon_as_there_is_something_to_show(tmp_path: Path) -> None:
    write_fake_run(tmp_path / "run", held_out=12, rounds=2, until_round=0, steps=2)
    write_picture(tmp_path / "run", tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").format == "PNG"
    empty = FakeRun(tmp_path / "empty", held_out=2)
    empty.ledger.close()
    with pytest.raises(RunError, match="no accepted held-out edit"):
        write_picture(tmp_path / "empty", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_tile_is_square_and_its_box_lies_on_the_target() -> None:
    image = Image.new("RGB", (64, 32), "#336699")
    shown = np.asarray(tile(image, (Target("cup", (16, 8, 32, 24)),)))
    assert shown.shape == (TILE, TILE, 3)
    white = np.argwhere((shown == 255).all(-1))
    top = (TILE - TILE // 2) // 2
    assert white.min(0).tolist() == [top + 24, 48]
    assert white.max(0).tolist() == [top + 71, 95]


def test_text_is_wrapped_and_clipped() -> None:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = wrap(
        "Where is the television relative to the backpack and the umbrella and the chair?", font, 150, 3
    )
    assert len(lines) == 3
    assert all(font.getlength(line) <= 150 for line in lines)
    assert lines[-1].endswith("...")
    assert wrap("short", font, 150, 3) == ["short"]
    assert font.getlength(wrap("x" * 200, font, 150, 1)[0]) <= 150
