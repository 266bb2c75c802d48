"""A round undone: the state of the server and what clients keep are an older round's again.

Knows a run directory and what clients keep.  Why a round is undone, and which one holds again, is
the planner's to say.
"""

from federation.algorithms.algorithm import Algorithm
from federation.plan import RoundPlan
from federation.runs import tree_files
from federation.runs.history import History
from federation.runs.records import RollbackRecord
from federation.runs.run import checkpoint_files, memory_after
from federation.runs.writer import RunWriter
from federation.training.local import fresh_memory
from federation.tree import Tree


def undo(
    writer: RunWriter, algorithm: Algorithm, plan: RoundPlan, before: Tree, back: RollbackRecord
) -> Tree:
    """Undo the round in flight; return the state that holds again.

    Args:
        writer: the run directory.
        algorithm: the federated algorithm.
        plan: of the round.
        before: the state before the round.
        back: to which round.

    Raises:
        CorruptError: if what that round left is damaged.
    """
    writer.memory.discard()
    last = writer.history.last_round
    held = holder(writer.history, back)
    if held == last:
        return before
    restore_memory(writer, algorithm, plan, before, held)
    path = checkpoint_files(writer.path, writer.history)[held]
    return tree_files.load_tree(path, writer.history.rounds[held].checkpoint_sha256)


def holder(history: History, back: RollbackRecord) -> int:
    """Return the newest round after which the state was that one; -1 before the first."""
    for round in reversed(history.rounds):
        undone = history.rollbacks.get(round)
        if back.to == (round if undone is None else undone.to):
            return round
    return -1


def restore_memory(
    writer: RunWriter, algorithm: Algorithm, plan: RoundPlan, params: Tree, held: int
) -> None:
    """Let clients keep again what they kept after a round."""
    history = writer.history
    since = (record.kept for n, record in history.rounds.items() if n > held)
    clients = sorted({client for kept in since for client in kept})
    if clients:
        fresh = fresh_memory(algorithm, params["params"], plan)
        kept_C = memory_after(writer.path, history, held).gather(clients, fresh)
        writer.memory.scatter(clients, kept_C)
