"""The viewer in a real Chromium: opened, filtered, walked through by keys, while a game goes on, is killed and
goes on again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")
import chromium
from report.fake_run import FakeRun
from report.viewer.looking import HOSTILE, write_game

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.chromium() is None,
        reason="no Chromium here: apt-get install chromium chromium-driver, or name both in CHROMIUM and CHROMEDRIVER",
    ),
]
if chromium.chromium() is not None:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

GAME = (
    "threads=1", "data.generator.arguments.train=64", "data.generator.arguments.held_out=8", "data.held_out=8",
    "selfplay.rounds=1", "selfplay.require_skill=false", "bootstrap.questions=8", "bootstrap.steps=2",
    "selfplay.curriculum.questions=16", "attacker.steps=12", "attacker.questions_per_step=2", "defender.steps=2",
    "evaluation.rivals={}",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    write_game(out / "one")
    write_game(out / "two", until_round=1)
    return out


@pytest.fixture(scope="module")
def base(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium.viewer(root, tmp_path_factory.mktemp("cache")) as (address, _):
        yield address


@pytest.fixture(scope="module")
def shared_window() -> Iterator[webdriver.Chrome]:
    with chromium.browser() as driver:
        yield driver


@pytest.fixture
def window(shared_window: webdriver.Chrome) -> webdriver.Chrome:
    """The window with no page: what the page before asked of a viewer that is gone is no complaint of this test."""
    shared_window.get("about:blank")
    chromium.errors(shared_window)
    chromium.foreign_requests(shared_window)
    return shared_window


def press(driver: webdriver.Chrome, *keys: str) -> None:
    """Press keys where the focus is."""
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def shown(driver: webdriver.Chrome) -> int:
    """How many pictures the page says that there are."""
    return int(driver.find_element(By.CSS_SELECTOR, ".count b").text)


def test_open_filter_and_walk_through_by_keys(base: str, window: webdriver.Chrome) -> None:
    window.get(base)
    window.find_element(By.LINK_TEXT, "one").click()
    window.find_element(By.LINK_TEXT, "The fight").click()
    everything = shown(window)
    Select(window.find_element(By.NAME, "phase")).select_by_value("attacker")
    chromium.wait(window, "document.querySelector('.count b').textContent === '16'")
    assert everything > 16
    assert "phase=attacker" in window.current_url
    assert window.switch_to.active_element.get_attribute("name") == "phase"  # the focus stays
    Select(window.find_element(By.NAME, "sort")).select_by_value("oldest")
    chromium.wait(window, "location.search.includes('sort=oldest')")
    window.execute_script("document.activeElement.blur()")
    press(window, "j", "j", Keys.ARROW_RIGHT)
    tiles = window.find_elements(By.CSS_SELECTOR, ".tile")
    assert window.switch_to.active_element == tiles[2]
    third = tiles[2].get_attribute("href")
    press(window, "k", "j", Keys.ENTER)
    chromium.wait(window, "document.querySelector('.told h1')")
    assert window.current_url == third
    assert "3 of 16" in window.find_element(By.CSS_SELECTOR, ".pages").text
    press(window, "j")
    chromium.wait(window, "document.querySelector('.pages').innerText.includes('4 of 16')")
    press(window, Keys.ARROW_LEFT)
    chromium.wait(window, "document.querySelector('.pages').innerText.includes('3 of 16')")
    assert window.current_url == third  # every view has an address, and it is the same one
    window.back()
    chromium.wait(window, "document.querySelector('.pages').innerText.includes('4 of 16')")
    press(window, "u")
    chromium.wait(window, "document.querySelectorAll('.tile').length === 16")
    assert "phase=attacker" in window.current_url
    assert chromium.errors(window) == []


def test_before_and_after_by_slider_space_and_modes(base: str, window: webdriver.Chrome) -> None:
    window.get(f"{base}fight?run=one&phase=attacker&sort=oldest")
    window.find_element(By.CSS_SELECTOR, ".tile").click()
    chromium.wait(window, "document.querySelector('.canvas')")

    def cut() -> str:
        return str(
            window.execute_script("return document.querySelector('.canvas').style.getPropertyValue('--cut')")
        )

    assert cut() == "50%"
    press(window, Keys.SPACE)
    assert cut() == "100%"
    press(window, Keys.SPACE)
    assert cut() == "0%"
    slider = window.find_element(By.CSS_SELECTOR, ".slider input")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert cut() == "3%"  # and no other picture was gone to
    assert "1 of 16" in window.find_element(By.CSS_SELECTOR, ".pages").text
    window.execute_script("document.activeElement.blur()")
    for key, mode in (("2", "pair"), ("3", "gap"), ("4", "unlit"), ("1", "slide")):
        press(window, key)
        assert window.find_element(By.CSS_SELECTOR, ".canvas").get_attribute("data-shown") == mode
        visible = "[...document.querySelectorAll('.canvas img')].filter(e => e.getClientRects().length)"
        chromium.wait(window, f"{visible}.length && {visible}.every(e => e.complete && e.naturalWidth)")
    press(window, "3", "j")  # the chosen way to look stays from picture to picture
    chromium.wait(window, "document.querySelector('.pages').innerText.includes('2 of 16')")
    assert window.find_element(By.CSS_SELECTOR, ".canvas").get_attribute("data-shown") == "gap"
    press(window, "b")
    assert "no-boxes" in str(window.find_element(By.CSS_SELECTOR, ".canvas").get_attribute("class"))
    small = "getComputedStyle(document.querySelector('.canvas .before')).imageRendering"
    assert window.execute_script(f"return {small}") == "pixelated"
    press(window, "1", "b")


def test_a_cell_of_the_matrix_opens_its_pictures(base: str, window: webdriver.Chrome) -> None:
    window.get(f"{base}outcome?run=one")
    cell = window.find_element(By.CSS_SELECTOR, ".heat tbody tr:nth-child(1) td:nth-child(6) a")
    said = cell.get_attribute("aria-label")
    cell.click()
    chromium.wait(window, "document.querySelector('.tiles')")
    assert said is not None
    assert said.startswith("Base Defender, Round 2: accuracy")
    assert "of Round 2" in window.find_element(By.CSS_SELECTOR, ".count").text


def test_runs_are_compared_as_chosen(base: str, window: webdriver.Chrome) -> None:
    window.get(base)
    for box in window.find_elements(By.CSS_SELECTOR, "input[name=run]"):
        box.send_keys(Keys.SPACE)
    window.find_element(By.CSS_SELECTOR, "form button").click()
    chromium.wait(window, "document.querySelectorAll('.legend-line span').length >= 2")
    assert window.find_elements(By.CSS_SELECTOR, ".differences tbody tr")


def test_two_tabs_look_at_two_runs(base: str, window: webdriver.Chrome) -> None:
    window.get(f"{base}now?run=one")
    first = window.current_window_handle
    window.switch_to.new_window("tab")
    window.get(f"{base}fight?run=two")
    assert window.find_element(By.CSS_SELECTOR, ".bar .id").text == "two"
    second = window.current_window_handle
    window.switch_to.window(first)
    assert window.find_element(By.CSS_SELECTOR, ".bar .id").text == "one"
    window.switch_to.window(second)
    window.close()
    window.switch_to.window(first)


ADDRESSES = (
    "",
    "now?run=one",
    "now?run=two",
    "fight?run=one&phase=attacker",
    "outcome?run=one",
    "compare?run=one&run=two",
)


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(base: str, window: webdriver.Chrome) -> None:
    window.get(f"{base}fight?run=one&phase=attacker")
    edit = window.find_element(By.CSS_SELECTOR, ".tile").get_attribute("href")
    for address in (*(base + each for each in ADDRESSES), str(edit)):
        window.get(address)
        assert chromium.unreachable(window) == [], address
        assert chromium.nameless(window) == [], address
        assert chromium.foreign_requests(window) == [], address
        assert chromium.errors(window) == [], address


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_and_nothing_is_wider_than_the_window(base: str, dark: bool) -> None:
    with chromium.browser(dark=dark) as driver:
        driver.get(f"{base}fight?run=one&phase=attacker")
        edit = driver.find_element(By.CSS_SELECTOR, ".tile").get_attribute("href")
        for address in (*(base + each for each in ADDRESSES), str(edit), f"{base}nothing"):
            driver.get(address)
            for width in (1600, 1000, 700, 400):
                chromium.resize(driver, width, 900)
                assert chromium.too_wide(driver) <= 0, (address, width)
            assert chromium.faint(driver) == {}, address


def test_hostile_ids_do_nothing(tmp_path: Path, window: webdriver.Chrome) -> None:
    def alter(run: FakeRun) -> None:
        scenes = run.scenes
        run.questions = [
            replace(q, id=f"{HOSTILE} {n}", question=HOSTILE) for n, q in enumerate(run.questions)
        ]
        run.scenes = dict(zip([q.id for q in run.questions], scenes.values(), strict=True))
        run.suffix = HOSTILE

    write_game(tmp_path / "runs/<i>x", until_round=1, alter=alter)
    with chromium.viewer(tmp_path / "runs", tmp_path / "cache") as (address, _):
        window.get(address)
        window.find_element(By.LINK_TEXT, "<i>x").click()
        window.find_element(By.LINK_TEXT, "The fight").click()
        window.find_element(By.CSS_SELECTOR, ".tile").click()
        chromium.wait(window, "document.querySelector('.told h1')")
        assert "<script>alert('q')</script>" in window.find_element(By.CSS_SELECTOR, ".told h1").text
        for key, place in (("j", "2 of"), ("k", "1 of")):
            press(window, key)
            chromium.wait(window, f"document.querySelector('.pages').innerText.includes('{place}')")
        chromium.wait(window, "[...document.images].every(e => !e.src || e.complete && e.naturalWidth)")
        assert window.execute_script("return document.querySelectorAll('script').length") == 1
        assert chromium.errors(window) == []  # an alert would have raised by now


# -- a game that goes on


def begin(out: Path, *, resume: bool = False) -> subprocess.Popen[str]:
    changes = [word for change in GAME for word in ("--set", change)]
    arguments = ["--resume", str(out)] if resume else ["arena", "--out", str(out), *changes]
    command = [sys.executable, "-c", "from sparring.cli import app; app()", "run", *arguments]
    log = (out.parent / "log").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_game_is_seen_to_go_on_be_killed_and_go_on_again(tmp_path: Path, window: webdriver.Chrome) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    out = runs / "game"
    with chromium.viewer(runs, tmp_path / "cache") as (address, _):
        window.get(address)
        assert "Nothing here yet" in window.page_source
        process = begin(out)
        try:
            chromium.wait(window, "document.querySelector('#runs a.id')", 120)  # no page is loaded anew
            # Elements are put in anew while the game goes on, so they are looked up where they are used.
            window.execute_script("document.querySelector('#runs a.id').click()")
            chromium.wait(window, "document.querySelector('#state.under-way')", 60)
            # The first picture is on the page soon after it is made.
            until = time.monotonic() + 240
            while not any("data" not in path.relative_to(out).parts for path in out.glob("**/*.png")):
                assert time.monotonic() < until, (runs / "log").read_text()
                time.sleep(0.2)
            chromium.wait(window, "document.querySelector('.tile img')", 60)
            updates = "Number((document.querySelector('.meter-row span')?.textContent.match(/^(\\d+) of 12 updates/) ?? [])[1] ?? -1)"
            seen = int(chromium.wait(window, f"({updates}) > 0 ? {updates} : 0", 240))
            assert seen < 12, "the game was over before it could be killed"
        finally:
            end(process)
        chromium.wait(window, "document.querySelector('#state.stopped')", 30)
        assert chromium.wait(window, "document.querySelector('h1').textContent") == "Round 1: Attacker"
        process = begin(out, resume=True)
        try:
            chromium.wait(window, "document.querySelector('#state.under-way')", 120)
            chromium.wait(window, "document.querySelector('#state.finished')", 420)
            chromium.wait(window, "document.querySelector('h1').textContent.includes('over')", 30)
            assert process.wait(60) == 0, (runs / "log").read_text()
        finally:
            if process.poll() is None:
                end(process)
        assert chromium.errors(window) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_viewer_that_is_gone_or_hangs_is_found_again(
    root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    lost = "document.body.classList.contains('lost')"
    # A window of its own: beside other tabs it may be hidden, and a hidden page asks for nothing.
    with chromium.browser() as window, chromium.viewer(root, tmp_path / "cache") as (address, process):
        window.get(f"{address}now?run=two")
        chromium.wait(window, "!document.hidden")
        process.send_signal(how)
        chromium.wait(window, lost, 60)
        if how is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            chromium.wait(window, f"!{lost}", 60)
            return
        process.wait()
        port = address.rstrip("/").rpartition(":")[2]
        with chromium.viewer(root, tmp_path / "again", port=int(port)):
            chromium.wait(window, f"!{lost}", 60)


def test_a_run_that_is_gone_or_cannot_be_read_is_not_shown_as_it_was(root: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("gone", "damaged"):
        shutil.copytree(root / "two", runs / name)
    with chromium.browser() as window, chromium.viewer(runs, tmp_path / "cache") as (address, _):
        window.get(f"{address}now?run=gone")
        chromium.wait(window, "!document.hidden")
        (runs / "gone").rename(tmp_path / "elsewhere")
        chromium.wait(window, "document.body.classList.contains('lost')", 60)
        (tmp_path / "elsewhere").rename(runs / "gone")
        chromium.wait(window, "!document.body.classList.contains('lost')", 60)
        window.get(f"{address}now?run=damaged")
        (runs / "damaged/recipe.yaml").write_text("selfplay: [")
        chromium.wait(window, "document.body.classList.contains('lost')", 60)
