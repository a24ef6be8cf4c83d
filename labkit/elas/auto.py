"""AutoConfig and AutoModelForCausalLM open saved ELAS folders once labkit.elas has been imported.

AutoConfig.register wants the class, and with it seconds of importing; so transformers' table of names gets
the name, and looks it up in labkit.elas when it first meets ``"model_type": "elas"``. Loading ElasConfig
then registers the model (model.py).
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType

TABLE = "transformers.models.auto.configuration_auto"


def register() -> None:
    """Enter "elas" in transformers' table of configurations: now, or when transformers is imported."""
    if TABLE in sys.modules:
        _enter(sys.modules[TABLE])
    else:
        sys.meta_path.insert(0, _Waiting())


def _enter(table: ModuleType) -> None:
    table.CONFIG_MAPPING_NAMES["elas"] = "ElasConfig"
    table.CONFIG_MAPPING._modules["elas"] = sys.modules["labkit.elas"]


class _Waiting(MetaPathFinder):
    """Sees the table being imported and enters "elas" in it."""

    def find_spec(self, name, path=None, target=None):
        if name != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _enter(module)

        spec.loader.exec_module = exec_module
        return spec
