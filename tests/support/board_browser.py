"""A headless browser for the leaderboard's tests, and its pictures in the documentation.

`python tests/support/board_browser.py` makes the pictures of docs/leaderboard.md anew.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from board_records import write_site

from mtvision.report.leaderboard import RunFolders, build_page, write_page
from mtvision.report.record import find_records

IMAGES = Path(__file__).parents[2] / "docs" / "images"
VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 1080}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 1080}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def build_site(root: Path) -> Path:
    """The page of the made-up records, with curves and pictures of two rows."""
    results, runs = write_site(root)
    text = build_page(
        find_records([results]), runs=RunFolders(runs), title="Example leaderboard (made-up records)"
    )
    return write_page(root / "site", text)


def chromium() -> str | None:
    """Path of a Chromium or Chrome that is installed, or None: then playwright looks for its own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def open_browser():
    """A headless Chromium; raises `playwright.sync_api.Error` if there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--hide-scrollbars"]
        )
        try:
            yield browser
        finally:
            browser.close()


def screenshot(browser, file: Path, view: str) -> bytes:
    """The NYUD-v2 section as PNG."""
    page = browser.new_page(**VIEWS[view])
    page.goto(file.as_uri())
    page.select_option("#filter-protocol", "nyud-invpt")
    picture = page.screenshot(animations="disabled")
    page.close()
    return picture


def main() -> None:
    """Write the pictures of the documentation."""
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        file = build_site(Path(folder))
        for view in VIEWS:
            (IMAGES / f"leaderboard-{view}.png").write_bytes(screenshot(browser, file, view))


if __name__ == "__main__":
    main()
