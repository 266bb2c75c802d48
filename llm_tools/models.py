"""Chat models made from their descriptions; the only door through which one is made."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_tools.errors import SpecError
from llm_tools.specs import KEY_ENV, OpenAISpec, ScriptedSpec, chat_spec
from llm_tools.tracing import forbid_tracing

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel as ChatModel

NO_KEY = "none"
"""Sent to servers that ask for no key; the client library insists on one."""


def chat_model(
    spec: str | Mapping[str, Any] | OpenAISpec | ScriptedSpec, *, key: str | None = None
) -> "ChatModel":
    """Make a chat model.  Nothing is sent until it is asked.

    Args:
        spec: which one; see :func:`llm_tools.specs.chat_spec`.
        key: for a server that this process started; otherwise the environment holds it.

    Raises:
        SpecError: the spec cannot be used, its key is not in the environment, its file cannot be
            read, or the packages for language models are not installed.
    """
    known = spec if isinstance(spec, OpenAISpec | ScriptedSpec) else chat_spec(spec)
    if isinstance(known, OpenAISpec):
        return _openai(known, key or _key(known))
    return _load("llm_tools.scripted").from_file(known)


def _key(spec: OpenAISpec) -> str:
    name = spec.key_env or KEY_ENV
    if key := os.environ.get(name, "").strip():
        return key
    if spec.key_env is None and spec.loopback:
        return NO_KEY
    raise SpecError(f"the key for {spec.url} is missing: put it in the environment variable {name}")


def _openai(spec: OpenAISpec, key: str) -> "ChatModel":
    openai, httpx2, wire = map(_load, ("langchain_openai", "httpx2", "llm_tools.wire"))
    # The environment's proxies are for what lies elsewhere.  Connections are not kept: the loop
    # that opened one need not be the next to ask.
    settings = {
        "trust_env": not spec.loopback,
        "follow_redirects": False,
        "limits": httpx2.Limits(max_keepalive_connections=0),
    }
    return openai.ChatOpenAI(
        model=spec.model,
        base_url=spec.url,
        api_key=key,
        timeout=spec.timeout_s,
        max_tokens=spec.max_tokens,
        temperature=spec.temperature,
        seed=spec.seed,
        max_retries=0,  # attempts are counted here, and there is one deadline for all of them
        use_responses_api=False,
        cache=False,
        openai_proxy=None,
        http_client=httpx2.Client(**settings),
        http_async_client=wire.BoundedClient(**settings),
    )


def _load(name: str) -> Any:
    """Import what needs LangChain, after tracing was forbidden."""
    forbid_tracing()
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"language models need the package {error.name}: pip install 'fedpilot[pilot]'"
        ) from None
    forbid_tracing()
    return module
