"""What images cost, by the vendors' published formulas."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent_meter.tokens import TokenCounter
from agent_meter.tokens.images import image_tokens, size_of


def sized(width: int, height: int, detail: str = "high") -> dict[str, Any]:
    return {
        "type": "image_url",
        "image_url": {"url": "https://example.com/a.png", "detail": detail},
        "width": width,
        "height": height,
    }


@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "tokens"),
    [
        # The examples of OpenAI's vision guide.
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4o", 512, 512, "auto", 255),
        ("gpt-4o-mini", 1024, 1024, "high", 2833 + 4 * 5667),
        ("gpt-4.1", 1024, 1024, "high", 765),
        ("o1", 1024, 1024, "high", 75 + 4 * 150),
        ("gpt-5", 1024, 1024, "high", 70 + 4 * 140),
        ("gpt-4.1-mini", 1024, 1024, "high", 1659),  # 1,024 patches × 1.62
        ("gpt-4.1-mini", 1800, 2400, "high", 2353),  # 1,452 patches × 1.62
        ("gpt-5-mini", 400, 301, "auto", 156),  # as recorded: 130 patches × 1.2
        # Anthropic's: width × height / 750 after scaling to 1568.
        ("claude-sonnet-4-5", 200, 200, "", 54),
        ("claude-sonnet-4-5", 1000, 1000, "", 1334),
        ("claude-sonnet-4-5", 60, 30, "", 3),
        ("gemini-2.5-flash", 300, 300, "", 258),
        ("gemini-3-pro-preview", 300, 300, "", 1120),
    ],
)
def test_published_examples(model: str, width: int, height: int, detail: str, tokens: int) -> None:
    message = {"role": "user", "content": [sized(width, height, detail)]}
    counter = TokenCounter(model=model)
    empty = counter.count_messages([{"role": "user", "content": []}])

    assert counter.count_messages([message]) - empty == tokens


def test_an_image_of_unknown_size_counts_as_1024_by_1024() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    assert image_tokens(part, "gpt-4o", "openai") == 765


def encoded(kind: str, size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind, **({"lossless": True} if kind == "WEBP-lossless" else {}))
    return b64encode(file.getvalue()).decode()


SIZE = (321, 123)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_the_size_is_read_from_the_image_itself(kind: str) -> None:
    data = encoded(kind, SIZE)
    shapes: list[Any] = [
        {"type": "image_url", "image_url": {"url": f"data:image/{kind.lower()};base64,{data}"}},
        {"type": "input_image", "image_url": f"data:image/{kind.lower()};base64,{data}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {"inline_data": {"mime_type": "image/png", "data": data.replace("+", "-").replace("/", "_")}},
        {"type": "image", "base64": data},
    ]

    assert [size_of(shape) for shape in shapes] == [SIZE] * len(shapes)


def test_lossless_webp_has_a_size_too() -> None:
    file = io.BytesIO()
    Image.new("RGBA", SIZE).save(file, "WEBP", lossless=True)

    assert size_of({"type": "image", "base64": b64encode(file.getvalue()).decode()}) == SIZE


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X"]),
)
def test_broken_images_have_no_size_and_do_not_raise(data: bytes, head: bytes) -> None:
    part = {"type": "image", "base64": b64encode(head + data).decode()}
    size = size_of(part)

    assert size is None or min(size) > 0
    assert image_tokens(part, "gpt-4o", "openai") > 0


@given(
    width=st.integers(1, 100_000),
    height=st.integers(1, 100_000),
    model=st.sampled_from(["gpt-4o", "gpt-5-mini", "o4-mini", "claude-x"]),
)
def test_no_image_costs_nothing_or_more_than_its_cap(width: int, height: int, model: str) -> None:
    family = "claude" if model.startswith("claude") else "openai"

    # Tiles: 2048 by 768 at most, a cap that a very long image reaches with four tiles by two.
    assert 0 < image_tokens(sized(width, height), model, family) <= 2_642
