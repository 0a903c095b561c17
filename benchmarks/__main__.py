"""All figures, one after the other: `make bench`."""

from __future__ import annotations

from . import accuracy, core, imports, overhead, pricing


def main() -> None:
    for figures in (imports, core, pricing, overhead, accuracy):
        figures.main()


if __name__ == "__main__":
    main()
