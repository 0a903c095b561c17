"""`python -m agent_meter` is the command `agent-meter`."""

from .cli import main

main()
