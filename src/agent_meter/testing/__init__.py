"""Helpers for tests of metered agents: a provider on 127.0.0.1, a clock that stands still, a watching plugin.

No network, no key, nothing to install.
"""

from __future__ import annotations

from .clock import FakeClock
from .provider import LoopbackProvider
from .recording import RecordingPlugin
from .replies import Answer, Cut, ErrorReply, Hang, Reply, ToolCall
from .request import Request

__all__ = [
    "Answer",
    "Cut",
    "ErrorReply",
    "FakeClock",
    "Hang",
    "LoopbackProvider",
    "RecordingPlugin",
    "Reply",
    "Request",
    "ToolCall",
]
