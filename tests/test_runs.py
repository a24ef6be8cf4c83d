"""The runner: parameters checked first, failures reported and survived, one folder left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
import yaml
from notebook_maker import taking, write_notebook

from labkit.__main__ import main
from labkit.notebooks import NOTEBOOKS, find_notebooks, parameters_for
from labkit.paths import write_json
from labkit.provenance import setting
from labkit.runner.execute import execute
from labkit.runner.presets import load_preset
from labkit.runner.runs import run
from labkit.yaml_values import parse_overrides


@pytest.fixture
def runs_at(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def book(tmp_path):
    return write_notebook(
        tmp_path / "good.ipynb",
        "from labkit.metrics import record, record_input\nrecord('twice', 2 * size, 'pieces')",
        "record_input('text', 'another')",
        parameters="size: int = 3  # pieces\nrate: float = 0.5  # share\nshow: bool = True  # draw it",
    )


RANGED = "size: int = 1  # side (1 to 16)\nrates: list = [0.5]  # of learning (at least 0.1)"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": 0}, "size must be 1 to 16; got '?0"),
        ({"size": 17}, "size must be 1 to 16; got '?17"),
        ({"rates": [1, 0.05]}, "rates must be at least 0.1; got '?0.05"),
    ],
)
def test_a_number_out_of_the_range_in_its_comment_is_refused(tmp_path, given, told):
    book = write_notebook(tmp_path / "ranged.ipynb", "1", parameters=RANGED)
    assert parameters_for(book, {}, {"size": 16, "rates": [0.1, 7]}) == {"size": 16, "rates": [0.1, 7]}
    with pytest.raises(ValueError, match=told):
        parameters_for(book, {}, given)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("sise", "4"), r"parameter must be one of size, rate, show for good; got 'sise' .*'size'"),
        (("size", "4.5"), r"size must be a int for good; got 4.5"),
        (("size", "true"), r"size must be a int for good; got True"),
        (("rate", "fast"), r"rate must be a float for good; got 'fast'"),
        (("show", "1"), r"show must be a bool for good; got 1"),
    ],
)
def test_a_wrong_parameter_is_one_error_and_nothing_is_written(book, runs_at, override, message):
    with pytest.raises(ValueError, match=message):
        run([str(book)], str(_flat(book, {})), parse_overrides([override]))
    assert not runs_at.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs must be an integer >= 1; got 0"),
        ({"timeout": "4"}, "timeout must be a number in .*; got '4'"),
        ({"timeout": 0}, "timeout must be a number in .*; got 0"),
        ({"timeout": 1e12}, "timeout must be a number in .*; got 1000000000000.0"),
    ],
)
def test_wrong_jobs_and_timeouts_are_one_error_and_nothing_is_written(book, runs_at, options, message):
    with pytest.raises(ValueError, match=message):
        run([str(book)], str(_flat(book, {})), **options)
    assert not runs_at.exists()


def _flat(book, values):
    path = book.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return path


def test_values_are_yaml_so_false_is_false():
    assert parse_overrides([("a", "false"), ("b", "1e-3"), ("c", "[1, 2]")])["a"] is False
    assert parse_overrides([("c", "[1, 2]")]) == {"c": [1, 2]}


def test_a_value_that_is_no_yaml_is_one_error():
    for text in ("[", "2020-13-45"):
        with pytest.raises(ValueError, match="size must be a YAML value; got"):
            parse_overrides([("size", text)])


@pytest.mark.parametrize("content", [b"hello", b"{}", b"[]", b'{"a": "\xe9"}'])
def test_a_file_that_is_no_notebook_is_one_error_that_names_it(tmp_path, runs_at, content):
    path = tmp_path / "mine.ipynb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="NOTEBOOK must be a valid notebook; .*mine.ipynb is not: "):
        run([str(path)])
    assert not runs_at.exists()


def test_a_float_may_be_written_with_a_bare_exponent(book):
    assert parameters_for(book, {}, parse_overrides([("rate", "1e-3")])) == {"rate": 1e-3}


def test_an_int_is_a_fine_float(book):
    assert parameters_for(book, {}, {"rate": 1}) == {"rate": 1}


def test_overrides_beat_the_preset_and_the_preset_beats_the_default(book):
    preset = {"*": {"size": 5, "rate": 0.1}}
    assert parameters_for(book, preset, {"size": 7}) == {"size": 7, "rate": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "preset must be valid YAML; .*mine.yaml is not: while parsing"),
        ("a: \udce9", "preset must be valid YAML; .*mine.yaml is not: 'utf-8' codec"),
        ("- 1", "a mapping"),
        (None, "preset must be one of .*smoke"),
        (
            "07_kernels: {rows: 2}\n00_start_here: 1",
            "one mapping of parameters per notebook; .* 00_start_here: 1",
        ),
        ("07_kernel: {rows: 2}", "names '07_kernel' .*'07_kernels'"),
    ],
)
def test_a_bad_preset_names_the_file(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ValueError, match=message):
        load_preset(str(path))


def test_notebooks_are_found_by_number_name_or_path(book):
    assert [path.stem for path in find_notebooks(["00"])] == ["00_start_here"]
    assert find_notebooks([str(book)]) == [book]
    assert find_notebooks(["07", "07_kernels"]) == find_notebooks(["07"])  # once, not two in one file
    with pytest.raises(ValueError, match="of another name"):
        find_notebooks(["07", str(write_notebook(book.with_name("07_kernels.ipynb")))])
    with pytest.raises(ValueError, match="NOTEBOOK must be a .ipynb file or one of 00_start_here"):
        find_notebooks(["nope"])


def test_a_relative_path_is_the_same_notebook(monkeypatch):
    """Otherwise its baseline would not be looked for."""
    monkeypatch.chdir(NOTEBOOKS)
    assert find_notebooks(["07_kernels.ipynb"]) == find_notebooks(["07"])


def test_a_failing_notebook_is_reported_and_the_others_run(tmp_path, book, runs_at, capfd):
    bad = write_notebook(
        tmp_path / "bad.ipynb",
        "from labkit.metrics import record\nrecord('before', 1)",
        "raise ValueError('beam must be >= 1; got 0')",
        "record('after', 2)",
    )
    code = main(["run", str(bad), str(book), "--preset", str(_flat(book, {})), "--jobs", "2"])
    assert code == 1
    latest = runs_at / "latest"
    assert json.loads((latest / "metrics.json").read_text()) == {"bad": {"before": 1}, "good": {"twice": 6}}
    page = (latest / "report.html").read_text()
    assert page.index("bad failed") < page.index("About good")  # errors first
    assert "beam must be &gt;= 1; got 0" in page
    assert "beam must be &gt;= 1; got 0" in (latest / "bad.html").read_text()
    assert "pieces" in (latest / "good.html").read_text()
    for name in ("report", "good", "bad"):  # opens offline
        assert "http" not in (latest / f"{name}.html").read_text().replace("http://www.w3.org", "")
    partial = nbformat.read(latest / "bad.ipynb", as_version=4)
    assert any(o.output_type == "error" for cell in partial.cells for o in cell.get("outputs", []))
    assert "Executing Cell" in (latest / "bad.log").read_text()
    assert not list(latest.glob(".*"))
    assert main(["report", str(latest)]) == 0


def test_a_dead_kernel_and_a_slow_notebook_fail(tmp_path, runs_at):
    dead = write_notebook(tmp_path / "dead.ipynb", "import os\nos._exit(9)")
    slow = write_notebook(tmp_path / "slow.ipynb", "import time\ntime.sleep(60)")
    empty = str(_flat(dead, {}))
    _, runs = run([str(dead)], empty)
    assert "DeadKernelError" in runs[0].error
    _, runs = run([str(slow)], empty, timeout=4)
    assert runs[0].error == "timed out after 4 s"
    assert runs[0].seconds < 20


def test_a_notebook_that_is_killed_names_the_signal(tmp_path, runs_at):
    """Not the line it printed last, which has nothing to do with it."""
    source = "import os, signal\nprint('step 3 of 9', flush=True)\nos.kill(os.getppid(), signal.SIGTERM)"
    killed = write_notebook(tmp_path / "killed.ipynb", source, "import time\ntime.sleep(60)")
    _, runs = run([str(killed)], str(_flat(killed, {})))
    assert runs[0].error == "ended by signal 15"


def test_an_error_of_several_lines_is_told_whole(tmp_path, runs_at):
    bad = write_notebook(tmp_path / "bad.ipynb", "raise ValueError('beam must be\\n  >= 1; got 0')")
    _, runs = run([str(bad)], str(_flat(bad, {})))
    assert runs[0].error == "ValueError: beam must be >= 1; got 0"


def test_what_is_printed_after_the_error_does_not_replace_it(tmp_path, runs_at):
    daemon = "sleep 1; echo still here"
    source = f"import subprocess\nsubprocess.Popen(['sh', '-c', {daemon!r}])\nraise ValueError('no beams')"
    bad = write_notebook(tmp_path / "bad.ipynb", source)
    _, runs = run([str(bad)], str(_flat(bad, {})))
    assert runs[0].error == "ValueError: no beams"


def test_a_time_out_of_papermills_own_is_told_with_its_code_in_one_line(tmp_path, book, monkeypatch):
    """Its saved cells look completed."""
    import papermill
    from nbclient.exceptions import CellTimeoutError

    def wait_in_vain(source, target, **options):
        nbformat.write(nbformat.read(source, as_version=4), target)
        cell = nbformat.v4.new_code_cell("import time\ntime.sleep(600)")
        raise CellTimeoutError.error_from_timeout_and_cell("Timeout waiting for IOPub output.", 4, cell)

    monkeypatch.setattr(papermill, "execute_notebook", wait_in_vain)
    error = execute(str(book), str(tmp_path / "out.ipynb"), {})
    assert error.startswith("CellTimeoutError: A cell timed out")
    assert "import time time.sleep(600)" in error
    assert error.count("\n") == 0


def test_errors_and_paths_are_printed_as_they_are(tmp_path, runs_at, capsys):
    """No markup and no emoji names are read in them."""
    source = "raise ValueError('prompt lacks [/INST] :key: at its end')"
    bad = write_notebook(tmp_path / "[red]bad.ipynb", source)
    assert main(["run", str(bad), "--preset", str(_flat(tmp_path / "x", {}))]) == 1
    said = " ".join(capsys.readouterr().out.split())
    for word in ("[red]bad", "FAILED ValueError", "[/INST]", ":key:"):
        assert word in said
    assert (runs_at / "latest" / "[red]bad.ipynb").exists()


def test_a_notebook_that_prints_too_much_is_cut_and_says_so(tmp_path, monkeypatch):
    """What it computes and how it fails is kept."""
    from labkit.runner import execute as executing

    monkeypatch.setattr(executing, "PRINTED", 1000)
    source = write_notebook(
        tmp_path / "long.ipynb", "print('a' * 600)", "print('b' * 600)\nprint('c' * 600)\n7",
        "print('d')\nraise ValueError('no beams')",
    )  # fmt: skip
    target = tmp_path / "out.ipynb"
    assert execute(str(source), str(target), {}) == "ValueError: no beams"
    outputs = [
        output for cell in nbformat.read(target, as_version=4).cells for output in cell.get("outputs", [])
    ]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    said = "\n[cut by labkit: a notebook may print 1,000 characters]\n"
    assert printed == "a" * 600 + "\n" + "b" * 399 + said
    assert [o.data["text/plain"] for o in outputs if o.output_type == "execute_result"] == ["7"]
    assert [o.ename for o in outputs if o.output_type == "error"] == ["ValueError"]


def test_braces_in_a_path_are_part_of_its_name(tmp_path):
    """Papermill would fill in parameters there."""
    source = write_notebook(tmp_path / "{size}}.ipynb", "print(size)", parameters="size: int = 3  # size")
    target = tmp_path / "{other.ipynb"
    assert execute(str(source), str(target), {"size": 4}) == ""
    assert nbformat.read(target, as_version=4).cells[-1].outputs[0].text == "4\n"


def test_metric_names_are_printed_as_they_are(tmp_path, runs_at, capsys):
    source = "from labkit.metrics import record\nrecord('speed [tokens/s]', 2, 'x')"
    fast = write_notebook(tmp_path / "fast.ipynb", source)
    folders = [str(run([str(fast)], str(_flat(fast, {})))[0]) for _ in range(2)]
    assert main(["compare", *folders]) == 0
    assert "speed [tokens/s]" in capsys.readouterr().out


def _slow(tmp_path):
    """A notebook that starts a daemon, writes its own number and the daemon's to begun.txt, and sleeps."""
    return write_notebook(
        tmp_path / "slow.ipynb",
        f"import os, subprocess\nfrom pathlib import Path\nbegun = Path({str(tmp_path / 'begun.txt')!r})",
        "daemon = subprocess.Popen(['setsid', 'sleep', '600'], start_new_session=True)",
        "begun.with_suffix('.part').write_text(f'{os.getpid()} {daemon.pid}')",
        "begun.with_suffix('.part').rename(begun)",
        "import time\ntime.sleep(600)",
    )


