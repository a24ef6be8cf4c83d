"""Voila serves the first notebook as an app: no code, live instruments."""

import importlib.util
import os
import subprocess
import sys
import time

import pytest
from browser.lab import free_port

from labkit.paths import runs_dir

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("voila") is None,
    reason="needs Voila: pip install -c constraints.txt -e .[app]",
)


@pytest.fixture(scope="module")
def app(lab, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    notebook = lab.notebooks / lab.prepare("00_start_here")
    command = [sys.executable, "-m", "voila", str(notebook), "--no-browser",
               "--Voila.ip=127.0.0.1", f"--port={port}"]  # fmt: skip
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("LABKIT_HEADLESS", None)
    log = (folder / "voila.log").open("w")
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    for _ in range(600):
        if "running at" in (folder / "voila.log").read_text() or server.poll() is not None:
            break
        time.sleep(0.2)
    assert server.poll() is None, (folder / "voila.log").read_text()
    yield f"http://127.0.0.1:{port}/"
    server.terminate()
    server.wait(60)


def test_the_app_shows_live_instruments_and_no_code(app, page):
    answer = page.goto(app, wait_until="domcontentloaded", timeout=300_000)
    assert answer.status == 200
    assert page.title().startswith("00_start_here")
    page.get_by_role("heading", name="Start here").wait_for(timeout=60_000)
    page.locator(".lk").first.wait_for(timeout=60_000)
    assert "theme.apply()" not in page.inner_text("body")
    picture = runs_dir() / "browser" / "app.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(picture), full_page=True)
