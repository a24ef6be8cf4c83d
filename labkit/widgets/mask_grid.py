"""mask_grid: a 2:4 mask under the pointer, with the bits that store it and the kernel that made it checked.

The trace stays in Python; the browser holds as many layers as fit in BUDGET and draws from them without
asking. Going to a layer it does not hold fetches that one and its neighbours.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from traitlets import Bool, Bytes, Dict, Float, Int, List, Unicode, observe

from labkit import checks
from labkit.figures import masks
from labkit.traces import MaskTrace
from labkit.widgets.base import error_text, present, static
from labkit.widgets.esm import esm
from labkit.widgets.export import NOTEBOOK, Instrument
from labkit.widgets.mask_pack import pack_rows

BUDGET = 880_000  # bytes of values and metadata in the widget's state, which must stay under 1 MB
LETTERS = 400  # signs of a text of the reader's own
LISTED = 500  # differing groups that are sent one by one; the count is always exact


class MaskGrid(Instrument):
    """The live instrument; ``mask_grid`` makes it. Set ``step, layer, token, feature`` to move its cursor.

    values, metadata   the planes (step * layers + layer) listed in ``held``: signed float16 roots of
                       the activations divided by ``scales``; packed position bits as in sparse24's rows
    natural, enforced, difference   what is marked
    compared           result of the kernel against the reference, or why there is none
    """

    _entry = "mask_grid.js"
    _esm = esm(_entry)
    _css = static("instrument.css", "mask_grid.css")
    steps = List(Unicode()).tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)
    left_out = Int(0).tag(sync=True)  # tokens at the end that do not fit in the state
    layers = Int(1).tag(sync=True)
    features = Int(4).tag(sync=True)
    shares = List(Dict()).tag(sync=True)
    step = Int(0).tag(sync=True)
    layer = Int(0).tag(sync=True)
    token = Int(0).tag(sync=True)
    feature = Int(0).tag(sync=True)
    natural = Bool(True).tag(sync=True)
    enforced = Bool(True).tag(sync=True)
    difference = Bool(False).tag(sync=True)
    held = List(Int()).tag(sync=True)
    scales = List(Float()).tag(sync=True)
    values = Bytes().tag(sync=True)
    metadata = Bytes().tag(sync=True)
    compared = Dict().tag(sync=True)
    problem = Unicode().tag(sync=True)
    longest = Int(0).tag(sync=True)  # signs of a text of the reader's own; 0: none can be read

    def __init__(
        self,
        traces: Mapping[str, MaskTrace],
        read: Callable[[str], MaskTrace] | None = None,
        **state: object,
    ):
        self._read = read
        super().__init__(**self._contents(traces), longest=LETTERS if read else 0, **state)
        self._follow()
        self.on_msg(lambda _widget, content, _buffers: self._answer(content))

    def _contents(self, traces: Mapping[str, MaskTrace]) -> dict[str, Any]:
        """The traits that do not depend on the cursor."""
        self._traces = list(traces.values())
        layers, tokens, features = self._traces[0].activations.shape
        row = 2 * features + -(-features // 8)
        if row > BUDGET:
            checks.fail("trace", features, f"of at most {BUDGET * 8 // 17} features")
        fit = min(tokens, BUDGET // row)
        self._per_plane, self._fit = fit * row, fit
        return {
            "steps": list(traces), "tokens": self._traces[0].tokens[:fit], "left_out": tokens - fit,
            "layers": layers, "features": features, "held": [],
            "shares": [share for trace in self._traces for share in _shares(trace)],
            "compared": _compare([trace.activations[:, :fit] for trace in self._traces]),
        }  # fmt: skip

    def _answer(self, content: dict[str, Any]) -> None:
        """The mask of a text that someone typed takes the place of the one shown."""
        if "text" not in content or self._read is None:
            return
        try:
            text = content["text"]
            if not isinstance(text, str) or not 0 < len(text.strip()) <= len(text) <= LETTERS:
                checks.fail("text", text, f"of 1 to {LETTERS} signs")
            contents = self._contents({"": self._read(text)})
            with self.hold_sync():
                self.token = min(self.token, len(contents["tokens"]) - 1)
                self.step = 0
                for name, value in contents.items():
                    setattr(self, name, value)
                self._follow()
        except Exception as error:  # in a callback it would vanish
            self.problem = error_text(error)

    @observe("step", "layer")
    def _follow(self, change: object = None) -> None:
        """Hold the plane that is looked at; what goes wrong is shown in the instrument."""
        try:
            checks.integer("step", self.step, 0, len(self._traces) - 1)
            plane = self.step * self.layers + checks.integer("layer", self.layer, 0, self.layers - 1)
            if plane not in self.held:
                self._hold(plane)
            self.problem = ""
        except ValueError as error:
            self.problem = error_text(error)

    def _hold(self, plane: int) -> None:
        with self.hold_sync():
            for name, value in self._around(plane, BUDGET).items():
                setattr(self, name, value)

    def _around(self, plane: int, room: int) -> dict[str, Any]:
        """The traits that hold as many planes as ``room`` bytes allow, ``plane`` in the middle."""
        total = len(self._traces) * self.layers
        count = min(total, max(1, room // self._per_plane))
        first = min(max(0, plane - count // 2), total - count)
        values, metadata, scales = zip(*(self._plane(i) for i in range(first, first + count)), strict=True)
        return {
            "held": list(range(first, first + count)), "scales": list(scales),
            "values": b"".join(values), "metadata": b"".join(metadata),
        }  # fmt: skip

    def still(self) -> list[object]:
        trace, place = self._traces[self.step], (self.layer, self.token, self.feature)
        figure = masks.mask_grid(trace, self.layer, self.token, self.feature // 4)
        return [figure, describe(trace, *place), sentence(self.compared)]

    def heading(self) -> str:
        return f"2:4 mask of {self.layers} layers, {len(self.tokens)} tokens, {self.features} features"

    def frozen(self, room: int) -> tuple[dict[str, Any], str]:
        traits = self._around(self.step * self.layers + self.layer, room) | {"frozen": True, "longest": 0}
        count, total = len(traits["held"]), len(self._traces) * self.layers
        part = f"{count} of {total} layers and steps are in this page; any other {NOTEBOOK}"
        return traits, part if count < total else ""

    def _plane(self, plane: int) -> tuple[bytes, bytes, float]:
        trace = self._traces[plane // self.layers]
        values = trace.activations[plane % self.layers, : self._fit].astype(np.float32)
        finite = np.abs(values[np.isfinite(values)])
        scale = float(finite.max(initial=0)) or 1.0
        half = (np.sign(values) * np.sqrt(np.abs(values) / scale)).astype("<f2")  # 3 digits down to 4e-9
        half[(half == 0) & (values != 0)] = np.float16(6e-8)  # small is not zero
        return half.tobytes(), pack_rows(trace.kept[plane % self.layers, : self._fit]).tobytes(), scale


def mask_grid(
    trace: MaskTrace | Mapping[str, MaskTrace],
    *,
    layer: int = 0,
    token: int = 0,
    feature: int = 0,
    read: Callable[[str], MaskTrace] | None = None,
    name: str = "mask grid",
) -> MaskGrid | None:
    """Show 2:4 masks to touch, and without a kernel.

    trace    one trace, or {label: trace} of one model at several steps (same tokens and shape)
    layer, token, feature   where the cursor starts
    read     text -> its MaskTrace, for instance ``partial(trace_masks, model, tokenizer=tokenizer)``: then
             a text can be typed
    name     unique in its cell; running the cell again replaces the instrument of that name

    Under the pointer or the arrow keys: the group of four, the pair that is kept, and the bits of the
    packed metadata. The Triton kernel packs the same activations here and now (on the GPU or in
    Triton's interpreter) and every difference from the reference is shown.
    """
    traces = trace if isinstance(trace, Mapping) else {"": trace}
    if not traces or not all(isinstance(item, MaskTrace) for item in traces.values()):
        checks.fail("trace", trace, "a MaskTrace or a mapping of labels to them")
    shapes = {item.activations.shape for item in traces.values()}
    if len(shapes) > 1:
        checks.fail("trace", sorted(shapes), "traces of one shape (layers, tokens, features)")
    for item in traces.values():
        pack_rows(item.kept[:1])
    layers, tokens, features = shapes.pop()
    checks.integer("layer", layer, 0, layers - 1)
    checks.integer("token", token, 0, tokens - 1)
    checks.integer("feature", feature, 0, features - 1)
    place = {"layer": layer, "token": token, "feature": feature}
    return present(lambda: MaskGrid(traces, read, step=len(traces) - 1, **place), name=name)


def describe(trace: MaskTrace, layer: int, token: int, feature: int) -> str:
    """The group of four around one feature in words, with its packed bits."""
    first = feature - feature % 4
    values = trace.activations[layer, token, first : first + 4]
    kept = trace.kept[layer, token, first : first + 4]
    words = [
        f"{value:.4g} {'zero by itself' if value == 0 else 'kept' if keep else 'dropped'}"
        for value, keep in zip(values, kept, strict=True)
    ]
    i0, i1 = np.flatnonzero(kept)
    return (
        f"Layer {layer}, token {trace.tokens[token]!r}, features {first}-{first + 3}: {', '.join(words)}. "
        f"Places {i0} and {i1} are stored: bits {i0 | i1 << 2:04b}."
    )


def sentence(compared: dict) -> str:
    """What the comparison of kernel and reference found."""
    if compared.get("problem"):
        return f"Kernel and reference were not compared: {compared['problem']}."
    words = "all agree bit for bit" if not compared["different"] else f"{compared['different']:,} DIFFER"
    return f"Triton kernel against reference, {compared['groups']:,} groups, {compared['where']}: {words}."


def _shares(trace: MaskTrace) -> list[dict[str, float | None]]:
    """Of each layer; None where NaN or infinity leaves no energy, for JSON has no NaN."""
    columns = {
        "natural": trace.natural_zeros,
        "enforced": trace.enforced_zeros,
        "energy": trace.energy_kept,
        "crowded": trace.crowded_groups,
    }
    return [
        {key: float(value[i]) if np.isfinite(value[i]) else None for key, value in columns.items()}
        for i in range(len(trace.activations))
    ]


def _compare(activations: list[np.ndarray]) -> dict:
    """The kernel against the reference on all that is shown; found: (plane, token, group, nibbles)."""
    from labkit.kernels import compare_packing  # late: it needs torch

    stacked = np.concatenate(activations)
    try:
        result = compare_packing(stacked)
    except RuntimeError as error:
        return {"problem": str(error)}
    wrong = np.flatnonzero(result["differs"])
    places = np.unravel_index(wrong[:LISTED], (*stacked.shape[:2], stacked.shape[2] // 4))
    found = np.stack((*places, *result["nibbles"][:, wrong[:LISTED]]), -1)
    return {
        "where": result["where"],
        "groups": result["groups"],
        "different": len(wrong),
        "found": found.tolist(),
    }
