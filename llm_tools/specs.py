"""Which language model to ask, as a string or a table.

``openai:MODEL@URL`` is any server that speaks the OpenAI chat protocol, ``scripted:FILE`` answers
from a file.  Behind the URL may stand how a server samples: ``?temperature=1&seed=3``; without it
the likeliest answer is asked for, the same to the same question.  A table has the other fields of
:class:`OpenAISpec` and :class:`ScriptedSpec`, and ``kind`` as its discriminator.  Keys are never
written here: ``key_env`` names the environment variable that holds one.
"""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from llm_tools.errors import SpecError, in_words

FORMS = "'openai:MODEL@http://127.0.0.1:8000/v1' or 'scripted:FILE'"
KEY_ENV = "FEDPILOT_API_KEY"
"""Where the key of an endpoint elsewhere is looked for, unless its spec names another variable."""


class Spec(BaseModel):
    """A frozen table of bounded fields; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _endpoint(url: str) -> str:
    shown = "it" if "@" in url else repr(url)  # there may be a password in it
    no_url = ValueError(f"{shown} is no URL: write one like http://127.0.0.1:8000/v1")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise no_url from None
    if not usable:
        raise no_url
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "the URL may hold no user, password, query or fragment but ?temperature=T&seed=N:"
            " put the key in an environment variable and name it in key_env"
        )
    return url.rstrip("/")


class OpenAISpec(Spec):
    """A server that speaks the OpenAI chat protocol: a hosted one, vLLM, ``transformers serve``."""

    kind: Literal["openai"] = Field(default="openai", description="protocol")
    model: str = Field(min_length=1, max_length=500, description="the name the server knows")
    url: Annotated[str, AfterValidator(_endpoint)] = Field(
        description="where /chat/completions lies, as http://127.0.0.1:8000/v1"
    )
    key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable with the key"
        f" (omitted: {KEY_ENV}, which a server on this machine need not have)",
    )
    timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="seconds one network operation may wait"
    )
    max_tokens: int = Field(default=1024, ge=1, le=1_000_000, description="tokens of one answer")
    temperature: float | None = Field(
        default=0.0, ge=0, le=2, description="of sampling (null: the server's default)"
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="of sampling, where the server heeds it"
    )

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class ScriptedSpec(Spec):
    """Answers from a file, for tests and demonstrations: one JSON object a line."""

    kind: Literal["scripted"] = Field(default="scripted", description="answers from a file")
    file: str = Field(min_length=1, description="JSON lines, see llm_tools.scripted")
    repeat: bool = Field(default=False, description="start again after the last answer")


def _sampled(url: str) -> tuple[str, dict[str, float]]:
    """Part a URL from how its server samples; whatever else is asked there stays with the URL."""
    address, _, query = url.partition("?")
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    kinds = {"temperature": float, "seed": int}
    try:
        sampling = {name: kinds[name](value) for name, value in pairs}
    except (KeyError, ValueError):
        return url, {}
    return (address, sampling) if len(sampling) == len(pairs) else (url, {})


def _as_table(value: Any) -> Any:
    """Read the string form; leave the rest to validation."""
    if not isinstance(value, str):
        return value
    kind, _, rest = value.partition(":")
    if kind == "scripted" and rest:
        return {"kind": kind, "file": rest}
    # The last @: names of adapters have one too, as fed@r12.
    model, _, url = rest.rpartition("@")
    if kind == "openai" and model:
        url, sampling = _sampled(url)
        return {"kind": kind, "model": model, "url": url, **sampling}
    raise ValueError(f"{value!r} names no language model: write {FORMS}")


ChatSpec = Annotated[
    Annotated[OpenAISpec | ScriptedSpec, Field(discriminator="kind")], BeforeValidator(_as_table)
]
"""For fields of a configuration: takes the string form too."""

_ADAPTER: TypeAdapter[OpenAISpec | ScriptedSpec] = TypeAdapter(ChatSpec)


def chat_spec(value: str | Mapping[str, Any]) -> OpenAISpec | ScriptedSpec:
    """Read which language model is meant.

    Args:
        value: ``openai:MODEL@URL``, ``scripted:FILE``, or a table with ``kind`` and its fields.

    Raises:
        SpecError: it is neither, or a field is out of bounds.
    """
    try:
        return _ADAPTER.validate_python(dict(value) if isinstance(value, Mapping) else value)
    except ValidationError as error:
        raise SpecError(f"language model: {in_words(error, values=False)}") from None
