"""All figures, one after the other: `make bench`. Accuracy needs the recorded traffic (`AGENT_METER_CORPUS`)."""

from __future__ import annotations

import os

from . import accuracy, accuracy_wire, core, imports, overhead, overhead_llama_index, pricing, store


def main() -> None:
    for figures in (imports, core, pricing, overhead, overhead_llama_index):
        figures.main()
    store.main("200_000")
    if os.environ.get("AGENT_METER_CORPUS"):
        accuracy.main()
        accuracy_wire.main()
    else:
        print("\naccuracy: left out, AGENT_METER_CORPUS does not name the folder of recorded traffic")


if __name__ == "__main__":
    main()
