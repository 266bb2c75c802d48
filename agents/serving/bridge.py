"""The bridge from a run to a vLLM server: its rounds become adapters, one of them is ``fed``.

A round is written to a folder of its own, loaded under its own name (``fed@r12``), and compared
with the run's own model; only then ``fed`` is turned to that folder, and compared again, as now its
prompts are repeated ones.  Whatever fails, ``fed`` stays what it was, or becomes it again, and the
record says so.  Rounds count from 0 here and from 1 in names.

``fed`` is turned in place, so that no request in between finds it missing.  For that vLLM reads the
folder again whenever ``fed`` is asked: folders stay as long as the server does.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.serving.health import Known, check
from agents.serving.records import ALIAS, BASE, Kept, Served, ServingRecord
from agents.synthesis.make import ModelFailed
from federation import releases
from federation.errors import FedpilotError
from federation.releases import Release, Source
from llm_tools import LLMError, Server, ServerError, adapters


@dataclass
class Bridge:
    """A run, a server, and which rounds are loaded.

    Attributes:
        source: the run.
        server: a vLLM server with at least two places for adapters.
        folder: where releases are written.
        prompts: that it is tested with.
        base: what the base model says to them.
        most: nats that an answer may be off.
        note: is told what happened.
        keep: how many rounds stay loaded beside the one that is served.
        current: what ``fed`` is; None before the first round.
        loaded: releases under names of their own, oldest first.
        known: what the model of a release says, by the release's hash.
    """

    source: Source
    server: Server
    folder: Path
    prompts: list[list[int]]
    base: Known
    most: float
    note: Callable[[ServingRecord], None]
    keep: int = 2
    current: Release | None = None
    loaded: dict[int, Release] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    _tried: tuple[int, str | None] | None = None

    def publish(self, round: int) -> Served | Kept:
        """Serve a round, a newer or an older one; if that fails, what was served stays.

        Args:
            round: from 0.

        Returns:
            What came of it, as it was noted.

        Raises:
            ModelFailed: the server died.
        """
        began = time.perf_counter()
        try:
            fresh = releases.release(self.source, round, self.folder)
            far = self._turn_to(fresh)
            took = time.perf_counter() - began
            folder, sha256 = fresh.folder.name, fresh.sha256
            record = Served(round=round, folder=folder, sha256=sha256, distance=far, seconds=took)
        except (FedpilotError, LLMError) as error:
            took = time.perf_counter() - began
            serving = self.current.round if self.current else None
            record = Kept(round=round, reason=str(error), serving=serving, seconds=took)
        self.note(record)
        self.alive()
        return record

    def catch_up(self) -> Served | Kept | None:
        """Serve the newest round of the run, if it is not the one that was tried last.

        Raises:
            ModelFailed: the server died.
            CorruptError: the run's journal was changed.
        """
        self.alive()
        self.source = self.source.refresh()
        round = releases.newest(self.source.run)
        if round is None:
            return None
        tried = round, self.source.run.history.rounds[round].checkpoint_sha256
        if tried == self._tried:
            return None
        self._tried = tried
        return self.publish(round)

    @property
    def names(self) -> list[str]:
        """What the server can be asked for: the base model, ``fed`` and rounds."""
        fed = [ALIAS] if self.current else []
        return [BASE, *fed, *(release.name for release in self.loaded.values())]

    def alive(self) -> None:
        """Make sure that the server runs.

        Raises:
            ModelFailed: it does not.
        """
        try:
            self.server.check()
        except LLMError as error:
            raise ModelFailed(str(error)) from None

    def _turn_to(self, fresh: Release) -> float:
        """Load a release, test it, make ``fed`` it, test that; return how far off it is at most."""
        self._load(fresh)
        try:
            far = self._test(fresh.name, fresh)
        except LLMError:
            with suppress(LLMError):  # the first failure is the one to tell
                self._unload(fresh.round)
            raise
        before = self.current
        adapters.load(self.server, ALIAS, fresh.folder, replace=True)
        try:
            far = max(far, self._test(ALIAS, fresh))
        except LLMError as failed:
            try:
                self._back_to(before)
            except LLMError as error:
                raise ServerError(f"{failed}; and fed could not be put back: {error}") from None
            raise
        self.current = fresh
        self._unload_oldest()
        return far

    def _load(self, fresh: Release) -> None:
        there = self.loaded.get(fresh.round)
        if there is None or there.folder != fresh.folder:
            adapters.load(self.server, fresh.name, fresh.folder, replace=there is not None)
        self.loaded.pop(fresh.round, None)
        self.loaded[fresh.round] = fresh

    def _back_to(self, before: Release | None) -> None:
        """Make ``fed`` what it was; rather no ``fed`` than a wrong one.

        Raises:
            LLMError: the server fails in this too.
        """
        self.current = None
        if before is not None:
            adapters.load(self.server, ALIAS, before.folder, replace=True)
            try:
                self._test(ALIAS, before)
            except LLMError:
                adapters.unload(self.server, ALIAS)
                raise
            self.current = before
        else:
            adapters.unload(self.server, ALIAS)

    def _test(self, name: str, release: Release) -> float:
        others = [known for sha256, known in self.known.items() if sha256 != release.sha256]
        wanted = self._known(release)
        return check(self.server, name, self.prompts, wanted, [self.base, *others], self.most)

    def _known(self, release: Release) -> Known:
        if release.sha256 not in self.known:
            log_probs = releases.next_log_probs(self.source, release.params, self.prompts)
            self.known[release.sha256] = Known(f"round {release.round + 1}", log_probs)
        return self.known[release.sha256]

    def _unload_oldest(self) -> None:
        assert self.current is not None
        others = [round for round in self.loaded if round != self.current.round]
        for round in others[: max(0, len(others) - self.keep)]:
            with suppress(LLMError):  # it is asked again after the next round
                self._unload(round)

    def _unload(self, round: int) -> None:
        release = self.loaded[round]
        adapters.unload(self.server, release.name)
        del self.loaded[round]
        self.known.pop(release.sha256, None)
