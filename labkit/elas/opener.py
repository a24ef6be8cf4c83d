"""``urllib.request.urlopen`` with one time limit for a whole answer's head, however it drips.

A socket's own limit counts from the last byte: interim answers (100 Continue) without end never reach it.
"""

import socket
import threading
from http.client import HTTPResponse
from typing import Any
from urllib.request import AbstractHTTPHandler, HTTPHandler, HTTPSHandler, build_opener


def open_within(url: str, seconds: float) -> HTTPResponse:
    """The answer to a GET, its body unread.

    TimeoutError if one head takes more than ``seconds``; urllib's errors. Redirections count anew.
    """
    return build_opener(_Http(), _Https()).open(url, timeout=seconds)


class _Limited(AbstractHTTPHandler):
    """For a handler of urllib: the connections that it opens have the request's limit for their heads."""

    def do_open(self, http_class: Any, req: Any, **options: Any) -> HTTPResponse:
        class Connection(http_class):
            def getresponse(self) -> HTTPResponse:
                late = threading.Event()

                def cut(connected: socket.socket) -> None:
                    late.set()
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)  # below TLS: the reader wakes

                timer = threading.Timer(req.timeout, cut, [self.sock])
                timer.daemon = True
                timer.start()
                try:
                    return super().getresponse()
                finally:
                    timer.cancel()
                    if late.is_set():
                        raise TimeoutError(f"no whole head of an answer in {req.timeout:g} s")

        return super().do_open(Connection, req, **options)


class _Http(_Limited, HTTPHandler):
    """http:"""


class _Https(_Limited, HTTPSHandler):
    """https:"""
