"""What this package wrote itself: documents of records, bare or in CloudEvents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..encoding import from_document
from ..records import Record
from .building import NotACall


def record(document: Mapping[str, Any], _: object = None) -> Record:
    return from_document(document)


def event(document: Mapping[str, Any], _: object = None) -> Record:
    if not str(document.get("type", "")).startswith("dev.agent_meter."):
        raise NotACall
    return from_document(document["data"])
