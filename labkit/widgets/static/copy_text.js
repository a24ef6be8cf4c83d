// The preset as YAML and as commands, folded away; each can be copied.

function render({ model, el }) {
  const block = (name, label) => {
    const text = make("pre", { tabindex: 0, "aria-label": label });
    const said = make("span", { class: "lk-hint", role: "status" });
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        said.textContent = "copied";
      } catch {
        // Without a secure page there is no clipboard: select the text, so that Ctrl+C takes it.
        const range = document.createRange();
        range.selectNodeContents(text);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        said.textContent = document.execCommand("copy") ? "copied" : "selected: press Ctrl+C";
      }
      setTimeout(() => (said.textContent = ""), 2500);
    };
    const button = make("button", { type: "button", onclick: copy }, `Copy ${label}`);
    return { name, text, node: make("div", { class: "ct-block" }, make("div", { class: "lk-row" }, button, said), text) };
  };
  const blocks = [block("preset", "YAML"), block("command", "commands")];
  const root = make("div", { class: "lk ct" },
    make("details", {}, make("summary", {}, "Copy as preset"), make("div", { class: "ct-blocks" }, ...blocks.map((one) => one.node))));
  const draw = () => {
    palette(root);
    for (const one of blocks) one.text.textContent = model.get(one.name);
  };
  const shell = instrument({ model, el, root, draw, watch: ["preset", "command"] });
  return shell.close;
}

export default { render };
