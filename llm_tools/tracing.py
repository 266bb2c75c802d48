"""Nothing that is asked or answered is sent to a tracing service, whatever the environment says."""

import os
import sys

SWITCHES = (
    "LANGSMITH_TRACING",
    "LANGSMITH_TRACING_V2",
    "LANGCHAIN_TRACING",
    "LANGCHAIN_TRACING_V2",
)


def forbid_tracing() -> None:
    """Turn LangSmith tracing off in this process, and in those it starts.

    Called when ``llm_tools`` is imported, which is before it imports LangChain, and again when a
    model is made: a host program may have loaded LangChain, with its switches read, before us.
    """
    for switch in SWITCHES:
        os.environ[switch] = "false"
    if "langsmith" in sys.modules:
        import langsmith

        langsmith.configure(enabled=False)
