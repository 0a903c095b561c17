"""OpenAI responses: `input_tokens` includes the cached ones, `output_tokens` the reasoning."""

from __future__ import annotations

import time

from ..records import TokenUsage
from .openai_chat import error_object
from .replies import ErrorReply, Reply, split
from .wire import ID, Events, Json, call_id, dumps


def usage_object(usage: TokenUsage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _output(reply: Reply, status: str) -> list[Json]:
    """The items of a finished answer, in the order in which they are said."""
    items: list[Json] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        items.append({"id": f"rs_{ID}", "type": "reasoning", "summary": summary})
    if reply.text or not reply.tool_calls:
        message = {"id": f"msg_{ID}", "type": "message", "status": status, "role": "assistant"}
        items.append({**message, "content": [_text_part(reply.text)]})
    for number, tool in enumerate(reply.tool_calls):
        items.append(
            {
                "id": f"fc_{ID}_{number}",
                "type": "function_call",
                "status": status,
                "arguments": dumps(tool.arguments).decode(),
                "call_id": call_id("call", number, tool.id),
                "name": tool.name,
            }
        )
    return items


def _response(model: str, status: str, output: list[Json], usage: TokenUsage | None) -> Json:
    return {
        "id": f"resp_{ID}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if usage is None else usage_object(usage),
        "user": None,
        "metadata": {},
    }


def _status(reply: Reply) -> str:
    return "incomplete" if reply.ending == "length" else "completed"


def document(reply: Reply, usage: TokenUsage, model: str) -> Json:
    status = _status(reply)
    return _response(model, status, _output(reply, status), usage)


def events(reply: Reply, usage: TokenUsage, model: str) -> Events:
    out = Events()
    status = _status(reply)

    def say(name: str, fields: Json, *, piece: bool = False) -> None:
        out.add({"type": name, "sequence_number": len(out.frames), **fields}, name, piece=piece)

    begun = _response(model, "in_progress", [], None)
    say("response.created", {"response": begun})
    say("response.in_progress", {"response": begun})
    done = _output(reply, status)
    for place, item in enumerate(done):
        at: Json = {"output_index": place}
        here: Json = {"item_id": item["id"], **at}
        if item["type"] == "message":
            part: Json = {**here, "content_index": 0}
            say("response.output_item.added", {**at, "item": {**item, "status": "in_progress", "content": []}})
            say("response.content_part.added", {**part, "part": _text_part("")})
            for text in reply.pieces:
                say("response.output_text.delta", {**part, "delta": text, "logprobs": []}, piece=True)
            say("response.output_text.done", {**part, "text": reply.text, "logprobs": []})
            say("response.content_part.done", {**part, "part": _text_part(reply.text)})
        elif item["type"] == "function_call":
            said = item["arguments"]
            say(
                "response.output_item.added",
                {**at, "item": {**item, "status": "in_progress", "arguments": ""}},
            )
            for text in split(said, reply.chunks):
                say("response.function_call_arguments.delta", {**here, "delta": text}, piece=True)
            say("response.function_call_arguments.done", {**here, "name": item["name"], "arguments": said})
        else:
            part = {**here, "summary_index": 0}
            say("response.output_item.added", {**at, "item": {**item, "summary": []}})
            say(
                "response.reasoning_summary_part.added",
                {**part, "part": {"type": "summary_text", "text": ""}},
            )
            say("response.reasoning_summary_text.delta", {**part, "delta": reply.thinking})
            say("response.reasoning_summary_text.done", {**part, "text": reply.thinking})
            say("response.reasoning_summary_part.done", {**part, "part": item["summary"][0]})
        say("response.output_item.done", {**at, "item": item})
    say(f"response.{status}", {"response": _response(model, status, done, usage)})
    return out


def error_event(error: ErrorReply) -> bytes:
    body = error_object(error)["error"]
    fields = {
        "type": "error",
        "code": body["code"] or body["type"],
        "message": body["message"],
        "param": None,
    }
    return b"event: error\ndata: %s\n\n" % dumps({**fields, "sequence_number": 0})
