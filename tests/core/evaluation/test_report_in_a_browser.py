"""The report as a browser shows it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from openrag_core.evaluation.report import page
from tests.core.evaluation.test_calibrate import CONFIG, RECORDS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_it_is_shown(tmp_path: Path) -> None:
    assert BROWSER is not None
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page({"nq": (CONFIG, RECORDS)}), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    shot = [f"--screenshot={picture}", "--window-size=1100,2200", f"--user-data-dir={tmp_path}/own"]
    done = subprocess.run(
        [BROWSER, *flags, *shot, file.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert picture.is_file(), done.stderr
    with Image.open(picture) as image:
        assert image.size == (1100, 2200)
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    # Text on paper, and the lines of the curve: neither blank nor an error page.
    assert len(colours) > 200
