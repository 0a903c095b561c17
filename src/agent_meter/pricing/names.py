"""What people and frameworks call providers and models: aliases, local servers, proprietary names.

Nothing here knows a price, and nothing here imports the price list.
"""

from __future__ import annotations

from ..records import Model

# Servers and runtimes on the user's own machines: nobody sends a bill, whatever the model is called.
_LOCAL = (
    "ollama ollama_chat chatollama ollamaembedding llama_cpp llamacpp llama_cpp_python llamafile vllm hosted_vllm "
    "lmstudio lm_studio localai local gpt4all mlx mlx_lm text_generation_inference tgi sglang xinference lemonade "
    "koboldcpp oobabooga text_generation_webui huggingface_pipeline huggingfacepipeline transformers tabbyapi jan "
    "docker_model_runner ramalama exllama exllamav2 ctransformers bitnet"
)
LOCAL = frozenset(_LOCAL.split())

# Servers that are rented out by the hour as well.
_RENTED_TOO = ("text_generation_inference", "tgi")

# A dialect that anybody's server may speak: says how the call was made, not who answered.
DIALECTS = frozenset({"", "openai", "anthropic", "openai_compatible"})

_COMPATIBLE = (
    "openai_compatible openai_like openailike custom custom_openai openai_api_compatible generic "
    "litellm litellm_proxy chatlitellm litellmchat"
)

_ALIASES: dict[str, str] = {
    alias: provider
    for provider, aliases in {
        "openai": (
            "openai_chat openai_responses openai_completions chatopenai openaiembeddings openaiembedding "
            "text_completion_openai openairesponses gpt chatgpt"
        ),
        "azure": (
            "azure_openai azureopenai azure_ai_openai az_ai_openai azure_ai azure_ai_inference az_ai_inference "
            "azurechatopenai azureopenaiembeddings azureopenaiembedding azure_ai_foundry azureaichatcompletionsmodel "
            "microsoft_foundry azure_text azure_openai_responses"
        ),
        "anthropic": "chatanthropic claude anthropic_chat",
        "google": (
            "google_genai google_generative_ai google_generativeai googlegenai googlegenaiembedding "
            "chatgooglegenerativeai google_vertexai google_vertex vertex_ai vertexai vertex chatvertexai gemini "
            "google_gla google_ai gcp_gen_ai gcp_gemini gcp_vertex_ai google_anthropic_vertex chatanthropicvertex "
            "vertex_ai_beta googlevertexai"
        ),
        "aws": (
            "bedrock bedrock_converse bedrockconverse amazon_bedrock aws_bedrock chatbedrock chatbedrockconverse "
            "amazon anthropic_bedrock bedrock_runtime bedrock_mantle"
        ),
        "mistral": "mistralai mistral_ai chatmistralai mistralaiembeddings",
        "x-ai": "xai x_ai grok chatxai",
        "together": "together_ai togetherai chattogether togetherllm",
        "fireworks": "fireworks_ai fireworksai chatfireworks",
        "voyageai": "voyage voyage_ai voyageaiembeddings voyageembedding",
        "moonshotai": "moonshot kimi",
        "zhipuai": "zhipu zhipu_ai bigmodel",
        "zai": "z_ai",
        "cohere": "cohere_chat chatcohere cohereembeddings coherererank",
        "perplexity": "perplexity_ai pplx chatperplexity",
        "groq": "chatgroq",
        "deepseek": "chatdeepseek deepseek_ai",
        "openrouter": "open_router chatopenrouter",
        "cerebras": "chatcerebras",
        "github-copilot": "github_copilot copilot",
        "cloudflare": "cloudflare_workers_ai workers_ai chatcloudflareworkersai",
        "databricks": "chatdatabricks",
        "openai_compatible": _COMPATIBLE,
    }.items()
    for alias in aliases.split()
}


def provider_key(name: str) -> str:
    """A provider's name in one spelling: `AzureChatOpenAI`, `azure_openai` and `az.ai.openai` are all `azure`."""
    key = name.strip().lower().replace("-", "_").replace(".", "_").replace(" ", "_").replace("/", "_")
    return _ALIASES.get(key, key)


