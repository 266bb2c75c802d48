"""What the tests of synthesis ask for, and rows that are right."""

from typing import Any

from llm_tools.synthesis import Brief, Row

BRIEF = Brief(
    client="bank-1", domain="bank", task="answers", label="fees", style="plain", longest=400
)
CHOICE = Brief(
    client="bank-1", domain="bank", task="labels", label="fees", choices=("fees", "loans")
)


def raw(text: str = "what does a transfer abroad cost me", **changes: Any) -> dict[str, Any]:
    """Write a row that fits BRIEF."""
    return {
        "client": "bank-1",
        "domain": "bank",
        "task": "answers",
        "label": "fees",
        "instruction": "Answer the customer.",
        "context": text,
        "response": "Five euros.",
        "choices": [],
        **changes,
    }


def row(text: str = "what does a transfer abroad cost me", **changes: Any) -> Row:
    return Row.model_validate(raw(text, **changes))
