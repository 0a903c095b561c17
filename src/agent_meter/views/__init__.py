"""What people look at: tables for the terminal, and the documents that `--json` prints.

Needs the `cli` extra (rich). Nothing here knows a price or opens a file: views are given what they show.
"""
