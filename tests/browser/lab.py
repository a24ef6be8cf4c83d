"""A real JupyterLab in a real Chromium: the server, one open notebook, and what can be asked of it."""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from labkit.notebooks import NOTEBOOKS, parameters_for
from labkit.paths import runs_dir
from labkit.runner.presets import load_preset

PICTURES = runs_dir() / "browser"
TOKEN = "browser-tests"
CHROMIUM_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
MISSING = "no chromium: install it (Debian: apt-get install chromium) or set LABKIT_CHROMIUM to its path"
SETTINGS = {  # no news toast, no cell is left out of the page, nothing is written behind our back
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CONTROLS = tuple(  # what a keyboard can move; "explicit" marks what only a button of its own applies
    f".jp-OutputArea-output {kind}:not([data-explicit], .labkit-explicit *)"
    for kind in (".noUi-handle", "select", *(f"input[type={i}]" for i in ("range", "checkbox", "number")))
)
INSTRUMENTS = ".jp-OutputArea-output .lk:not(.ex, .widget-vbox .lk), .jp-OutputArea-output > .widget-vbox"
# One text that changes when a picture in the same output does: pixels, image data, plotly's paths, tables,
# and the bars beside a tree, for a threshold that passes no confidence changes nothing in the tree itself.
PICTURE = """node => {
    const output = node.closest('.jp-OutputArea-output');
    const parts = [...output.querySelectorAll('canvas')].map(canvas => canvas.toDataURL());
    for (const image of output.querySelectorAll('img')) parts.push(image.src);
    for (const other of output.querySelectorAll('svg, .jp-RenderedHTMLCommon, .lk-side'))
        parts.push(other.innerHTML);
    return parts.join('|');
}"""
TRAITS = (  # of every widget but the Output areas, which change because a picture does
    "{i: str(hash(repr(w.get_state()))) for i, w in"
    " __import__('ipywidgets').widgets.widget._instances.items() if w._model_name != 'OutputModel'}"
)
POSITION = (  # a slider's aria-valuenow is rounded, so where its handle stands counts too
    "node => [node.getAttribute('aria-valuenow'), node.value, node.checked,"
    " node.parentElement?.style.transform].join()"
)
QUICK = str(Path(__file__).with_name("quick.yaml"))
CLEAN = "get_ipython().run_line_magic('reset', '-f'); __import__('ipywidgets').Widget.close_all()"
PANEL = "const panel = window.jupyterapp.shell.currentWidget;"
PATIENCE = 30  # seconds; what a slow machine has not done by then is not done at all


def find_chromium() -> str | None:
    """$LABKIT_CHROMIUM if it is set, else the system's chromium; None if there is none."""
    if named := os.environ.get("LABKIT_CHROMIUM"):
        return named if Path(named).is_file() else None
    return shutil.which("chromium") or shutil.which("chromium-browser")


def comes(read: Callable[[], object], wanted: object, about: object = "it") -> object:
    """Wait until ``read()`` is ``wanted``, or ``wanted(read())`` is true; AssertionError after PATIENCE."""
    holds = wanted if callable(wanted) else lambda value: value == wanted
    deadline = time.monotonic() + PATIENCE
    while not holds(value := read()):
        assert time.monotonic() < deadline, f"{about} is still {str(value)[:300]}"
        time.sleep(0.05)
    return value


def changes(read: Callable[[], object], act: Callable[..., object], *given: object) -> None:
    """``act(*given)`` and wait until ``read()`` is another value."""
    before = read()
    act(*given)
    comes(read, lambda now: now != before, f"after {given or act}")


def settled(read: Callable[[], object], pause: float) -> object:
    """What ``read()`` is once it is the same twice, ``pause`` seconds apart."""
    last = read()
    for _ in range(50):
        time.sleep(pause)
        if (now := read()) == last:
            break
        last = now
    return last


def drawn(page: Page) -> None:
    """Wait for two frames: what was asked for is drawn in the first, and for its new size in the second."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def book(*cells: str) -> object:
    """A notebook with these code cells."""
    import nbformat

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


class Lab:
    """JupyterLab on a free port, with settings, data and notebooks of its own in ``folder``."""

    def __init__(self, folder: Path):
        self.notebooks = folder / "notebooks"
        shutil.copytree(NOTEBOOKS, self.notebooks, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        overrides = folder / "config" / "labconfig" / "default_setting_overrides.json"
        overrides.parent.mkdir(parents=True)
        overrides.write_text(json.dumps(SETTINGS))
        self.url = f"http://127.0.0.1:{free_port()}"
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("LABKIT_HEADLESS", None)
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.url.rsplit(':', 1)[1]}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={self.notebooks}", "--LabApp.expose_app_in_browser=True",
        ]  # fmt: skip
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/api/status") is not None
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> object:
        """One request to the server's REST interface; the decoded answer."""
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
            content = answer.read()
        return json.loads(content) if content else ""

    def add(self, notebook: object, name: str) -> str:
        """Write an nbformat notebook into the server's folder; returns the name to open."""
        import nbformat

        nbformat.write(notebook, self.notebooks / name)
        return name

    def prepare(self, stem: str) -> str:
        """The notebook ``stem`` with the parameters of quick.yaml injected, as papermill would."""
        import papermill

        values = parameters_for(NOTEBOOKS / f"{stem}.ipynb", load_preset(QUICK), {})
        book = papermill.iorw.load_notebook_node(str(NOTEBOOKS / f"{stem}.ipynb"))
        return self.add(papermill.parameterize.parameterize_notebook(book, values), f"{stem}.ipynb")

    def load(self, page: Page) -> Page:
        """Load JupyterLab itself, with no notebook, into ``page``."""
        page.goto(f"{self.url}/lab?reset&token={TOKEN}", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Launcher", timeout=90_000)
        page.keyboard.press("Control+b")  # the file browser takes a third of the page
        return page

    def stop(self) -> None:
        """Shut down the kernels, then the server."""
        try:
            for session in self.ask("GET", "/api/sessions"):
                self.ask("DELETE", f"/api/sessions/{session['id']}")
        except OSError:
            pass
        self.server.terminate()
        try:
            self.server.wait(15)
        except subprocess.TimeoutExpired:
            self.server.kill()


class Notebook:
    """One notebook open in JupyterLab, which ``page`` has loaded; ``page`` is playwright's."""

    def __init__(self, lab: Lab, page: Page, name: str):
        self.lab, self.page, self.name = lab, page, name
        self.console_errors: list[str] = []
        page.on("console", self._keep)
        page.on("pageerror", self._keep_uncaught)
        open_ = "async path => { await window.jupyterapp.commands.execute('docmanager:open', {path}); }"
        page.evaluate(open_, name)  # the braces keep the widget, too deep to be sent, in the page
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        self._wait_for_kernel()
        self.change_theme("light")

    def _keep(self, message) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.console_errors.append(f"{message.text} ({where})"[:500])

    def _keep_uncaught(self, error) -> None:
        self.console_errors.append(f"uncaught: {error}")

    def _wait_for_kernel(self) -> None:
        # The toolbar shows idle before the session exists, and Run All then silently does nothing.
        deadline = time.monotonic() + 90
        while not self._connected():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no idle kernel for {self.name}")
            self.page.wait_for_timeout(200)
        self.page.get_by_text(re.compile(r"\| Idle$")).first.wait_for(timeout=60_000)

    def _connected(self) -> bool:
        return any(
            session["path"] == self.name
            and session["kernel"]
            and session["kernel"]["execution_state"] == "idle"
            and session["kernel"]["connections"] > 0
            for session in self.lab.ask("GET", "/api/sessions")
        )

    def run_all(self, timeout: float = 180) -> None:
        """Run > Run All Cells by the menu, then ``wait_idle``."""
        page = self.page
        for _ in range(5):
            page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
            page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
            try:  # a prompt with a number or a star: it really started
                first = page.locator(".jp-CodeCell .jp-InputPrompt").first
                expect(first).to_have_text(re.compile(r"\[(\*|\d+)\]"))
                break
            except AssertionError:
                continue
        else:
            raise TimeoutError(f"Run All Cells had no effect on {self.name}")
        self.wait_idle(timeout)

    def show(self, *sources: str, timeout: float = 180) -> None:
        """Put cells with ``sources`` in the place of all there are and run them, nothing else left open."""
        self.console_errors.clear()
        self.change_theme("light")
        self.page.evaluate(
            f"""sources => {{ {PANEL}
                const model = panel.content.model.sharedModel;
                model.transact(() => {{
                    model.deleteCellRange(0, model.cells.length);
                    model.insertCells(0, sources.map(source => ({{cell_type: 'code', source}})));
                }}); }}""",
            [CLEAN, *sources],
        )
        self.run_all(timeout)
        self.page.evaluate(f"() => {{ {PANEL} panel.content.model.sharedModel.deleteCell(0); }}")

    def run_cell(self, index: int, timeout: float = 60) -> None:
        """Run the code cell ``index`` (counted among code cells, from 0) again."""
        self.page.evaluate(
            f"""async index => {{ {PANEL}
                const book = panel.content;
                book.activeCellIndex = book.widgets.findIndex(
                    cell => cell === book.widgets.filter(c => c.model.type === 'code')[index]);
                await window.jupyterapp.commands.execute('notebook:run-cell'); }}""",
            index,
        )
        self.wait_idle(timeout)

    def wait_idle(self, timeout: float = 60) -> None:
        """Until the kernel is idle and no cell waits or runs, seen three times in a row."""
        busy = f"""() => {{ {PANEL}
            const kernel = panel.sessionContext.session.kernel;
            return kernel.status !== 'idle' || kernel.hasPendingInput ||
                panel.content.widgets.some(cell => cell.model.type === 'code' &&
                    (cell.model.executionState === 'running' || /\\*/.test(cell.node.querySelector(
                        '.jp-InputPrompt')?.textContent ?? ''))); }}"""
        deadline, quiet = time.monotonic() + timeout, 0
        while quiet < 3:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is still busy after {timeout} s")
            self.page.wait_for_timeout(80)
            quiet = 0 if self.page.evaluate(busy) else quiet + 1
        expect(self.page.get_by_text("Loading widget...")).to_have_count(0)  # later than the kernel

    def output_errors(self) -> list[str]:
        """Every error, stderr text and visible alert on the page."""
        in_model = self.page.evaluate(
            f"""() => {{ {PANEL} const found = [];
                for (const cell of panel.content.widgets) {{
                    for (const output of cell.model.outputs?.toJSON() ?? []) {{
                        if (output.output_type === 'error') found.push(output.ename + ': ' + output.evalue);
                        if (output.name === 'stderr') found.push([output.text].flat().join(''));
                    }} }}
                return found; }}"""
        )
        selector = "[role=alert], .jp-OutputArea-output[data-mime-type*=error]"
        shown = [t for t in self.page.locator(selector).all_inner_texts() if t.strip()]
        return [text[:500] for text in (*in_model, *shown)]

    def evaluate(self, expression: str) -> object:
        """The JSON value of a Python expression in the notebook's kernel."""
        text = self.page.evaluate(
            f"""async code => {{ {PANEL}
                const future = panel.sessionContext.session.kernel.requestExecute(
                    {{code: '', silent: true, user_expressions: {{value: code}}}});
                const value = (await future.done).content.user_expressions.value;
                return value.status === 'ok' ? value.data['text/plain'] : 'ERROR ' + value.evalue; }}""",
            f"__import__('json').dumps({expression})",
        )
        if text.startswith("ERROR"):
            raise ValueError(f"{expression}: {text}")
        return json.loads(ast.literal_eval(text))

    def comes(self, expression: str, wanted: object) -> object:
        """``comes`` of ``evaluate(expression)``: the kernel hears of a key later than the page."""
        return comes(lambda: self.evaluate(expression), wanted, expression)

    def height(self) -> float:
        """Pixels that the cells take, one below the other, as the page stands."""
        return self.page.evaluate(
            f"""() => {{ {PANEL} return panel.content.widgets
                .reduce((sum, cell) => sum + cell.node.getBoundingClientRect().height, 0); }}"""
        )

    def predict(self, exercise: Locator) -> str:
        """Answer an exercise by the keyboard alone, its first option or 1; what it then says."""
        field = exercise.locator("input").first
        field.press("1" if field.get_attribute("type") == "number" else "Space")
        field.press("Enter")
        told = exercise.get_by_role("status")
        expect(told).not_to_be_empty()  # Python judges, and may be busy
        return told.inner_text()

    def controls(self) -> list[Locator]:
        """Every visible, enabled control in the outputs."""
        every = (
            self.page.locator(", ".join(CONTROLS)).and_(self.page.locator(":not(.labkit-explicit *)")).all()
        )
        return [control for control in every if control.is_visible() and control.is_enabled()]

    def move(self, control: Locator) -> tuple[str, str]:
        """Move a control by the keyboard; what failed to change: ("trait", "picture"), "" where it did."""
        control.scroll_into_view_if_needed()
        # An earlier control's picture may still be on its way.
        picture = settled(lambda: control.evaluate(PICTURE), 0.06)
        before = self.evaluate(TRAITS)
        control.focus()
        kind = control.get_attribute("type") or control.evaluate("node => node.tagName")
        keys = {
            "checkbox": ["Space"],
            "SELECT": ["ArrowDown", "ArrowUp"],
            "number": ["ArrowUp", "ArrowDown"],
        }
        for key in keys.get(kind, ["ArrowRight", "ArrowLeft"]):
            place = control.evaluate(POSITION)
            self.page.keyboard.press(key)
            if kind == "number":
                self.page.keyboard.press("Enter")
            if control.evaluate(POSITION) != place:
                break
        # Look at the page first: code run in the kernel ends with showing every open figure, half-drawn
        # ones of a callback in its own thread (JupyterLab's comms over subshells) too.
        trait, shown = "trait", "picture"
        deadline = time.monotonic() + PATIENCE
        while shown and time.monotonic() < deadline:
            self.page.wait_for_timeout(80)
            shown = "" if control.evaluate(PICTURE) != picture else "picture"
        deadline = time.monotonic() + PATIENCE  # its own: a still picture says nothing of the trait
        while trait and time.monotonic() < deadline:
            self.page.wait_for_timeout(80)
            trait = "" if self.evaluate(TRAITS) != before else "trait"
        return trait, shown

    def change_theme(self, theme: str) -> None:
        """Switch this open page to "light" or "dark"."""
        flag = str(theme == "light").lower()
        if self.page.locator(f"body[data-jp-theme-light={flag}]").count():
            return
        execute = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        self.page.evaluate(execute, THEMES[theme])
        self.page.wait_for_selector(f"body[data-jp-theme-light={flag}]", state="attached")
        self.page.locator("#main").wait_for()  # JupyterLab hides it for a frame
        drawn(self.page)

    def screenshot_instruments(self, name: str) -> list[Path]:
        """Every instrument at 1280 and 1920 pixels, light and dark: for people to look at."""
        made = []
        for theme in THEMES:
            self.change_theme(theme)
            for width in (1280, 1920):
                self.page.set_viewport_size({"width": width, "height": 1400})
                for index, panel in enumerate(self.page.locator(INSTRUMENTS).all()):
                    if panel.is_visible():
                        panel.scroll_into_view_if_needed()
                        made.append(self.screenshot(f"{name}_{index}_{theme}_{width}", panel))
        return made

    def comms(self) -> dict[str, int]:
        """How many widget channels are open in the kernel, and how many the page holds."""
        kernel = "len(__import__('comm').get_comm_manager().comms)"
        page = f"() => {{ {PANEL} return panel.sessionContext.session.kernel._comms.size; }}"
        return {"kernel": self.evaluate(kernel), "page": self.page.evaluate(page)}

    def screenshot(self, name: str, locator: Locator | None = None) -> Path:
        """runs/browser/<name>.png of the page, or of one element."""
        path = PICTURES / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (locator or self.page).screenshot(path=str(path))
        return path

    def close(self) -> None:
        """Close the notebook and shut its kernel down, so that the next one has the machine to itself."""
        self.page.evaluate(
            f"""async () => {{ {PANEL}
                document.querySelectorAll('.jp-Dialog .jp-mod-accept').forEach(button => button.click());
                panel.context.model.dirty = false;  // or JupyterLab asks whether to save it
                panel.close();
                while (!panel.isDisposed) await new Promise(requestAnimationFrame); }}"""
        )
        self.page.remove_listener("console", self._keep)
        self.page.remove_listener("pageerror", self._keep_uncaught)
        for session in self.lab.ask("GET", "/api/sessions"):
            if session["path"] == self.name:
                self.lab.ask("DELETE", f"/api/sessions/{session['id']}")
