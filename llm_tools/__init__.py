"""What can be asked of a language model; knows nothing of federations.

Light: LangChain is imported when a model is made, never by ``import llm_tools``.
"""

from llm_tools.answers import OF_SERVER, Answer, CallFailed, Failure
from llm_tools.asking import ask
from llm_tools.errors import LLMError, PromptError, SchemaError, ServerError, SpecError
from llm_tools.models import chat_model
from llm_tools.prompts import Prompt, fill
from llm_tools.schemas import decodable
from llm_tools.serving import Server, ServerSpec, serve
from llm_tools.specs import ChatSpec, OpenAISpec, ScriptedSpec, chat_spec
from llm_tools.talking import Reply, talk
from llm_tools.tracing import forbid_tracing

__all__ = [
    "OF_SERVER",
    "Answer",
    "CallFailed",
    "ChatSpec",
    "Failure",
    "LLMError",
    "OpenAISpec",
    "Prompt",
    "PromptError",
    "Reply",
    "SchemaError",
    "ScriptedSpec",
    "Server",
    "ServerError",
    "ServerSpec",
    "SpecError",
    "ask",
    "chat_model",
    "chat_spec",
    "decodable",
    "fill",
    "forbid_tracing",
    "serve",
    "talk",
]

forbid_tracing()
