"""Whether explanations state what is true, and whether what is not true would be refused.

Explanations are those of agents.explain; a mutated one has a digit of a number changed.
"""

import re
from dataclasses import dataclass

from agents.claims import NUMBER, Claim, unsupported
from agents.explain import explained
from federation.runs.history import History


@dataclass
class Checked:
    """How explanations fared.

    Attributes:
        claims, numbers: that were made.
        wrong: numbers that the record does not support.
        mutated: claims of which a number was changed.
        refused: those of them that were refused.
    """

    claims: int = 0
    numbers: int = 0
    wrong: int = 0
    mutated: int = 0
    refused: int = 0

    @property
    def precision(self) -> float:
        """Share of the numbers that the record supports."""
        return 1 - self.wrong / self.numbers if self.numbers else 1.0

    def take(self, history: History) -> None:
        """Check the explanation of every round, and mutations of its claims."""
        for round in history.rounds:
            claims, facts = explained(history, round)
            for claim in claims:
                self.claims += 1
                self.numbers += len(NUMBER.findall(claim.text))
                self.wrong += len(unsupported(claim, facts))
                for changed in mutations(claim):
                    self.mutated += 1
                    self.refused += bool(unsupported(changed, facts))


def mutations(claim: Claim) -> list[Claim]:
    """Return the claim with one number changed in its leading digit, for every measured number."""
    found = []
    for match in NUMBER.finditer(claim.text):
        if "." not in match.group():
            continue  # counts are so few that another one may be true as well
        digits = re.sub(r"\d", lambda x: str((int(x.group()) + 5) % 10), match.group(), count=1)
        text = claim.text[: match.start()] + digits + claim.text[match.end() :]
        found.append(claim.model_copy(update={"text": text}))
    return found
