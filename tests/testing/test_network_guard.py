"""The guard of tests/conftest.py."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agent_meter.testing import LoopbackProvider

OUTSIDE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nobody is there


def test_connecting_to_another_machine_is_refused_at_once(network_attempts: list[str]) -> None:
    with socket.socket() as client, pytest.raises(OSError, match=r"tried to connect to 192\.0\.2\.1:80"):
        client.connect((OUTSIDE, 80))

    assert network_attempts == ["connect to 192.0.2.1:80"]


def test_names_are_not_looked_up(network_attempts: list[str]) -> None:
    with pytest.raises(urllib.error.URLError, match=r"tried to look up example\.com"):
        urllib.request.urlopen("http://example.com/", timeout=5)

    assert network_attempts == ["look up example.com"]


async def test_asyncio_is_guarded_too(network_attempts: list[str]) -> None:
    with pytest.raises(OSError, match="tests stay on this machine"):
        await asyncio.open_connection(OUTSIDE, 443)

    assert len(network_attempts) == 1


def test_datagrams_are_guarded_too(network_attempts: list[str]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(OSError, match="tried to sendto"):
        client.sendto(b"x", (OUTSIDE, 53))

    assert len(network_attempts) == 1


def test_loopback_is_free(network_attempts: list[str]) -> None:
    with LoopbackProvider() as provider, urllib.request.urlopen(f"{provider.url}/v1/models") as response:
        assert response.status == 200

    assert network_attempts == []


def test_unix_sockets_are_free(network_attempts: list[str]) -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        left.sendall(b"x")

        assert right.recv(1) == b"x"
    assert network_attempts == []


def test_an_attempt_that_the_code_swallows_still_fails_its_test(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "conftest.py").write_text((root / "tests/conftest.py").read_text())
    (tmp_path / "test_swallows.py").write_text(
        """
import socket

def test_it():
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=5)
    except OSError:
        pass
"""
    )

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )

    assert "1 failed" in run.stdout
    assert "tests stay on this machine, but this one tried to connect to 192.0.2.1:80" in run.stdout
