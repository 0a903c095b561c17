"""Files are the old ones or the new ones, never half of one."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from agent_meter.files import write_text


def test_parent_folders_are_made(tmp_path: Path):
    write_text(str(tmp_path / "a" / "b" / "c.txt"), "text")

    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "0" * 100_000)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 10
            write_text(path, str(number) * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [path.read_text() for _ in range(100)]
    finally:
        stop.set()
        writer.join()

    assert {len(text) for text in seen} == {100_000}
    assert all(len(set(text)) == 1 for text in seen)


def test_text_is_written_as_utf_8_without_translation(tmp_path: Path):
    write_text(tmp_path / "a.txt", "größer\n東京\r\n\udc80")

    assert (tmp_path / "a.txt").read_bytes() == "größer\n東京\r\n\\udc80".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links are POSIX here")
def test_permissions_and_links_stay(tmp_path: Path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "real.txt").chmod(0o640)
    (tmp_path / "link.txt").symlink_to("real.txt")

    write_text(tmp_path / "link.txt", "new")

    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev")
def test_a_device_is_written_to_and_not_replaced():
    write_text("/dev/null", "gone")

    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_is_not_replaced(tmp_path: Path):
    (tmp_path / "folder").mkdir()

    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "text")

    assert os.listdir(tmp_path) == ["folder"]
