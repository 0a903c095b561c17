"""Tests in environments of their own, for packages that do not live together with the rest.

    python environments/test.py selectools mamba [-- PYTEST ARGUMENTS]

Each folder here that has a `requirements.txt` is one environment: `.venv-NAME` is made from it, unattended, and
`tests/environments/NAME` runs there. Its first line, `# python: >=3.12,<3.14`, says which interpreters will do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
UV = "uv>=0.9,<1"
WINDOWS = os.name == "nt"
NO_TESTS_COLLECTED = 5


def interpreter_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if WINDOWS else "bin/python")


def run(*command: str | Path, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, **options)  # type: ignore[call-overload]


# -------------------------------------------------------------------------------------------- interpreters


def bounds(requirements: Path) -> tuple[tuple[int, int], tuple[int, int], str]:
    """The first and the first too new version of Python that an environment takes, and the words for it."""
    head = requirements.read_text(encoding="utf-8").partition("\n")[0]
    found = re.fullmatch(r"# python: (>=3\.(\d+),<3\.(\d+))", head)
    if found is None:
        sys.exit(f"{requirements}: the first line must read like '# python: >=3.11,<3.14', not {head!r}")
    return (3, int(found[2])), (3, int(found[3])), found[1]


def version_of(python: str | Path) -> tuple[int, int] | None:
    """What an interpreter says it is; None for one that does not run (a shim of a version that is not chosen)."""
    try:
        said = subprocess.run(
            [str(python), "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        major, minor = said.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def find_python(requirements: Path, uv: str | None) -> str | None:
    """An interpreter that will do: this one, one on the PATH, one of pyenv's, or what uv finds or brings."""
    first, too_new, words = bounds(requirements)
    minors = range(too_new[1] - 1, first[1] - 1, -1)
    candidates = [sys.executable]
    candidates += [path for minor in minors if (path := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for minor in minors for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python3"))]
    for candidate in candidates:
        version = version_of(candidate)
        if version is not None and first <= version < too_new:
            return candidate
    if uv is None:
        return None
    said = subprocess.run([uv, "python", "install", "--quiet", words], capture_output=True, cwd=ROOT)
    if said.returncode:
        return None
    found = subprocess.run([uv, "python", "find", words], capture_output=True, text=True, cwd=ROOT)
    return found.stdout.strip() or None


# --------------------------------------------------------------------------------------------- environments


def find_uv() -> str | None:
    """uv, ten times as fast as pip here; put into a place of its own when there is none. None: pip will do it."""
    there = shutil.which("uv")
    if there:
        return there
    venv = ROOT / ".venv-uv"
    ours = interpreter_in(venv).with_name("uv.exe" if WINDOWS else "uv")
    if not ours.exists():
        try:
            run(sys.executable, "-m", "venv", "--clear", venv)
            run(interpreter_in(venv), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", UV)
        except subprocess.CalledProcessError:
            return None
    return str(ours)


def state_of(folder: Path, python: str) -> str:
    """What an environment was made from: another state, another environment."""
    sources = [HERE / "testing.txt", *sorted(folder.glob("*.txt")), ROOT / "pyproject.toml"]
    digest = hashlib.sha256()
    for part in (python, str(ROOT), *(source.read_text(encoding="utf-8") for source in sources)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def set_up(folder: Path, python: str, uv: str | None) -> Path:
    """The interpreter of an environment that has what its folder names, and agent_meter from this tree."""
    venv = ROOT / f".venv-{folder.name.replace('_', '-')}"
    inside = interpreter_in(venv)
    ready, state = venv / ".ready", state_of(folder, python)
    if ready.exists() and ready.read_text(encoding="utf-8") == state and inside.exists():
        return inside
    print(f"setting up {venv.name}", flush=True)
    what = ["-c", folder / "constraints.txt", "-r", folder / "requirements.txt", "-e", ROOT]
    try:
        if uv is None:
            raise FileNotFoundError("uv")
        run(uv, "venv", "--quiet", "--clear", "--python", python, venv)
        run(uv, "pip", "install", "--quiet", "--python", inside, *what)
    except (OSError, subprocess.CalledProcessError):  # pip knows indexes and proxies that uv was not told of
        run(python, "-m", "venv", "--clear", venv)
        run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", *what)
    ready.write_text(state, encoding="utf-8")
    return inside


def main(arguments: list[str]) -> int:
    names, given = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        names, given = arguments[:cut], arguments[cut + 1 :]
    known = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))
    if not names or set(names) - set(known):
        sys.exit(f"which of {', '.join(known)}? Got: {' '.join(names) or 'nothing'}")
    uv = find_uv()
    failed = []
    for name in names:
        folder = HERE / name
        python = find_python(folder / "requirements.txt", uv)
        if python is None:
            words = bounds(folder / "requirements.txt")[2]
            print(
                f"SKIPPED tests/environments/{name}: no Python {words} here. Install one, for example with "
                f"`apt install python3.13-venv`, `pyenv install 3.12` or `uv python install 3.12`.",
                flush=True,
            )
            if os.environ.get("CI", "").lower() == "true":
                failed.append(name)
            continue
        inside = set_up(folder, python, uv)
        print(f"tests/environments/{name}", flush=True)
        done = subprocess.run([str(inside), "-m", "pytest", f"tests/environments/{name}", *given], cwd=ROOT)
        if done.returncode and not (given and done.returncode == NO_TESTS_COLLECTED):
            failed.append(name)
    if failed:
        print(f"failed in: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
