"""The derivations in kernels/*/README.md: examples run, tables and bound hold in the code."""

import doctest
import re

import pytest
import torch

import sparse24
from labkit.paths import ROOT
from tokenstats import token_stats

PAGES = {name: (ROOT / "kernels" / name / "README.md").read_text() for name in ("sparse24", "tokenstats")}


def run_examples(page):
    """(examples run, failures reported, names the examples left behind) of a page's pycon blocks."""
    source = "\n".join(re.findall(r"^```pycon\n(.*?)^```", page, re.M | re.S))
    test = doctest.DocTestParser().get_doctest(source, {}, "README.md", None, None)
    report = []
    done = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    return done.attempted, report, test.globs


@pytest.mark.parametrize("name", PAGES)
def test_every_example_gives_what_the_page_prints(name):
    attempted, report, _ = run_examples(PAGES[name])
    assert attempted >= 15
    assert not report, "".join(report)


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [("sparse24", "0xe4", "0xe5"), ("tokenstats", "1.0233", "1.0234")]
)
def test_a_wrong_digit_on_a_page_is_noticed(name, right, wrong):
    assert right in PAGES[name]
    assert run_examples(PAGES[name].replace(right, wrong))[1]


def table(page, first):
    """Rows, each a list of cells, of the table that begins with ``first``; the header is the first row."""
    block = re.search(rf"^\| {first} \|.*?\n\n", page, re.M | re.S).group()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
    return [rows[0], *rows[2:]]


def test_the_six_nibbles():
    pairs, nibbles = table(PAGES["sparse24"], r"kept \(i0, i1\)")
    assert len(pairs) == 7
    for pair, nibble in zip(pairs[1:], nibbles[1:], strict=True):
        group = torch.zeros(4)
        group[[int(position) for position in pair.split(",")]] = 1
        assert sparse24.compress(group).metadata.item() == int(nibble)


def test_where_the_table_puts_a_nibble_is_where_packing_puts_it():
    header, *rows = table(PAGES["sparse24"], "row")
    assert len(rows) == 6
    for cells in rows:
        at = dict(zip(header, cells, strict=True))
        row, group, columns = int(at["row"]), int(at["group"]), int(at["K'"])
        R, i, s, r, c, h, t = (int(at[digit]) for digit in ("R", "i", "s", "r", "c", "h", "t"))
        assert row == 64 * R + 16 * i + 8 * s + r
        assert group == 8 * c + 4 * h + t
        assert int(at["byte"]) == 8 * columns * R + 256 * c + 64 * i + 8 * r + 2 * t + h
        x = torch.zeros(64 * (R + 1), columns, dtype=torch.float16)
        x[row, 4 * group + 2 : 4 * group + 4] = 1  # nibble 14 there, 4 everywhere else
        metadata = sparse24.compress(x, layout="cusparselt").metadata
        assert metadata.ne(0x44).nonzero().tolist() == [[int(at["byte"])]]
        assert metadata.max().item() == {"low": 0x4E, "high": 0xE4}[at["half"]]


def test_the_permutation_is_the_one_the_kernel_uses():
    gemm = pytest.importorskip("sparse24.gemm")
    columns, threads, features = table(PAGES["sparse24"], "column")
    order = [int(feature) for feature in features[1:]]
    assert sorted(order) == [int(column) for column in columns[1:]] == list(range(16))
    rows = torch.arange(32.0)[:, None]
    assert gemm.reorder(rows).flatten().tolist() == [*order, *(16 + feature for feature in order)]
    owned = {}
    for column, (thread, feature) in enumerate(zip(threads[1:], order, strict=True)):
        assert int(thread) == column % 8 // 2  # the accumulator's fragment: pairs of columns, four threads
        owned.setdefault(int(thread), []).append(feature)
    assert owned == {t: [4 * t, 4 * t + 1, 4 * t + 2, 4 * t + 3] for t in range(4)}


@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("parts", [1, 4])
def test_the_kernels_error_stays_below_the_derived_bound(spread, parts):
    triton = pytest.importorskip("tokenstats.triton")
    if not triton.INTERPRETED:
        pytest.skip("on CPU tensors, so only in the interpreter; test_tokenstats.py covers the card")
    bound = run_examples(PAGES["tokenstats"])[2]["bound"]
    logits = torch.randn(2, 16384) * spread
    got = triton.token_stats(logits, parts=(parts, 16384 // parts)).entropy
    truth = token_stats(logits.double()).entropy
    for row, ours, exact in zip(logits, got.tolist(), truth.tolist(), strict=True):
        assert abs(ours - exact) <= bound(row, parts)
        assert bound(row, parts) < 1e-3 * exact, "a bound that excludes nothing proves nothing"
