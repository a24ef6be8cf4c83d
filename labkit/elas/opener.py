"""``urllib.request.urlopen`` with one time limit for an answer's head, however it drips.

A socket's own limit counts from the last byte: interim answers (100 Continue) without end never reach it.
"""

import threading
from concurrent.futures import Future
from http.client import HTTPResponse
from urllib.request import urlopen


def open_within(url: str, seconds: float) -> HTTPResponse:
    """The answer to a GET, its body unread.

    TimeoutError if its head, redirections included, takes more than ``seconds``, and urllib's errors. The
    thread that still waits for it then keeps no process from ending.
    """
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urlopen(url, timeout=seconds))
        except BaseException as error:  # raised below
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():  # its own
            raise
        raise TimeoutError(f"no whole head of an answer in {seconds:g} s") from None
