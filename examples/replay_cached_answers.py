"""Answers that are asked once and replayed after that: fifty threads, one request. Needs no key and no network.

The client is the real one and so is the HTTP; only the provider is a small server on 127.0.0.1. Leave out `base_url`
and nothing else changes.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI

from agent_meter import Meter, ReplayCache
from agent_meter.testing import LoopbackProvider, Reply


def answer(request):
    time.sleep(0.2)  # a model takes its time
    return Reply("A plugin system.", input_tokens=1000, output_tokens=100)


def main() -> None:
    meter = Meter()
    path = Path(tempfile.mkdtemp()) / "answers.db"
    with LoopbackProvider(answer) as provider:
        client = OpenAI(base_url=provider.openai_base_url, api_key="none")
        cache = ReplayCache(max_size=500, default_ttl=3600, path=path)

        @cache.replayed(meter, model="gpt-4o", provider="openai", agent="librarian", key=lambda question: question)
        def ask(question):
            messages = [{"role": "user", "content": question}]
            return client.chat.completions.create(model="gpt-4o", messages=messages)  # it says what was used

        with ThreadPoolExecutor(50) as pool:
            answers = {answer.choices[0].message.content for answer in pool.map(ask, ["What is pluggy?"] * 50)}
        print(f"50 questions, {len(provider.requests)} request, answers: {answers}")
        print(cache.report())
        print(meter.usage)
        cache.close()


if __name__ == "__main__":
    main()
