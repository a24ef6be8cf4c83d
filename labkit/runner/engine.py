"""Papermill's engine with an upper size for what a notebook prints."""

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

NAME = "labkit"
PRINTED = 10_000_000  # characters, all cells of a notebook
CUT = "\n[cut by labkit: a notebook may print {:,} characters]\n"


class Client(PapermillNotebookClient):
    """Keeps the first ``PRINTED`` characters of the streams; results, figures and errors are all kept."""

    room: int | None = None  # characters; None: the notebook has not printed yet

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int):
        if msg["msg_type"] == "stream":
            room, text = PRINTED if self.room is None else self.room, msg["content"]["text"]
            if room < 0:
                return None
            if len(text) > room:
                msg["content"]["text"] = text[:room] + CUT.format(PRINTED)
            self.room = -1 if len(text) > room else room - len(text)
        return super().output(outs, msg, display_id, cell_index)


class Engine(NBClientEngine):
    """What papermill's own engine does, with ``Client``."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, start_timeout, input_path="", **options):
        options |= {"startup_timeout": start_timeout, "log": logger, "timeout": None}
        return Client(nb_man, kernel_name=kernel_name, **options).execute()


papermill_engines.register(NAME, Engine)
