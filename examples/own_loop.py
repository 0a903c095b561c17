"""An agent loop of your own, metered live. Needs no API key and no network: `python examples/own_loop.py`.

The client is the real one (OpenAI's SDK) and so is the HTTP; only the provider is a small server on 127.0.0.1 that
answers from a script. Leave out `base_url` and nothing else changes.
"""

import json

from openai import InternalServerError, OpenAI

from agent_meter import AgentObserver, Meter, WorkflowHooks
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply, Request, ToolCall

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("search", "calculate")]
meter = Meter()


class Ticker(AgentObserver):
    """One line for each call, as it happens."""

    def on_usage(self, run_id, usage):
        how = "streamed" if usage.streamed else f"attempt {usage.attempt}"
        cost = "nothing billed" if usage.status != "ok" else f"${usage.cost_usd:.6f}"
        print(f"  {usage.model:<12} {usage.total_tokens:>5,} tokens  {cost:<14} {usage.status}, {how}")

    def on_tool_end(self, run_id, call_id, tool_name, result, duration_ms):
        print(f"  · {tool_name} ok")

    def on_tool_error(self, run_id, call_id, tool_name, error, tool_args, duration_ms):
        print(f"  · {tool_name} failed: {type(error).__name__}")


def log_usage(state, step):
    usage = state.context.get("usage", {})
    print(f"Step {step.step_number} used {usage.get('tokens', 0):,} tokens\n")


@meter.tool
def search(query):
    if "2031" in query:
        raise LookupError("nothing from the future")
    return f"3 articles about {query}"


@meter.tool
def calculate(expression):
    left, right = expression.split("*")
    return str(int(left) * int(right))


def ask(step, client, messages):
    """One model call: tried again once when the provider is overloaded, each attempt a record of its own."""
    call = step.llm("gpt-4o", provider="openai", max_output_tokens=200)
    while True:
        try:
            with call:
                response = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
                call.finish(response)
                return response.choices[0].message
        except InternalServerError:
            if call.record.attempt > 1:
                raise
            call = call.again()


def use(asked):
    tool = {"search": search, "calculate": calculate}[asked.function.name]
    try:
        return tool(**json.loads(asked.function.arguments))
    except Exception as error:
        return f"error: {error}"


def main():
    meter.observe(Ticker())
    meter.observe(WorkflowHooks(on_step_complete=log_usage))
    messages = [{"role": "user", "content": "How popular is pluggy?"}]

    with LoopbackProvider(answer) as provider:
        client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
        with meter.run("research", agent="researcher", user="ada") as run:
            while True:
                with run.step() as step:
                    message = ask(step, client, messages)
                    messages.append(message.model_dump(exclude_none=True))
                    messages += [
                        {"role": "tool", "tool_call_id": asked.id, "content": use(asked)}
                        for asked in message.tool_calls or ()
                    ]
                if not message.tool_calls:
                    break
            with run.step("write") as step, step.llm("gpt-4o-mini", provider="openai") as call:
                chunks = client.chat.completions.create(
                    model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}
                )
                text = "".join(c.choices[0].delta.content or "" for c in call.stream(chunks) if c.choices)
        served = provider.total

    print(text)
    print(run.usage)
    print(meter.analytics.summary())
    print(f"The provider says it served {served.total_tokens:,} tokens; the meter says {meter.usage.total_tokens:,}.")


def answer(request: Request) -> Reply | ErrorReply:
    """The provider's script: overloaded once, two tools, one of which fails, a conclusion, a text."""
    if request.model == "gpt-4o-mini":
        return Reply("pluggy is small, and everywhere.", input_tokens=700, output_tokens=60)
    if request.number == 1:
        return ErrorReply(status=529)
    turn = sum(message.get("role") == "assistant" for message in request.body["messages"])
    if turn == 0:
        calls = [ToolCall("search", {"query": "pluggy"}), ToolCall("search", {"query": "pluggy in 2031"})]
        return Reply(tool_calls=calls, input_tokens=420, output_tokens=42)
    if turn == 1:
        return Reply(tool_calls=[ToolCall("calculate", {"expression": "24*7"})], input_tokens=580, output_tokens=42)
    return Reply("Very popular.", input_tokens=640, cache_read_tokens=512, output_tokens=18)


if __name__ == "__main__":
    main()
