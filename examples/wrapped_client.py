"""A client of OpenAI's SDK, metered without any framework. No key, no network: python examples/wrapped_client.py"""

from openai import OpenAI

from agent_meter import Meter
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply


def main() -> None:
    answers = [
        Reply("Paris.", input_tokens=900, output_tokens=12, cache_read_tokens=800),
        ErrorReply(429, retry_after=0.05),
        Reply("It is on the Seine.", input_tokens=960, output_tokens=30),
        Reply("Streamed, too.", input_tokens=500, output_tokens=25),
    ]
    with LoopbackProvider(answers) as provider, Meter() as meter:
        client = meter.wrap(OpenAI(base_url=provider.openai_base_url, api_key="none"), ask_for_usage=True)
        with meter.scope(agent="guide", user="ada"):
            for question in ("The capital of France?", "Where is it?"):
                client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}])
            for _ in client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "And as a stream?"}], stream=True
            ):
                pass
        for record in meter.history():
            attempts = " → ".join(str(attempt.status) for attempt in record.attempts)
            print(
                f"{record.model}  {record.input_tokens} in  {record.output_tokens} out  ${record.cost_usd}  {attempts}"
            )
        print(meter.usage)


if __name__ == "__main__":
    main()
