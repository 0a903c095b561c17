"""The ledger's pages say what is so."""

from tests.pages import read, run_examples

from agent_meter.store import PostgresStore, SQLiteStore, Store, cells, schema
from agent_meter.store.base import SharedStore


def test_how_to_keep_a_ledger(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run_examples("how-to/keep-a-ledger.md")["audit"].ok


def test_the_reference_names_every_method():
    page = read("reference/store.md")
    for protocol in (Store, SharedStore):
        for name in (name for name in vars(protocol) if not name.startswith("_")):
            assert f"`{name}(" in page or f"`{name}`" in page, name
    for store in (SQLiteStore, PostgresStore):
        for option in store.__init__.__kwdefaults__:
            assert f"{option}=" in page, option


def test_the_explanation_names_every_cube_and_limit():
    page = read("explanation/ledger.md")
    for cube in cells.CUBES:
        assert ", ".join(cube.dimensions) in page or cube.dimensions == ("user",)
    assert f"{cells.MAX_CELLS:,} cells" in page
    for table in ("record", "cell", "cell_unit", "tool_day", "tool_bucket", "dead", "meta"):
        assert f"`{table}`" in read("reference/store.md")
        assert any(f"CREATE TABLE {table} " in step for step in schema.tables(dict.fromkeys(
            ("text", "int", "real", "big", "money", "exact"), "INT"), ""))  # fmt: skip
