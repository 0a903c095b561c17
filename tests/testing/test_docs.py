from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-agent.md"


def test_the_examples_of_the_how_to_page_are_tests_that_pass(tmp_path: Path) -> None:
    """Put into one file and run by pytest, as the page tells its reader to do."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    examples = "\n\n".join(blocks)
    (tmp_path / "test_page.py").write_text(examples, encoding="utf-8")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    count = examples.count("def test_")
    assert count > 5
    assert f"{count} passed" in run.stdout, run.stdout


def test_the_page_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[-2:] == ["Verify", "Troubleshoot"]