# Names that only their vendor serves; in front of a private address they mean a gateway or a proxy.
_PROPRIETARY = (
    "gpt-", "gpt3", "gpt4", "chatgpt", "ft:", "claude", "gemini", "learnlm", "grok-", "command-", "c4ai-command",
    "mistral-large", "mistral-medium", "magistral-medium", "codestral-latest",
    "text-embedding-", "text-davinci", "davinci-", "babbage-",
    "omni-moderation", "dall-e", "tts-1", "whisper-1", "sora-", "computer-use", "codex-", "voyage-", "sonar", "nova-",
    "titan-", "deepseek-chat", "deepseek-reasoner", "qwen-max", "qwen-plus", "qwen-turbo", "qwen-flash", "moonshot-v1",
    "embed-english", "embed-multilingual", "embed-v", "rerank-", "palm-", "text-bison", "chat-bison", "j2-", "jamba-",
    "amazon.", "anthropic.", "cohere.", "ai21.", "openai.gpt",
)  # fmt: skip
# Prefixes by which a proxy sends a call on to somebody who bills it, even an open-weight model's.
_HOSTS = frozenset(
    ("groq", "together_ai", "together", "fireworks_ai", "fireworks", "openrouter", "bedrock", "azure", "azure_ai",
     "vertex_ai", "gemini", "perplexity", "cerebras", "databricks", "deepinfra", "replicate", "sagemaker", "watsonx",
     "novita", "sambanova", "nebius", "cloudflare", "mistral", "deepseek", "cohere", "xai", "anthropic", "moonshot")
)  # fmt: skip
_OPEN = ("gpt-oss", "gpt-j", "gpt-neo", "gpt2", "gpt-2", "gpt4all", "openai.gpt-oss")


def base_name(name: str) -> str:
    """The model's own name: without vendor, path or `models/` in front."""
    return name.strip().lower().rsplit("/", 1)[-1]


def proprietary(name: str) -> bool:
    """Whether only the vendor serves a model of this name, so that a bill comes wherever it was reached."""
    base = base_name(name)
    if base.startswith("ft:"):
        return True
    for prefix in ("openai:", "anthropic:", "google:", "azure:"):
        base = base.removeprefix(prefix)
    if base.startswith(_OPEN) or local_tag(base):
        return False
    if base[:1] == "o" and base[1:2].isdigit() and base[2:3] in ("", "-"):
        return True
    return base.startswith(_PROPRIETARY)


def local_tag(name: str) -> bool:
    """Whether a name ends like one of Ollama's: `llama3.2:latest`, `deepseek-r1:8b`, `qwen2:7b-instruct-q4_0`."""
    head, colon, tag = base_name(name).rpartition(":")
    if not (head and colon) or head.startswith("arn:"):
        return False
    size = tag.split("-", 1)[0].lstrip("e")
    return tag == "latest" or (size[-1:] in ("b", "m") and size[:-1].replace(".", "").replace("x", "").isdigit())


def host_of(endpoint: str) -> str:
    """The host of a base URL, in lower case, without port; the scheme may be missing."""
    rest = endpoint.strip().lower()
    rest = rest.split("://", 1)[1] if "://" in rest else rest
    rest = rest.split("/", 1)[0].rsplit("@", 1)[-1]
    if rest.startswith("["):
        return rest[1:].split("]", 1)[0]
    return rest if rest.count(":") > 1 else rest.split(":", 1)[0]


def private(endpoint: str) -> bool:
    """Whether a base URL stays on this machine or in a private network."""
    host = host_of(endpoint)
    if not host:
        return False
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal", ".lan", ".home", ".svc")):
        return True
    if ".svc." in host:
        return True
    if host[0].isdigit() or ":" in host:
        from ipaddress import ip_address, ip_network

        try:
            address = ip_address(host)
        except ValueError:
            return False
        shared = ip_network("100.64.0.0/10")  # carrier-grade NAT, which overlay networks use
        return address.is_private or address.is_loopback or (address.version == 4 and address in shared)
    return "." not in host


def local_reason(model: Model) -> str | None:
    """Why a model costs nothing to call, decided before any name is looked up; `None` when it is not local."""
    provider = provider_key(model.provider)
    name = model.name.strip().lower()
    if provider in DIALECTS and provider != "anthropic":
        head, slash, _ = name.partition("/")
        if slash and provider_key(head) in LOCAL:
            provider = provider_key(head)
        elif slash and head in _HOSTS:
            return None
    if provider in LOCAL:
        elsewhere = provider in _RENTED_TOO and model.endpoint and not private(model.endpoint)
        if elsewhere or name.endswith(("-cloud", ":cloud")):
            return None
        return f"local: {provider}"
    if model.endpoint and private(model.endpoint) and provider in DIALECTS and not proprietary(name):
        return f"local endpoint: {host_of(model.endpoint)}"
    return None
