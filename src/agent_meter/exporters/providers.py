"""Whose invoice a call is on: provider keys as finance and telemetry spell them."""

from __future__ import annotations

from typing import NamedTuple

from ..pricing.names import provider_key


class Vendor(NamedTuple):
    """`company` sends the invoice, `service` is what it sells, `telemetry` the name in OpenTelemetry's list."""

    company: str
    service: str
    telemetry: str = ""


_VENDORS = {
    "openai": Vendor("OpenAI", "OpenAI API", "openai"),
    "anthropic": Vendor("Anthropic", "Claude API", "anthropic"),
    "aws": Vendor("Amazon Web Services", "Amazon Bedrock", "aws.bedrock"),
    "azure": Vendor("Microsoft", "Azure OpenAI Service", "azure.ai.openai"),
    "google": Vendor("Google", "Gemini API", "gcp.gemini"),
    "google-vertex": Vendor("Google", "Vertex AI", "gcp.vertex_ai"),
    "mistral": Vendor("Mistral AI", "Mistral API", "mistral_ai"),
    "cohere": Vendor("Cohere", "Cohere API", "cohere"),
    "groq": Vendor("Groq", "GroqCloud", "groq"),
    "deepseek": Vendor("DeepSeek", "DeepSeek API", "deepseek"),
    "perplexity": Vendor("Perplexity", "Perplexity API", "perplexity"),
    "x-ai": Vendor("xAI", "xAI API", "x_ai"),
    "moonshotai": Vendor("Moonshot AI", "Moonshot API", "moonshot_ai"),
    "openrouter": Vendor("OpenRouter", "OpenRouter", "openrouter"),
    "together": Vendor("Together AI", "Together AI", "together"),
    "fireworks": Vendor("Fireworks AI", "Fireworks AI", "fireworks"),
    "cerebras": Vendor("Cerebras", "Cerebras Inference", "cerebras"),
    "databricks": Vendor("Databricks", "Databricks Model Serving", "databricks"),
    "cloudflare": Vendor("Cloudflare", "Workers AI", "cloudflare"),
}


def vendor(provider: str) -> Vendor:
    """The vendor behind a provider's name; one that is not known is called as it is written."""
    known = _VENDORS.get(provider_key(provider))
    if known is None:
        name = provider.strip() or "Unknown"
        return Vendor(name, f"{name} API", provider.strip())
    return known
