"""Parameter values: they reach the notebook as they are, or one line says which of them cannot."""

import json
import re

import pytest
from notebook_maker import write_notebook

from labkit.__main__ import main
from labkit.notebooks import parameters_for
from labkit.yaml_values import parse_overrides


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    (tmp_path / "empty.yaml").write_text("{}")
    return write_notebook(
        tmp_path / "take.ipynb",
        f"import json, os\njson.dump([day, rate, list_, map_, any_], open(r'{tmp_path / 'seen'}', 'w'))",
        parameters="day = '2018-12-31'\nuntil: str = ''\nrate: float = 0.5\n"
        "list_ = []\nmap_ = {}\nany_ = None",
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("day", "2019-01-01", "2019-01-01"),
        ("day", "2019-1-1 10:00:00", "2019-1-1 10:00:00"),
        ("until", "2019-01-01", "2019-01-01"),
        ("rate", "-1e-3", -0.001),
        ("rate", "1E5", 1e5),
        ("any_", "-2.5e3", -2500.0),
        ("any_", "'2019-01-01'", "2019-01-01"),
        ("list_", "[1e-4, 2, .5e1]", [1e-4, 2, 5.0]),
        ("map_", "{'1': [null, true]}", {"1": [None, True]}),
        ("any_", "0x" + "f" * 256, 2**1024 - 1),
    ],
)
def test_a_value_is_taken_as_it_is_written(book, name, text, value):
    found = parameters_for(book, {}, parse_overrides([(name, text)]))[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("any_", "2024-01-01", "got the date 2024-01-01; its text is \"'2024-01-01'\""),
        ("list_", "[2024-01-01]", "got the date 2024-01-01"),
        ("map_", "{start: 2024-01-01}", "got the date 2024-01-01"),
        ("map_", "{2024-01-01: start}", "got the date 2024-01-01"),
        ("map_", "{1: a, b: 2}", "got the key 1"),
        ("list_", "[{a: {null: 1}}]", "got the key None"),
        ("any_", "!!set {a, b}", "got {'a', 'b'}"),
        ("any_", "!!binary aGVsbG8=", "got b'hello'"),
        ("list_", "!!pairs [a: 1]", "got ('a', 1)"),
        ("rate", "-.inf", "got -inf"),
        ("rate", "nan", "got nan"),
        ("any_", "1e999", "got inf"),
        ("any_", "0x" + "f" * 5000, "got a whole number of 20000 bits"),
        ("day", '"\\ud800"', "got text with half a character, '\\ud800'"),
    ],
)
def test_a_value_that_would_change_on_its_way_is_refused(book, name, text, problem):
    kinds = "null, a bool, a finite number, text, a list or a mapping with text as keys"
    with pytest.raises(ValueError, match=re.escape(f"{name} must be {kinds} for take; {problem}")):
        parameters_for(book, {}, parse_overrides([(name, text)]))


def test_braces_in_a_path_are_no_places_of_parameters(book, tmp_path):
    for folder in ("{day}", "a{b", "}"):
        (tmp_path / folder).mkdir()
        copy = book.rename(tmp_path / folder / "take.ipynb")
        assert parameters_for(copy, {}, {"rate": 1}) == {"rate": 1}
        book = copy


BOMB = "[" + ", ".join(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else ['1'])}]" for i in range(9)) + "]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 3000, "nests deeper than 20"),
        ("[" * 22 + "]" * 22, "nests deeper than 20"),
        ("&a [*a]", "nests deeper than 20"),
        ("&a {b: *a}", "nests deeper than 20"),
        (BOMB, "holds more than 1000000 values"),
        ("!!bool x", "a value does not fit its tag"),
        ("!!timestamp x", "a value does not fit its tag"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("9" * 5000, "Exceeds the limit"),
        ("a: [", "flow"),
    ],
)
def test_yaml_that_no_value_can_be_read_from_is_one_short_line(text, problem):
    with pytest.raises(ValueError, match="any_ must be a YAML value; got '.*: .*" + problem) as caught:
        parse_overrides([("any_", text)])
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_value_of_python_that_holds_itself_is_refused(book):
    endless = []
    endless.append(endless)
    with pytest.raises(
        ValueError, match="list_ must be .*; got one that is too big: it nests deeper than 20"
    ):
        parameters_for(book, {}, {"list_": endless})


def test_a_negative_number_on_the_command_line_is_a_value(book, tmp_path, capsys):
    common = ["run", str(book), "--preset", str(tmp_path / "empty.yaml")]
    assert main([*common, "-p", "rate", "-.inf"]) == 2
    assert "labkit run: rate must be" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([*common, "-p", "rate", "-1e-3", "-p", "day", "2019-01-01", "-p", "any_", "-.5"]) == 0
    assert json.loads((tmp_path / "seen").read_text()) == ["2019-01-01", -0.001, [], {}, -0.5]
