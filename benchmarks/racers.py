"""Who runs in the budget race: a budget of $0.10, and one model call that costs exactly $0.01.

Each racer makes a function of one call, around the real OpenAI SDK or LangChain. Everything that its authors
recommend for a shared budget is switched on; peers are in the table when they are installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

LIMIT = 0.10
PRICE = 0.01  # 1,000 tokens in, 750 out of gpt-4o: 0.0025 + 0.0075
INPUT, OUTPUT = 1_000, 750
MODEL = "gpt-4o"
PROMPT = "What is a budget that holds, and who would have thought of that? " * 62  # about 1,000 tokens
MESSAGES: Any = [{"role": "user", "content": PROMPT}]

Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]


class Racer(NamedTuple):
    """`make(url, path)` gives a call; `path` is a file that processes share, or None. A racer may lack a mode."""

    name: str
    make: Callable[[str, str | None], Call] | None = None
    make_async: Callable[[str], AsyncCall] | None = None
    processes: bool = False
    needs: str = "agent_meter"


def _client(url: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=url, api_key="none", max_retries=0)


def _async_client(url: str) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


def _ask(client: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=OUTPUT)


def _chat(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=url, api_key="none", max_retries=0, max_tokens=OUTPUT)


# ------------------------------------------------------------------------------------------------------- ours


def _meter(path: str | None) -> Any:
    from agent_meter import Budget, Meter

    budget = Budget("race", usd=str(LIMIT), per="day")
    return Meter(budgets=[budget]) if path is None else Meter(budgets=[budget], store=path)


def native(url: str, path: str | None) -> Call:
    meter, client = _meter(path), _client(url)

    def call() -> None:
        with meter.llm(MODEL, provider="openai", input_tokens=INPUT, max_output_tokens=OUTPUT) as one:
            one.finish(_ask(client))

    return call


def native_async(url: str) -> AsyncCall:
    meter, client = _meter(None), _async_client(url)

    async def call() -> None:
        async with meter.llm(MODEL, provider="openai", input_tokens=INPUT, max_output_tokens=OUTPUT) as one:
            one.finish(await _ask(client))

    return call


def callback(url: str, path: str | None) -> Call:
    from agent_meter.adapters.langchain import MeterCallback

    model, config = _chat(url), {"callbacks": [MeterCallback(_meter(path))]}
    return lambda: model.invoke(PROMPT, config)


def callback_async(url: str) -> AsyncCall:
    from agent_meter.adapters.langchain import MeterCallback

    model, config = _chat(url), {"callbacks": [MeterCallback(_meter(None))]}
    return lambda: model.ainvoke(PROMPT, config)


def middleware(url: str, path: str | None) -> Call:
    """The middleware ends a run gracefully: a run that was not answered by the provider counts as refused."""
    from langchain.agents import create_agent

    from agent_meter.adapters.langchain import MeterMiddleware

    meter = _meter(path)
    agent = create_agent(_chat(url), [], middleware=[MeterMiddleware(meter)])

    def call() -> None:
        before = meter.usage.requests
        agent.invoke({"messages": MESSAGES})
        if meter.usage.requests == before:
            raise RuntimeError("refused")

    return call


def wrapped(url: str, path: str | None) -> Call:
    client = _meter(path).wrap(_client(url))
    return lambda: _ask(client)


def wrapped_async(url: str) -> AsyncCall:
    client = _meter(None).wrap(_async_client(url))
    return lambda: _ask(client)


def llama_index(url: str, path: str | None) -> Call:
    from llama_index.llms.openai import OpenAI

    from agent_meter.adapters.llama_index import MeterHandler

    MeterHandler(_meter(path)).register()
    model = OpenAI(model=MODEL, api_base=url, api_key="none", max_retries=0, max_tokens=OUTPUT)
    return lambda: model.complete(PROMPT)


def llama_index_async(url: str) -> AsyncCall:
    from llama_index.llms.openai import OpenAI

    from agent_meter.adapters.llama_index import MeterHandler

    MeterHandler(_meter(None)).register()
    model = OpenAI(model=MODEL, api_base=url, api_key="none", max_retries=0, max_tokens=OUTPUT)
    return lambda: model.acomplete(PROMPT)


# ------------------------------------------------------------------------------------------------------ peers


def floe(url: str, path: str | None) -> Call:
    from floe_guard import BudgetGuard, SqliteStore

    store = {} if path is None else {"store": SqliteStore(path), "window": "utc-day"}
    guard, client = BudgetGuard(limit_usd=LIMIT, **store), _client(url)

    def call() -> None:
        reserved = guard.reserve(PRICE)
        try:
            usage = _ask(client).usage
        except BaseException:
            guard.release(reserved)
            raise
        guard.settle(MODEL, usage.prompt_tokens, usage.completion_tokens, reserved=reserved)

    return call


def floe_check(url: str, path: str | None) -> Call:
    from floe_guard import BudgetGuard

    guard, client = BudgetGuard(limit_usd=LIMIT), _client(url)

    def call() -> None:
        guard.check()
        usage = _ask(client).usage
        guard.record(MODEL, usage.prompt_tokens, usage.completion_tokens)

    return call


def token_budget(url: str, path: str | None) -> Call:
    from token_budget import BudgetPool

    pool, client = BudgetPool(usd_cap=LIMIT), _client(url)

    def call() -> None:
        with pool.reserve(tokens=INPUT + OUTPUT, usd=PRICE) as reserved:
            usage = _ask(client).usage
            reserved.commit(tokens=usage.total_tokens, usd=PRICE)

    return call


def agentbudget(url: str, path: str | None) -> Call:
    from agentbudget import AgentBudget, wrap_client

    session = AgentBudget(max_spend=LIMIT, max_repeated_calls=10**6).session()
    session.__enter__()
    client = wrap_client(_client(url), session)
    return lambda: _ask(client)


def cendor(url: str, path: str | None) -> Call:
    import contextvars

    from cendor.core import instrument
    from cendor.tokenguard import budget

    client = instrument(_client(url))
    budget(usd=LIMIT, on_exceed="raise", output_reserve=OUTPUT).__enter__()
    context = contextvars.copy_context()
    return lambda: context.copy().run(_ask, client)


def shekel(url: str, path: str | None) -> Call:
    import contextvars

    from shekel import budget

    budget(max_usd=LIMIT).__enter__()
    client, context = _client(url), contextvars.copy_context()
    return lambda: context.copy().run(_ask, client)


def tokencap(url: str, path: str | None) -> Call:
    import tokencap as library

    client = library.wrap(_client(url), limit=10 * (INPUT + OUTPUT), quiet=True)
    return lambda: _ask(client)


def token_copilot(url: str, path: str | None) -> Call:
    from token_copilot import TokenCoPilot

    model = _chat(url)
    config: Any = {"callbacks": [TokenCoPilot(budget_limit=LIMIT, on_budget_exceeded="raise")]}
    return lambda: model.invoke(PROMPT, config)


def token_copilot_async(url: str) -> AsyncCall:
    from token_copilot import TokenCoPilot

    model = _chat(url)
    config: Any = {"callbacks": [TokenCoPilot(budget_limit=LIMIT, on_budget_exceeded="raise")]}
    return lambda: model.ainvoke(PROMPT, config)


def litellm(url: str, path: str | None) -> Call:
    """BudgetManager: `projected_cost` before, `update_cost` after, as its page says."""
    import litellm as library

    manager, client = library.BudgetManager(project_name="race", client_type="local"), _client(url)
    manager.create_budget(total_budget=LIMIT, user="race")

    def call() -> None:
        expected = manager.projected_cost(model=MODEL, messages=MESSAGES, user="race")
        if manager.get_current_cost(user="race") + expected > manager.get_total_budget("race"):
            raise RuntimeError("refused")
        answer = library.ModelResponse(**_ask(client).model_dump())
        manager.update_cost(completion_obj=answer, user="race")

    return call


RACERS = (
    Racer("agent_meter, own loop", native, native_async, True),
    Racer("agent_meter, LangChain callback", callback, callback_async, True),
    Racer("agent_meter, LangChain middleware", middleware, None, True),
    Racer("agent_meter, wrapped client", wrapped, wrapped_async, True),
    Racer("agent_meter, LlamaIndex", llama_index, llama_index_async, True, "llama_index.llms.openai"),
    Racer("floe-guard, reserve and settle", floe, None, True, "floe_guard"),
    Racer("token-budget-py, reserve", token_budget, None, False, "token_budget"),
    Racer("floe-guard, check and record", floe_check, None, False, "floe_guard"),
    Racer("tokencap, wrapped client", tokencap, None, False, "tokencap"),
    Racer("agentbudget, wrapped client", agentbudget, None, False, "agentbudget"),
    Racer("cendor, instrumented client", cendor, None, False, "cendor"),
    Racer("shekel, context copied", shekel, None, False, "shekel"),
    Racer("litellm BudgetManager", litellm, None, False, "litellm"),
    Racer("token-copilot, LangChain callback", token_copilot, token_copilot_async, False, "token_copilot"),
)


def present() -> list[Racer]:
    return [racer for racer in RACERS if _installed(racer.needs)]


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
