"""An agent of the kind that the seed documents have a class for: an own loop, metered with native blocks.

There is no `Agent` class in agent_meter: it meters other people's. This one asks a real client (OpenAI's SDK, over
HTTP) until the model asks for no more tools; what the documents ask of an agent, the tests ask of its meter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai

from agent_meter import Meter
from agent_meter.testing import LoopbackProvider


class Agent:
    def __init__(
        self,
        model: str,
        provider: LoopbackProvider,
        meter: Meter,
        tools: tuple[Callable[..., Any], ...] = (),
        name: str = "agent",
    ) -> None:
        self.model, self.meter, self.name = model, meter, name
        self.client = openai.OpenAI(base_url=provider.openai_base_url, api_key="none")
        self.tools = {tool.__name__: tool for tool in tools}
        self.messages: list[dict[str, Any]] = []

    def run(self, prompt: str) -> str:
        self.messages.append({"role": "user", "content": prompt})
        with self.meter.run(self.name, agent=self.name) as run:
            while True:
                with run.step() as step:
                    with step.llm(self.model, provider="openai") as call:
                        response = self.client.chat.completions.create(model=self.model, messages=self.messages)  # type: ignore[arg-type]
                        call.finish(response)
                    answer = response.choices[0].message
                    self.messages.append(answer.model_dump(exclude_none=True))
                    if not answer.tool_calls:
                        return answer.content or ""
                    for asked in answer.tool_calls:
                        self._use(step, asked)

    def _use(self, step: Any, asked: Any) -> None:
        name, args = asked.function.name, json.loads(asked.function.arguments)
        try:
            with step.tool(name, args, call_id=asked.id) as tool:
                told = str(self.tools[name](**args))
                tool.result(told)
        except Exception as error:
            told = f"error: {error}"
        self.messages.append({"role": "tool", "tool_call_id": asked.id, "content": told})
