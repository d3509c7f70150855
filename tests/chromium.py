"""A real browser for tests: Chromium, driven by selenium, and what can be asked of any page in it.

Debian's packages chromium and chromium-driver will do, or any others that are named by CHROMIUM and
CHROMEDRIVER in the environment. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAST_CONTRAST = 4.5
CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
SHOWN = "e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden' && !e.closest('dialog:not([open])')"

FAINT = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
const over = (top, ground) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * ground[i]).concat(1);
function ground(e) {
  const layers = [];
  for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3]) layers.push(c); if (c[3] === 1) break; }
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  return layers.reverse().reduce((below, top) => over(top, below), dark ? [0, 0, 0, 1] : [255, 255, 255, 1]);
}
const found = {};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
  if (!text || e.closest('.quiet, .skip, option, title, dialog:not([open])') || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), below = ground(e);
  let ink = parse(e instanceof SVGElement ? style.fill : style.color);
  ink = over(ink, below);
  if (e instanceof SVGElement && e.classList.contains('inside')) continue;  // on bars, which tests/report/test_style.py checks
  const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < arguments[0]) found[`${e.tagName}.${e.getAttribute('class') || ''} "${text.slice(0, 30)}"`] = ratio.toFixed(2);
}
return found;
"""


def chromium() -> tuple[str, str] | None:
    """(browser, driver), where both are installed."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def browser(*, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A window of that size in CSS pixels."""
    found = chromium()
    assert found is not None
    options = Options()
    options.binary_location = found[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        driver.set_page_load_timeout(60)
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )
        resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Make the page so wide and high, also narrower than a window may be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def viewer(
    root: Path, cache: Path, *arguments: str, port: int = 0
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`sparring view` of a folder in a process of its own: (its address, the process). Port 0: a free one."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    code = "from sparring.cli import app; app()"
    command = [
        sys.executable,
        "-c",
        code,
        "view",
        str(root),
        "--port",
        str(port),
        "--cache",
        str(cache),
        *arguments,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Viewer: "), line + process.stdout.read()
        yield line.removeprefix("Viewer: ").strip(), process
    finally:
        process.kill()
        process.wait()


def errors(driver: webdriver.Chrome) -> list[str]:
    """What the console has complained of since it was last asked."""
    return [
        entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def foreign_requests(driver: webdriver.Chrome) -> list[str]:
    """Addresses of other hosts that were asked since this was last called."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = urlsplit(message["params"]["request"]["url"])
            if address.scheme not in ("data", "chrome") and address.hostname != "127.0.0.1":
                found.append(address.geturl())
    return found


def unreachable(driver: webdriver.Chrome) -> list[str]:
    """The controls that are shown and that the tabulator key does not come to."""
    wanted = set(
        driver.execute_script(
            f"[...document.querySelectorAll(arguments[0])].forEach((e, i) => {{ if ({SHOWN}) e.dataset.control = i; }});"
            "document.activeElement.blur(); scrollTo(0, 0); window.reached = new Set();"
            "addEventListener('focusin', e => window.reached.add(e.target.dataset.control));"
            "return [...document.querySelectorAll('[data-control]')].map(e => e.dataset.control)",
            CONTROLS,
        )
    )
    # One command for all of them: every other one waits until the page is drawn.
    ActionChains(driver, duration=0).send_keys(Keys.TAB * (len(wanted) + 5)).perform()
    reached = set(driver.execute_script("return [...window.reached]"))
    return [
        driver.execute_script(
            f"return document.querySelector('[data-control=\"{each}\"]').outerHTML.slice(0, 120)"
        )
        for each in sorted(wanted - reached)
    ]


def faint(driver: webdriver.Chrome) -> dict[str, str]:
    """Texts with less contrast to what they stand on than `LEAST_CONTRAST`: element -> ratio."""
    found: dict[str, str] = driver.execute_script(FAINT, LEAST_CONTRAST)
    return found


def nameless(driver: webdriver.Chrome) -> list[str]:
    """Controls and pictures that a screen reader has no name for."""
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ', img, svg[role=img]')].filter(e => "
        + SHOWN
        + " &&"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length || e.hasAttribute('alt')"
        " || e.querySelector('img[alt]:not([alt=\"\"])'))).map(e => e.outerHTML.slice(0, 120))",
        CONTROLS,
    )
    return found


def too_wide(driver: webdriver.Chrome) -> int:
    """Pixels by which the page is wider than its window."""
    return int(driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))


def wait(driver: webdriver.Chrome, condition: str, seconds: float = 30, *arguments: Any) -> Any:
    """The value of a JavaScript expression once it is true."""
    until = time.monotonic() + seconds
    while True:
        with suppress(Exception):
            if value := driver.execute_script(f"return {condition}", *arguments):
                return value
        assert time.monotonic() < until, f"{condition} is not true after {seconds} s"
        time.sleep(0.1)
