"""Documents for pre-training, read from a folder of public texts.

Knows the layout of the folder and how each source is cleaned; knows nothing of tokens or models.
What models are judged on is left out here, at the source: Dolly's global test (``client == -1``)
and the last tenth of every Shakespeare role.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from federation.data import organisations
from federation.errors import DataError

Documents = Iterator[str]


def instruction(prompt: str, response: str, separator: str = "\n") -> str:
    """Write an instruction as fine-tuning data writes it: stripped prompt, separator, response."""
    return f"{prompt.strip()}{separator}{response.strip()}"


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file.

    Raises:
        DataError: if it is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; --data names the folder of the texts")
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def read_text(path: Path) -> str:
    """Read a text file with Unix line ends."""
    return path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")


def dolly(folder: Path) -> Documents:
    """Instructions of databricks-dolly-15k, without the global test and what repeats it."""
    rows = list(json_lines(folder / "dolly" / "dolly15k_fedit10.jsonl"))
    test = [row for row in rows if row["client"] == -1]
    held_out = {letters(row[field]) for row in test for field in ("context", "response")}
    telling = [text for text in held_out if len(text) >= 30]  # a short answer may be anyone's
    for row in rows:
        document = instruction(f"{row['instruction']}\n{row['context']}", row["response"])
        own = letters(document)
        if row["client"] != -1 and not any(text in own for text in telling):
            yield document


def letters(text: str) -> str:
    """Reduce a text to its letters, so that copies are found however they are punctuated."""
    return re.sub("[^a-z]", "", text.lower())


def gsm8k(folder: Path) -> Documents:
    """Grade-school problems (train only) without the calculator's annotations."""
    for row in json_lines(folder / "gsm8k" / "train.jsonl"):
        answer = re.sub(r"<<[^>]*>>", "", row["answer"])
        yield instruction(row["question"], answer.replace("#### ", "Answer: "))


def gutenberg(folder: Path) -> Documents:
    """Books; in the NLTK selection signs stand apart, here they are put back into prose.

    Without the plays: they hold the speeches that :func:`shakespeare` leaves out.
    """
    paths = sorted((folder / "gutenberg").glob("*.txt"))
    if not paths:
        raise DataError(f"{folder / 'gutenberg'}: no books; --data names the folder of the texts")
    for path in paths:
        if path.name.startswith("shakespeare-"):
            continue
        book = re.sub(r"^\[[^\]]*\]", "", read_text(path)).split("End of Project Gutenberg")[0]
        lines = [untokenised(line) for line in book.splitlines() if line.strip()]
        yield from pages([" ".join(lines[i : i + 6]) for i in range(0, len(lines), 6)])


APART = (  # signs that stand apart in tokenised text, and how they are written
    (r"(?<!\S)_ | _(?!\S)", ""),  # italics
    (r"``\s?", '"'),
    (r"\s?''", '"'),
    (r"`\s", "'"),
    (r"\s([,.;:!?)\]])", r"\1"),
    (r"([(\[])\s", r"\1"),
    (r"\s(n't|'(?:s|ll|re|ve|d|st|m|S))\b", r"\1"),
    (r"\s'(?=[\s,.;:!?]|$)", "'"),
)


def untokenised(line: str) -> str:
    """Write a line of tokenised text as it is printed in books."""
    for pattern, printed in APART:
        line = re.sub(pattern, printed, line)
    return line.strip()


def pages(paragraphs: list[str], characters: int = 6000) -> Documents:
    """Join paragraphs into documents of about so many characters."""
    page: list[str] = []
    size = 0
    for paragraph in paragraphs:
        page.append(paragraph)
        size += len(paragraph)
        if size >= characters:
            yield "\n\n".join(page)
            page, size = [], 0
    if page:
        yield "\n\n".join(page)


def presidents(folder: Path) -> Documents:
    """Inaugural and State of the Union addresses."""
    for name in ("inaugural", "state_union"):
        for row in json_lines(folder / "presidents" / f"{name}.jsonl"):
            paragraphs = re.split(r"\n\s*\n|\n(?=[A-Z])", row["text"].replace("\r", ""))
            joined = [re.sub(r"\s*\n\s*", " ", p).strip() for p in paragraphs]
            yield from pages([p for p in joined if p])


def shakespeare(folder: Path) -> Documents:
    """Speeches of each role but the last tenth of them."""
    for row in json_lines(folder / "shakespeare" / "roles.jsonl"):
        if row["play"] == "r_and_j":  # overlaps with another edition of the same play
            continue
        speeches = row["text"][: len(row["text"]) * 9 // 10]
        yield from pages([f"{row['role']}:\n{speech}" for speech in speeches])


def tinystories(folder: Path) -> Documents:
    """Stories for small children; a single newline ends a story, blank lines are paragraphs."""
    text = read_text(folder / "tinystories" / "tiny_stories_944k.txt")
    for story in re.split(r"(?<!\n)\n(?!\n)", text):
        if story.strip():
            yield story.strip()


def generated(count: int) -> Callable[[Path], Documents]:
    """Instructions that the project writes itself, ``count`` of them."""

    def documents(folder: Path) -> Documents:
        for row in organisations.pretraining_rows(0, count):
            yield instruction(f"{row['instruction']}\n{row['context']}", str(row["response"]))

    return documents


SOURCES: dict[str, Callable[[Path], Documents]] = {
    "dolly": dolly,
    "gsm8k": gsm8k,
    "gutenberg": gutenberg,
    "presidents": presidents,
    "shakespeare": shakespeare,
    "tinystories": tinystories,
    "generated": generated(250_000),
}
