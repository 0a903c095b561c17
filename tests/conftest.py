"""What every test may ask for, and the guard that none of them leaves this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.corpus import conversations, replay_server

from agent_meter.testing import LoopbackProvider

# ------------------------------------------------------------------------------------------------ providers


@pytest.fixture
def loopback() -> Iterator[Callable[..., LoopbackProvider]]:
    """Makes running providers, `loopback(script, loop=…)`, and stops them after the test."""
    running: list[LoopbackProvider] = []

    def start(*args: Any, **options: Any) -> LoopbackProvider:
        running.append(LoopbackProvider(*args, **options).start())
        return running[-1]

    yield start
    for provider in running:
        provider.stop()


@pytest.fixture(scope="session")
def corpus() -> dict[str, dict[str, Any]]:
    """The recorded conversations by id."""
    return {document["id"]: document for document in conversations()}


@pytest.fixture(scope="session")
def _replaying() -> Iterator[Any]:
    with replay_server() as server:
        yield server


@pytest.fixture
def replay(_replaying: Any) -> Any:
    """The server of recorded traffic, every conversation at its start; `replay.base_url(id)` is for the client."""
    _replaying.reset()
    return _replaying


# ---------------------------------------------------------------------------------------------------- guard


class SurpriseNetwork(OSError):
    """A test tried to leave this machine. An `OSError`, so that the code under test sees a network that is down."""


_attempts: list[str] = []


def _address(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that is written there; None for a name."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _local(host: object) -> bool:
    if host is None or host in ("", b"", "localhost", b"localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _refuse(what: str) -> None:
    _attempts.append(what)
    raise SurpriseNetwork(f"tests stay on this machine, but this one tried to {what}")


@pytest.fixture(scope="session", autouse=True)
def _no_surprise_network() -> Iterator[None]:
    """Let sockets reach 127.0.0.0/8, ::1 and Unix sockets, and nothing else; names are not looked up either."""
    real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    look_up = socket.getaddrinfo

    def guarded(name: str) -> Callable[..., Any]:
        def method(self: socket.socket, *args: Any) -> Any:
            address = args[-1]  # sendto(data, [flags,] address); connect(address)
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]):
                _refuse(f"{name} to {address[0]}:{address[1]}")
            return real[name](self, *args)

        return method

    def guarded_look_up(host: Any, *args: Any, **options: Any) -> Any:
        if not _local(host) and _address(host) is None:
            _refuse(f"look up {host}")
        return look_up(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(socket.socket, name, guarded(name))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        for name in ("NO_PROXY", "no_proxy"):  # a developer's proxy is no way to 127.0.0.1
            patch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"])))
        yield


@pytest.fixture
def network_attempts() -> list[str]:
    """What this test tried to reach outside. A test that asks for the list judges it itself; others fail on it."""
    return _attempts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail the test itself, for whoever met the refusal may have taken it for a network that is down."""
    del _attempts[:]
    result = yield
    if _attempts and "network_attempts" not in getattr(item, "fixturenames", ()):
        pytest.fail(f"tests stay on this machine, but this one tried to {'; '.join(_attempts)}", pytrace=False)
    return result