def _all_ended(tmp_path, seconds=10):
    """Whether the processes that begun.txt names end; a container's init may leave them unburied."""
    waited = [int(pid) for pid in (tmp_path / "begun.txt").read_text().split()]
    assert len(waited) == 2
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in tuple(waited):
            try:
                ended = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                ended = True
            if ended:
                waited.remove(pid)
        if not waited:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_a_signal_ends_the_notebooks_too(tmp_path, runs_at, number, code, words):
    """They run in sessions of their own, where the terminal's signals do not reach them."""
    slow = _slow(tmp_path)
    command = [sys.executable, "-m", "labkit", "run", str(slow), "--preset", str(_flat(slow, {}))]
    process = subprocess.Popen(
        taking(number, *command), env=os.environ | {"LABKIT_RUNS": str(runs_at)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for(tmp_path / "begun.txt")
    process.send_signal(number)
    _, messages = process.communicate(timeout=240)
    assert process.returncode == code
    assert _all_ended(tmp_path, seconds=0.5)
    assert messages.splitlines()[-1] == f"labkit run: {words}"
    assert not (runs_at / "latest").exists()


def test_a_closed_terminal_ends_the_notebooks_too(tmp_path, runs_at):
    """Nothing can be written to it any more, which must not come between."""
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "labkit", "run", str(_slow(tmp_path))]
    command += ["--preset", str(_flat(tmp_path / "x", {}))]
    process = subprocess.Popen(
        taking(signal.SIGHUP, *command), env=os.environ | {"LABKIT_RUNS": str(runs_at)},
        stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    _wait_for(tmp_path / "begun.txt")
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    assert _all_ended(tmp_path, seconds=0.5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_of_a_notebook_ends_its_kernel(tmp_path, number):
    """Its runner may be gone and cannot clean up."""
    parameters = tmp_path / "p.json"
    parameters.write_text("{}")
    command = [
        sys.executable,
        "-m",
        "labkit.runner.execute",
        str(_slow(tmp_path)),
        str(tmp_path / "out.ipynb"),
    ]
    process = subprocess.Popen(taking(number, *command, str(parameters)))
    _wait_for(tmp_path / "begun.txt")
    process.send_signal(number)
    assert process.wait(60) == -number
    assert _all_ended(tmp_path, seconds=0.5)


def test_help_names_every_command_and_exit_code(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name in ("list", "notebooks", "run", "train", "sweep", "report", "compare", "baseline"):
        assert f"\nlabkit {name} " in text
    assert "3 a metric is off its baseline" in text
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "seconds for one point" in capsys.readouterr().out


def test_notebooks_are_listed_with_what_their_parameters_mean(book, capsys):
    assert main(["list", str(book)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        ["good:", "About", "good"], ["parameter", "type", "default", "meaning"],
        ["size", "int", "3", "pieces"], ["rate", "float", "0.5", "share"],
        ["show", "bool", "True", "draw", "it"],
    ]  # fmt: skip
    assert main(["list", str(book), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["notebook"], found["title"]) == ("good", "About good")
    assert found["parameters"][1] == {"name": "rate", "type": "float", "default": "0.5", "meaning": "share"}


def test_copies_of_the_notebooks_replace_nothing(tmp_path, capsys):
    assert main(["notebooks", str(tmp_path / "mine")]) == 0
    path = tmp_path / "mine" / "07_kernels.ipynb"
    assert path.read_bytes() == (NOTEBOOKS / path.name).read_bytes()
    assert (tmp_path / "mine" / "presets" / "full.yaml").is_file()
    path.write_text("edited")
    for place in (tmp_path / "mine", path):
        assert main(["notebooks", str(place)]) == 2
        assert "FOLDER must be a new or empty folder; got" in capsys.readouterr().err
    assert path.read_text() == "edited"


def test_bad_usage_exits_2_with_one_line(capsys):
    assert main(["run", "00", "--preset", "nope"]) == 2
    assert main(["run", "00", "--jobs", "0"]) == 2
    assert main(["report", "nowhere"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("labkit ") for line in lines)


def test_killed_runner_then_resume_runs_only_what_is_left(tmp_path, runs_at):
    touch = "from pathlib import Path\nPath(r'{}').open('a').write('x')"
    first = write_notebook(tmp_path / "first.ipynb", touch.format(tmp_path / "first.txt"))
    late = write_notebook(
        tmp_path / "late.ipynb", touch.format(tmp_path / "late.txt"), "import time\ntime.sleep(wait)",
        parameters="wait: float = 60.0  # s",
    )  # fmt: skip
    empty = str(_flat(first, {}))
    command = [sys.executable, "-m", "labkit", "run", str(first), str(late), "--preset", empty]
    process = subprocess.Popen(command, env=os.environ | {"LABKIT_RUNS": str(runs_at)})
    _wait_for(tmp_path / "late.txt")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (runs_at / "latest").exists()  # no half-written report is ever the latest

    write_notebook(late, touch.format(tmp_path / "late.txt"), parameters="wait: float = 0.0  # s")
    subprocess.run([*command, "--resume"], env=os.environ | {"LABKIT_RUNS": str(runs_at)}, check=True)
    assert (tmp_path / "first.txt").read_text() == "x"  # not run again
    run = json.loads((runs_at / "latest" / "run.json").read_text())
    assert [(item["notebook"], item["cached"]) for item in run["notebooks"]] == [
        ("first", True),
        ("late", False),
    ]
    page = (runs_at / "latest" / "report.html").read_text()
    assert "About first" in page
    assert "About late" in page


def _wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.1)


def test_a_changed_parameter_or_source_is_run_again(book, runs_at):
    empty = str(_flat(book, {}))
    first = run([str(book)], empty, resume=True)[1][0]
    assert not first.cached
    assert not first.ours
    assert run([str(book)], empty, resume=True)[1][0].cached
    assert not run([str(book)], empty, {"size": 4}, resume=True)[1][0].cached
    assert not run([str(book)], empty)[1][0].cached


def test_a_metric_off_its_baseline_exits_3(book, runs_at, monkeypatch, capsys):
    from labkit.runner import baselines, runs

    monkeypatch.setattr(runs, "NOTEBOOKS", book.parent)
    monkeypatch.setattr(baselines, "BASELINES", book.parent / "baselines")
    empty = str(_flat(book, {}))
    monkeypatch.setattr(baselines, "path_of", lambda *names: book.parent / "b.json")
    entry = {"value": 6, "abs": 0, "rel": 0, "direction": "equal", "why": "an integer"}
    recorded = setting("cpu") | {"Python": "3.10", "threads": "7", "text": "pinned"}
    write_json(book.parent / "b.json", {"recorded": recorded, "seconds": 1.0, "metrics": {"twice": entry}})
    assert main(["run", str(book), "--preset", empty]) == 0
    assert json.loads((runs_at / "latest" / "run.json").read_text())["notebooks"][0]["ours"]
    entries = {"twice": {**entry, "value": 7}, "gone": entry}
    write_json(book.parent / "b.json", {"recorded": recorded, "seconds": 1.0, "metrics": entries})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert main(["run", str(book), "--preset", empty]) == 3
    said = capsys.readouterr().out
    here = ".".join(map(str, sys.version_info[:2]))
    words = "recorded on Python 3.10, threads 7, text pinned; "
    words += f"this is Python {here}, threads 1, text another"
    assert f"good: twice: regressed, 6 against 7 ± 0, equal, {words}" in said.splitlines()
    assert "labkit baseline update" in said
    page = (runs_at / "latest" / "report.html").read_text()
    assert f"twice: regressed, 6 against 7 ± 0, equal, {words}" in page
    assert "gone: missing" in page
    assert f"Baseline {words}." in (runs_at / "latest" / "good.html").read_text()


def test_a_kernel_computes_with_one_thread_unless_told(tmp_path, runs_at, monkeypatch):
    """As the baselines were recorded; what the environment says is obeyed, and told in run.json."""
    source = "import torch\nfrom labkit.metrics import record\nrecord('threads', torch.get_num_threads())"
    threads, empty = write_notebook(tmp_path / "threads.ipynb", source), str(_flat(tmp_path / "x", {}))
    for given, wanted in ((None, 1), ("2", 2)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        folder, runs = run([str(threads)], empty)
        assert runs[0].values == {"threads": wanted}
        assert json.loads((folder / "run.json").read_text())["setting"]["threads"] == str(wanted)


def test_a_read_only_folder_is_one_error(book, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_RUNS", "/proc/nowhere")
    assert main(["run", str(book), "--preset", str(_flat(book, {}))]) == 2
    assert capsys.readouterr().err.startswith("labkit run: ")


def test_a_copy_in_the_place_of_latest_is_told_before_anything_runs(book, runs_at, capsys):
    (runs_at / "latest").mkdir(parents=True)
    assert main(["run", str(book), "--preset", str(_flat(book, {}))]) == 2
    assert "runs/latest must be a link" in capsys.readouterr().err
    assert [path.name for path in runs_at.iterdir()] == ["latest"]


@pytest.mark.parametrize("options", [[], ["--json"]])  # rich prints the one, Python the other
def test_nobody_who_reads_on_is_no_failure_and_no_word(options):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "labkit", "list", "00", *options]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


FULL = """
mount -t tmpfs -o size={size} none "$LABKIT_RUNS" || exit 77
"{python}" -m labkit run "{book}" --preset "{preset}"
echo "exit $?"
find "$LABKIT_RUNS" -name '*.ipynb' -exec "{python}" -m json.tool {{}} /dev/null ';'
find "$LABKIT_RUNS" -name '*.json' -o -name latest -o -name '.*.part*' -o -name '*.tmp*'
"""


@pytest.mark.parametrize("size", ["64k", "5m"])  # the log does not fit; the notebook does not
def test_a_full_disk_is_one_error_and_nothing_is_half_written(tmp_path, size):
    book = write_notebook(tmp_path / "long.ipynb", "print('x' * 3_000_000)", parameters="n: int = 1  # n")
    (tmp_path / "disk").mkdir()
    script = FULL.format(size=size, python=sys.executable, book=book, preset=_flat(book, {}))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=os.environ | {"LABKIT_RUNS": str(tmp_path / "disk")}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    assert done.stdout.split() == ["exit", "2"]
    assert "No space left on device: '" in done.stderr
    assert "free some" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_only_looks_like_a_metric_costs_neither_notebook_nor_run(tmp_path, runs_at, capsys):
    source = "from IPython.display import display\nfrom labkit.metrics import MIME\n"
    source += (
        "from labkit.metrics import record\nrecord('side', 2)\ndisplay({MIME: {'speed': 3}}, raw=True)"
    )
    mine = write_notebook(tmp_path / "mine.ipynb", source)
    folder, (item,) = run([str(mine)], str(_flat(mine, {})))
    assert (item.error, item.values) == ("", {"side": 2})
    assert "metric+json must hold name, unit, value; got {'speed': 3}" in capsys.readouterr().err
    assert (folder / "report.html").is_file()


def test_a_kernel_that_never_started_is_started_again(book, tmp_path, monkeypatch):
    import papermill

    tries, real = [], papermill.execute_notebook

    def clash_once(*arguments, **options):
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return real(*arguments, **options)

    monkeypatch.setattr(papermill, "execute_notebook", clash_once)
    assert execute(str(book), str(tmp_path / "out.ipynb"), {}) == ""
    assert len(tries) == 2
