"""One metered call without a framework: open + close with usage, analytics and prices. Promise: 10 µs, median."""

from __future__ import annotations

from agent_meter import Call, Kind, Meter, Model, ReplayCache, TokenUsage

from .measuring import machine, microseconds, table, title

PROMISED = 10.0


def main() -> None:
    title(f"open + close, CPU µs a call ({machine()})")
    meter = Meter()
    gpt, claude = Model("openai", "gpt-4o"), Model("anthropic", "claude-sonnet-4-5")
    plain = TokenUsage(1000, 500)
    cached = TokenUsage(10_000, 800, cache_read_tokens=8_000, cache_write_tokens=1_000, reasoning_tokens=200)

    def model_call(model: Model, usage: TokenUsage, tools: tuple[str, ...] = ()) -> object:
        def timed(number: int) -> None:
            for _ in range(number):
                meter.close(meter.open(Call(Kind.LLM, model=model)), usage, tools=tools)

        return timed

    def in_scope(number: int) -> None:
        with meter.scope(agent="researcher", user="u1", session="s1"), meter.run("bench"):
            model_call(gpt, plain)(number)  # type: ignore[operator]

    def tool_call(number: int) -> None:
        for index in range(number):
            call = Call(Kind.TOOL, "search")
            call.params = {"query": f"question {index % 50}"}
            meter.close(meter.open(call))

    def recorded(number: int) -> None:
        for _ in range(number):
            meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=500)

    cache = ReplayCache()
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is a meter? " * 20}]

    @cache.replayed(meter, model="gpt-4o", provider="openai")
    def ask(messages: object, temperature: float = 0.0) -> tuple[str, TokenUsage]:
        return "A measure.", plain

    def hits(number: int) -> None:
        for _ in range(number):
            ask(messages)

    things = {
        "model call": model_call(gpt, plain),
        "model call, prompt cache and reasoning": model_call(claude, cached),
        "model call that asks for a tool": model_call(gpt, plain, ("search",)),
        "model call in a run, with scope": in_scope,
        "tool call, one parameter": tool_call,
        "record_usage()": recorded,
        "hit of a ReplayCache, decorated function": hits,
    }
    medians = microseconds(things, 20_000)  # type: ignore[arg-type]
    table(("what", "µs"), [(name, f"{median:.1f}") for name, median in medians.items()])
    print(f"\npromised for a model call: ≤ {PROMISED:.0f} µs")


if __name__ == "__main__":
    main()
