"""The least of an HTTP/1.1 server: 127.0.0.1 only, a thread for each connection, keep-alive.

Not `http.server`, for its header parser alone costs a multiple of all that is done here, and the overhead of
a meter is measured against this server.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

_LINE = 65_536  # bytes; a longer line is no request of an SDK


class HttpRequest(NamedTuple):
    """A request as it came; `path` without the query, header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Sending(NamedTuple):
    """What to write, the seconds to wait before it and between its parts, and whether to hang up after."""

    parts: Sequence[bytes]
    before: float = 0.0
    between: float = 0.0
    close: bool = False


class LoopbackServer:
    """Answers every request with `answer(request)`, which is called on the connection's own thread."""

    def __init__(self, answer: Callable[[HttpRequest], Sending], port: int = 0) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, name=f"loopback-{self.port}", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Hang up on everybody and wait for the threads; what is told to delay or to hang ends at once."""
        self._stopping.set()
        # accept() is woken by a visitor, for closing its socket does not wake it on every system.
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            self._acceptor.join(5)
        self._listener.close()
        with self._lock:
            connections = list(self._open.items())
        for connection, _ in connections:
            _hang_up(connection)
        for _, thread in connections:
            if thread is not threading.current_thread():
                thread.join(5)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = f"loopback-{self.port}-connection"
            thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
            with self._lock:
                self._open[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as file:
                while not self._stopping.is_set() and self._exchange(connection, file):
                    pass
                _hang_up(connection)
        except (OSError, ValueError):
            pass  # the client went away, or does not speak HTTP
        finally:
            with self._lock:
                del self._open[connection]

    def _exchange(self, connection: socket.socket, file: BinaryIO) -> bool:
        """Answer one request; False when the connection is over."""
        start = file.readline(_LINE).decode("latin-1").split()
        if len(start) != 3:
            return False
        method, target, version = start
        headers: dict[str, str] = {}
        while (line := file.readline(_LINE)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = HttpRequest(method, target.partition("?")[0], headers, _read_body(file, headers))

        sending = self._answer(request)
        if sending.before and self._stopping.wait(sending.before):
            return False
        for place, part in enumerate(sending.parts):
            if place and sending.between and self._stopping.wait(sending.between):
                return False
            connection.sendall(part)
        wants_close = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        return not (sending.close or wants_close)


def _read_body(file: BinaryIO, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        return file.read(int(headers.get("content-length") or 0))
    parts = []
    while size := int(file.readline(_LINE).partition(b";")[0], 16):
        parts.append(file.read(size))
        file.readline(_LINE)
    while file.readline(_LINE) not in (b"\r\n", b"\n", b""):
        pass  # trailers
    return b"".join(parts)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed by the other side
        connection.shutdown(socket.SHUT_RDWR)
