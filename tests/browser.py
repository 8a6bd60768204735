"""A browser for the tests of what is read in one."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A browser without these looks for updates and for its maker's hosts.
QUIET = [
    *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-sandbox"),
]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def launched() -> Iterator[Any]:
    """Headless Chromium; skips without one, unless GRADEST_TEST_BROWSER says that it is there."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert not os.environ.get("GRADEST_TEST_BROWSER"), "no Chromium on the PATH"
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=QUIET)
        yield started
        started.close()
