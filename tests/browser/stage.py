"""One instrument on a bare page: the real state and script of a Python widget, a model without a kernel."""

import base64
import json

from browser.lab import drawn
from playwright.sync_api import Page

# JupyterLab's dark theme, as far as the instruments read it.
DARK = {
    "--jp-layout-color0": "#111111", "--jp-layout-color1": "#212121", "--jp-ui-font-color0": "#ffffff",
    "--jp-ui-font-color2": "#b3b3b3", "--jp-border-color2": "#424242", "--jp-brand-color1": "#64b5f6",
}  # fmt: skip
MODEL = """
window.model = {
  state: {}, sent: {}, calls: {}, saved: 0,
  get(name) { return this.state[name]; },
  set(name, value) {
    const same = JSON.stringify(this.state[name]) === JSON.stringify(value);
    if (same && !(value instanceof DataView)) return;
    this.state[name] = value;
    this.sent[name] = value;
    this.fire(name);
  },
  fire(name) { for (const call of [...(this.calls['change:' + name] ?? [])]) call(); },
  on(name, call) { (this.calls[name] ??= []).push(call); },
  off(name, call) { this.calls[name] = (this.calls[name] ?? []).filter((one) => one !== call); },
  save_changes() { this.saved += 1; },
  send() {},
};
window.start = async (state, bytes, script) => {
  model.state = state;
  for (const [name, text] of Object.entries(bytes))
    model.state[name] = new DataView(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const url = URL.createObjectURL(new Blob([script], {type: 'text/javascript'}));
  const {default: widget} = await import(url);
  window.close_widget = await widget.render({model, el: document.querySelector('#stage')});
};
"""


def stage(page: Page, widget, *, dark: bool = False) -> list[str]:
    """Show ``widget`` on ``page``; returns the list into which the page's errors go."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    state = {name: value for name, value in widget.get_state().items() if name not in ("layout", "style")}
    bytes_ = {
        name: base64.b64encode(value).decode()
        for name, value in state.items()
        if isinstance(value, bytes | memoryview)
    }
    plain = {name: value for name, value in state.items() if name not in bytes_}
    variables = ";".join(f"{name}:{value}" for name, value in DARK.items()) if dark else ""
    page.set_content(
        f"<!doctype html><html style='{variables};background:{'#111' if dark else '#fff'}'>"
        f"<style>{widget._css}</style><body><div id=stage></div></body></html>"
    )
    page.add_script_tag(content=MODEL)
    page.evaluate(
        "([state, bytes, script]) => start(state, bytes, script)",
        [json.loads(json.dumps(plain)), bytes_, widget._esm],
    )
    drawn(page)
    return errors


def frames(page: Page, move: str, count: int = 120) -> list[float]:
    """Milliseconds between frames while each runs ``move``, a function of the frame's number."""
    return page.evaluate(
        f"""() => new Promise((done) => {{
            const times = []; let last = performance.now(), number = 0; const move = {move};
            const next = (now) => {{
                times.push(now - last); last = now;
                if (number === {count}) return done(times.slice(1));
                move(number++); requestAnimationFrame(next);
            }};
            requestAnimationFrame(next); }})"""
    )
