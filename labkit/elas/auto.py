"""AutoConfig and AutoModelForCausalLM open saved ELAS folders once labkit.elas has been imported.

AutoConfig.register needs the class, whose import takes torch and transformers: 4.2 s of one core, where
``import labkit.elas`` takes 0.15 s. So transformers' table of names gets the name when it is imported, and
looks it up in labkit.elas at the first ``"model_type": "elas"``; model.py registers the rest.
"""

import sys
from importlib.util import find_spec
from typing import Any

TABLE = "transformers.models.auto.configuration_auto"


def register() -> None:
    """Enter "elas" in transformers' table of configurations: now, or when transformers is imported."""
    if TABLE in sys.modules:
        _enter(sys.modules[TABLE])
    else:
        sys.meta_path.insert(0, _OnImport)


def _enter(table: Any) -> None:
    table.CONFIG_MAPPING_NAMES["elas"] = "ElasConfig"
    table.CONFIG_MAPPING._modules["elas"] = sys.modules["labkit.elas"]


class _OnImport:
    """Enters "elas" right after the table has been executed."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != TABLE:
            return None
        sys.meta_path.remove(cls)
        spec: Any = find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(table: Any) -> None:
            execute(table)
            _enter(table)

        spec.loader.exec_module = exec_module
        return spec
