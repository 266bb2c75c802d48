"""Whether a server answers as the run's own model does: log-probabilities of next tokens, compared.

Every prompt is asked more than once.  A server that keeps what it computed for a prompt under the
name of an adapter, and not of its content, answers a repeated prompt with another adapter's state
and a new one rightly; and the prompts are the same for every round.

Shape suffixes: B prompts, V vocabulary.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from agents.serving.records import ALIAS, BASE
from agents.synthesis.make import ModelFailed
from llm_tools import LLMError, ServerError
from llm_tools.adapters import continuation, next_log_probs
from llm_tools.errors import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from llm_tools import Server

TIMES = 2
LEAST, MOST = 0.01, 0.2
NOISE = 3.0
CONTINUED = 12  # tokens, where texts are compared


@dataclass(frozen=True)
class Known:
    """What the run's own model says to the test prompts.

    Attributes:
        name: of the model, for people.
        log_probs_BV: of every next token, nats.
    """

    name: str
    log_probs_BV: "Tensor"

    def of(self, b: int, tokens: Iterable[int]) -> dict[int, float]:
        """Return what it says of tokens after a prompt; minus infinity of those it has not got."""
        row = self.log_probs_BV[b]
        return {t: float(row[t]) if 0 <= t < len(row) else -math.inf for t in tokens}


def tolerance(server: "Server", name: str, base: Known, prompts: list[list[int]]) -> float:
    """Ask the base model, and say by how much adapters may be off: three times as much as it is.

    At least :data:`LEAST`, as in float32 both agree to the last digits and a little slack harms
    nobody; a server whose base model is off by more than :data:`MOST` serves another model.

    Raises:
        ServerError: the base model's answers are too far off; or there are none.
    """
    return max(LEAST, NOISE * check(server, name, prompts, base, [], MOST))


def check(
    server: "Server",
    name: str,
    prompts: list[list[int]],
    wanted: Known,
    others: list[Known],
    most: float,
) -> float:
    """Ask a server for what comes after each prompt, repeatedly, and compare.

    Args:
        server: a vLLM server.
        name: of the model or adapter that is asked.
        prompts: token ids.
        wanted: what it should answer.
        others: what it might answer instead; named if it does.
        most: nats that the likeliest next tokens may be off, on average over them.

    Returns:
        The largest of these averages over prompts and repetitions.

    Raises:
        ServerError: an answer is too far off; or there is none.
    """
    worst = 0.0
    for time in range(TIMES):
        for b, prompt in enumerate(prompts):
            top = next_log_probs(server, name, prompt)
            far = distance(top, wanted, b)
            if not far <= most:
                as_whom = next((x.name for x in others if distance(top, x, b) <= most), None)
                raise ServerError(
                    f"{name} is {far:.3g} nats off {wanted.name}"
                    + (" when a prompt is repeated" if time else "")
                    + (f", it answers as {as_whom} does" if as_whom else "")
                    + f"; {most:.2g} are allowed"
                )
            worst = max(worst, far)
    return worst


def distance(top: Mapping[int, float], known: Known, b: int) -> float:
    """Average over tokens how far log-probabilities are from a model's, nats.

    Args:
        top: token id -> log-probability.
        known: the model.
        b: which prompt.

    Returns:
        Infinite where there is nothing to compare.
    """
    own = known.of(b, top)
    return fmean(abs(top[token] - own[token]) for token in top) if top else math.inf


def check_texts(server: "Server", name: str, texts: Sequence[str], wanted: Sequence[str]) -> None:
    """Compare greedy continuations, for servers that give no log-probabilities.

    Args:
        server: any server of the OpenAI protocol.
        name: of the model that is asked.
        texts: that it continues.
        wanted: what by, but for white space.

    Raises:
        ServerError: one is another; or there is none.
    """
    for text, own in zip(texts, wanted, strict=True):
        said = continuation(server, name, text, CONTINUED)
        if said.split() != own.split():
            words = f"{one_line(said, 80)!r}, not {one_line(own, 80)!r}"
            raise ServerError(
                f"{name} does not answer as the run's own model does: it says {words}"
            )


def side_by_side(
    server: "Server", prompt: str, names: Sequence[str] = (BASE, ALIAS), max_tokens: int = 64
) -> dict[str, str]:
    """Let the base model and ``fed`` continue a text greedily.

    Raises:
        ModelFailed: the server did not answer.
    """
    try:
        return {name: continuation(server, name, prompt, max_tokens) for name in names}
    except LLMError as error:
        raise ModelFailed(str(error)) from None
