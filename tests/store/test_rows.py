"""A record comes back from a ledger as it went in."""

import msgspec
from hypothesis import given

from agent_meter import RunRecord, ToolRecord, UsageRecord
from agent_meter.store.rows import NAMES, as_stored, record_of, row_of

from ..test_encoding import calls
from .traffic import metered


@given(calls, calls)
def test_a_model_call_comes_back_as_it_was(record, corrected):
    corrected = msgspec.structs.replace(corrected, id=record.id)
    record = msgspec.structs.replace(record, corrects=corrected)

    back = record_of(row_of(record))

    assert back == record or "\\x00" in repr(record), "no database takes NUL in a text"
    assert record_of(row_of(back)) == back


def test_so_do_tools_and_runs():
    _, records = metered(100)
    for record in records:
        back = record_of(row_of(record))
        for name in record.__struct_fields__:
            if name != "params":
                assert getattr(back, name) == getattr(record, name)
        assert len(row_of(record)) == len(NAMES)


def test_every_field_of_a_record_has_its_place():
    """Whoever adds a field to a record must give it a place in `rows.py`, and then here."""
    assert (len(UsageRecord.__struct_fields__), UsageRecord.__struct_fields__[-1]) == (31, "attempts")
    assert (len(ToolRecord.__struct_fields__), ToolRecord.__struct_fields__[-1]) == (20, "kind")
    assert (len(RunRecord.__struct_fields__), RunRecord.__struct_fields__[-1]) == (18, "tags")


def test_text_that_no_database_takes_is_cleaned():
    record = metered(5)[1][0]
    dirty = msgspec.structs.replace(record, agent="a\0b", user="x" * 5000, session="\ud800")

    stored = record_of(row_of(dirty))

    assert (stored.agent, len(stored.user), stored.session) == ("ab", 1000, "?")
    assert as_stored(dirty, row_of(dirty)) == stored
    assert as_stored(record, row_of(record)) is record
