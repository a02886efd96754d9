"""Turns folders of plain text into clean story passages for `train.py`.

It knows about books and files, not about tokens or tensors: wrapped lines become paragraphs, what is not
prose (licence text, contents lists, headings, pictures) goes, and documents are set aside for judging
before anything else sees them. No randomness: the same folder always gives the same passages.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STORY_SEPARATOR = "<|endoftext|>"
MAX_PASSAGE_CHARS = 2200
"""About one training window: longer stories are cut between paragraphs."""
MIN_PASSAGE_CHARS = 200
MIN_FINGERPRINT_CHARS = 60
"""Shorter paragraphs («Yes,» said he.) repeat honestly, so they do not mark a copied text."""
HELD_OUT_FILE_ONE_IN = 40
HELD_OUT_STORY_ONE_IN = 20
MIN_FILES_TO_HOLD_OUT_WHOLE = 20

_GUTENBERG_START = re.compile(r"\*\*\* ?START OF[^\n]*\n", re.IGNORECASE)
_GUTENBERG_END = re.compile(r"\*\*\* ?END OF|\nEnd of (?:the )?Project Gutenberg", re.IGNORECASE)
_BRACKETED = re.compile(r"\[[^\]]{0,400}\]")
_BACK_MATTER = re.compile(
    r"\n(?:NOTES(?: AND REFERENCES)?|FOOTNOTES|INDEX|GLOSSARY|APPENDIX|TRANSCRIBER'S NOTES?)[.:]?\n"
)
_SENTENCE_END = re.compile(r"""[.!?]["')]*$""")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_MISREAD = {
    "\u2122": "'",
    "\u02dc": "'",
    "\u0153": '"',
    "\u201d": " - ",
    "\u201c": " - ",
    "\u00a6": "...",
    "\x9d": '"',
    "": '"',
}
"""Third character -> meaning of punctuation whose UTF-8 bytes were once read as Windows-1252."""
_PLAIN_CHARACTERS = {"\u00e2\u20ac" + third: plain for third, plain in _MISREAD.items()} | {
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2026": "...",
    "\u2013": " - ",
    "\u2014": " - ",
    "--": " - ",
    "\ufeff": "",
    "\u00a0": " ",
    "_": "",
    "*": "",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole paragraphs of one story."""

    text: str
    """Paragraphs parted by an empty line, no line break inside one."""
    ends_story: bool
    """False where the story goes on in a later passage: no end mark may follow."""


@dataclass(frozen=True, slots=True)
class Source:
    """One folder of text, divided into what is learned and what only judges."""

    name: str
    train: list[Passage]
    held_out: list[Passage]


def read_source(folder: Path) -> Source:
    """Read every `*.txt` below `folder`; the folder's own name becomes the source's name."""
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise FileNotFoundError(f"no .txt file in {folder}")
    by_file = len(files) >= MIN_FILES_TO_HOLD_OUT_WHOLE
    train: list[Passage] = []
    held_out: list[Passage] = []
    for file in files:
        for story in split_stories(file.read_text(encoding="utf-8", errors="replace")):
            if by_file:
                is_held_out = _one_in(HELD_OUT_FILE_ONE_IN, file.name)
            else:
                is_held_out = _one_in(HELD_OUT_STORY_ONE_IN, story[0])
            (held_out if is_held_out else train).extend(cut_passages(story))
    return Source(folder.name, *_without_copies(train, held_out))


def split_stories(text: str) -> Iterator[list[str]]:
    """Give each story of a file as its list of paragraphs."""
    text = plain_text(text)
    if STORY_SEPARATOR in text:
        blocks = text.split(STORY_SEPARATOR)
        stories: Iterator[list[str]] = ([_joined(line) for line in block.split("\n")] for block in blocks)
    else:
        stories = _book_stories(text)
    for story in stories:
        if paragraphs := [paragraph for paragraph in story if paragraph]:
            yield paragraphs


def plain_text(text: str) -> str:
    """Drop licence text, pictures and typographic characters that a child's book does not need."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if start := _GUTENBERG_START.search(text):
        text = text[start.end() :]
    if end := _GUTENBERG_END.search(text):
        text = text[: end.start()]
    for written, plain in _PLAIN_CHARACTERS.items():
        text = text.replace(written, plain)
    return _BRACKETED.sub("", text)


def cut_passages(paragraphs: list[str]) -> Iterator[Passage]:
    """Cut one story between paragraphs into pieces of at most about MAX_PASSAGE_CHARS."""
    pieces: list[list[str]] = [[]]
    size = 0
    for paragraph in paragraphs:
        if pieces[-1] and size + len(paragraph) > MAX_PASSAGE_CHARS:
            pieces.append([])
            size = 0
        pieces[-1].append(paragraph)
        size += len(paragraph)
    for number, piece in enumerate(pieces, start=1):
        text = "\n\n".join(piece)
        if len(text) >= MIN_PASSAGE_CHARS:
            yield Passage(text, ends_story=number == len(pieces))


def keep_simplest(source: Source, model: Source, share: float) -> Source:
    """Keep the `share` of the passages whose words are the commonest ones in `model`.

    Old books are written above a small model's head. The mean log frequency of a passage's words in the
    plain source tells the simple ones apart without anyone reading them; the cut is set on the training
    part and then applied to the held-out part, so both keep the same kind of text.
    """
    counts = Counter(word for passage in model.train for word in _WORD.findall(passage.text.lower()))
    total = sum(counts.values()) + len(counts)

    def plainness(passage: Passage) -> float:
        words = _WORD.findall(passage.text.lower())
        return sum(math.log((counts[word] + 1) / total) for word in words) / max(1, len(words))

    ranked = sorted((plainness(passage) for passage in source.train), reverse=True)
    if not ranked:
        return source
    threshold = ranked[min(len(ranked) - 1, int(len(ranked) * share))]
    kept = [[p for p in part if plainness(p) >= threshold] for part in (source.train, source.held_out)]
    return Source(source.name, *kept)


def _book_stories(text: str) -> Iterator[list[str]]:
    """Headings part the stories of a book; whatever does not read as prose is left out."""
    if (notes := _BACK_MATTER.search(text, len(text) // 2)) is not None:
        text = text[: notes.start()]
    story: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        paragraph = _joined(block)
        if _is_heading(paragraph):
            yield story
            story = []
        elif _is_prose(block, paragraph):
            story.append(paragraph)
    yield story


def _joined(block: str) -> str:
    return " ".join(block.split())


def _is_heading(paragraph: str) -> bool:
    letters = [character for character in paragraph if character.isalpha()]
    return len(letters) > 2 and len(paragraph) < 90 and not any(letter.islower() for letter in letters)


def _is_prose(block: str, paragraph: str) -> bool:
    """A sentence that starts and ends as one, is not verse, and is not a page or price list."""
    lines = [line for line in block.split("\n") if line.strip()]
    is_verse = len(lines) > 1 and max(map(len, map(str.strip, lines))) < 50
    starts_well = paragraph[:1].isupper() or paragraph[:1] in "\"'"
    num_digits = sum(map(str.isdigit, paragraph))
    return bool(starts_well and not is_verse and num_digits < 4 and _SENTENCE_END.search(paragraph))


def _without_copies(train: list[Passage], held_out: list[Passage]) -> tuple[list[Passage], list[Passage]]:
    """Drop every passage that shares a paragraph with an earlier one, the held-out ones coming first.

    Collections reprint each other: without this a held-out story would be learned from another book.
    """
    seen: set[bytes] = set()
    kept: list[list[Passage]] = []
    for part in (held_out, train):
        kept.append([])
        for passage in part:
            marks = set(_fingerprints(passage.text))
            if not marks & seen:
                kept[-1].append(passage)
            seen |= marks
    return kept[1], kept[0]


def _fingerprints(text: str) -> Iterator[bytes]:
    for paragraph in text.split("\n\n"):
        letters = "".join(_WORD.findall(paragraph.lower()))
        if len(letters) >= MIN_FINGERPRINT_CHARS:
            yield hashlib.sha1(letters.encode()).digest()


def _one_in(number: int, name: str) -> bool:
    return int.from_bytes(hashlib.sha1(name.encode()).digest()[:8]) % number == 0
