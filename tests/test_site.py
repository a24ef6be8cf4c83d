"""The static site: what is in it, where its links lead, and that it is of one run."""

import base64
import re

import pytest
from site_maker import instruments, live, small_site, wrong_links

from labkit.__main__ import main
from labkit.widgets import export


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return small_site(tmp_path_factory.mktemp("runs")).parent


def test_every_link_leads_to_a_place_of_the_site(site):
    assert wrong_links(site) == []


def test_a_wrong_link_is_told(tmp_path):
    page = '<a href="b.html"></a><a href="#c"></a><img src="https://d.e/f.png"><a href="https://g"></a>'
    (tmp_path / "a.html").write_text(page)
    said = [line.rpartition(" ")[2] for line in wrong_links(tmp_path)]
    assert said == ["b.html", "#c", "https://d.e/f.png"]


def test_the_start_page_has_the_instruments_the_notebooks_and_the_findings(site):
    start = (site / "index.html").read_text()
    assert re.findall(r'href="(instruments/[^"]+)"', start) == [f"instruments/n-{i}.html" for i in (1, 2)]
    assert '<a href="n.html">9 · A question &lt;of&gt; tests</a></td><td>Is $a^2$ drawn?</td>' in start
    assert "Does 2:4 activation sparsity speed up a feed-forward layer?" in start
    assert "2026-01-01 12:30 UTC" in start
    assert {"report.html", "api/index.html"} <= set(re.findall(r'<a href="([^"]+)"', start))


def test_a_gallery_page_is_the_instruments_own_and_leads_back(site):
    for number, one in enumerate(instruments(), 1):
        page = (site / "instruments" / f"n-{number}.html").read_text()
        back = re.findall(r"\n<nav .*</nav>", page)
        assert page.replace(back[0], "") == export.page(one, export.FRAMED)
        assert '<a href="../n.html">9 · A question &lt;of&gt; tests</a>' in back[0]
        picture = base64.b64decode(live(one, f"key{number - 1}")["image/png"])
        assert (site / "instruments" / f"n-{number}.png").read_bytes() == picture


def test_the_command_writes_it_anew_and_wants_a_run(tmp_path, monkeypatch, capsys):
    start = small_site(tmp_path)
    (start.parent / "old.html").write_text("")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert main(["site"]) == 2  # there is no runs/latest
    assert "must be a run's folder with run.json" in capsys.readouterr().err
    assert (start.parent / "old.html").is_file()
    (tmp_path / "docs" / "index.html").unlink()
    assert main(["site", str(tmp_path / "2026-01-01")]) == 0
    assert capsys.readouterr().out == f"{start}\n"
    assert not (start.parent / "old.html").exists()
    assert "api/index.html" not in start.read_text()
    assert wrong_links(start.parent) == []
