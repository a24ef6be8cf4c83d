"""The instruments' scripts: joined into one module each, small files, and their pure parts under node."""

import re
import shutil
import subprocess

import pytest

from labkit.paths import ROOT
from labkit.widgets.esm import esm, join

STATIC = ROOT / "labkit" / "widgets" / "static"
ENTRIES = sorted(path.name for path in STATIC.glob("*.js"))
FILES = sorted(STATIC.glob("**/*.js"))
TESTS = sorted((ROOT / "tests" / "js").glob("*.test.js"))


@pytest.fixture(scope="module")
def node():
    """Path of node, which only these tests need; they are skipped without it."""
    if (path := shutil.which("node")) is None:
        pytest.skip("no node: install Node.js 20 or newer to test the instruments' scripts")
    return path


def run(node, text):
    """What a module prints."""
    command = [node, "--input-type=module", "--eval", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def join_texts(texts):
    """``join`` of {file: text} from a.js on."""

    def read(name):
        if name not in texts:
            raise FileNotFoundError(name)
        return texts[name]

    return join("a.js", read)


def test_the_pure_parts_under_node(node):
    assert len(TESTS) >= 4
    done = subprocess.run([node, "--test", *TESTS], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_instrument_is_one_module_with_a_render(node, entry):
    text = esm(entry)
    assert not re.search(r"^(import\b| */\*\*)", text, re.M), "imports or blocks of documentation are left"
    default = "export default $"
    assert text.splitlines()[-1].startswith(default)
    done = run(node, text.replace(default, "console.log(typeof $", 1).rstrip(";\n") + ".render);")
    assert done.stdout == "function\n", done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(STATIC)))
def test_scripts_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_joined_files_keep_their_own_names(node):
    text = join_texts(
        {
            "a.js": """import { twice } from "./b/c.js";
const own = 1;
export const render = () => twice(own);
""",
            "b/c.js": """/**
 * Doubles.
 */
import {
  own,
} from "../d.js";
export function twice(x) {
  return own * x;
}
""",
            "d.js": "export const own = 2;\n",
        }
    )
    assert "Doubles" not in text
    done = run(node, text.replace("export default $a", "console.log($a.render())"))
    assert done.stdout == "2\n", done.stderr


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"a.js": 'import { x } from "./b.js";\n'}, r"static/a\.js: there is no file b\.js"),
        (
            {"a.js": 'import { x, y } from "./b.js";\n', "b.js": "export const y = 1;\n"},
            r"static/a\.js: b\.js does not export x",
        ),
        (
            {
                "a.js": 'import { x } from "./b.js";\n',
                "b.js": 'import { y } from "./a.js";\nexport const x = 1;\n',
            },
            r"static/a\.js: imports itself: a\.js -> b\.js -> a\.js",
        ),
        ({"a.js": 'import x from "./b.js";\n', "b.js": ""}, r"static/a\.js: .*import x from"),
        ({"a.js": 'import { x } from "https://example.org/b.js";\n'}, r"static/a\.js: .*import \{ x \}"),
        (
            {"a.js": 'import { x as y } from "./b.js";\n', "b.js": "export const x = 1;\n"},
            r"b\.js does not export as",
        ),
        ({"a.js": "export const { x } = {};\n"}, r"static/a\.js: .*export const \{ x \}"),
        ({"a.js": "export default 1;\n"}, r"static/a\.js: .*export default 1"),
    ],
)
def test_what_cannot_be_joined_names_its_file(texts, problem):
    with pytest.raises(ValueError, match=problem):
        join_texts(texts)
