"""The figures behind the promises. `make bench` runs them all; each module runs alone: `python -m benchmarks.core`."""
