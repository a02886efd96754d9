"""Feeds clean passages to training as rows of tokens, in an order that follows from seed and position alone.

A source is an endless row of tokens and a cursor is a plain count, so resuming needs no saved randomness.
"""

from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.story.text import Passage
from scripts.story.tokenizer import EOS_ID

GOLDEN_RATIO = 0.6180339887498949


@dataclass(slots=True)
class Stream:
    """One source as an endless row of tokens, its passages shuffled anew in every epoch."""

    passages: list[Tensor]
    """Tokens of each passage, begin mark and (where the story ends) end mark included."""
    weight: float
    """Share of the tokens while the learning rate is level; only the ratio to other sources counts."""
    decay_weight: float
    """The same while the learning rate falls."""
    seed: int
    num_tokens: int = field(init=False)
    epochs: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_tokens = sum(len(passage) for passage in self.passages)

    def window(self, start: int, length: int) -> Tensor:
        """`length` + 1 tokens from absolute position `start`: the last one is only predicted."""
        epoch, offset = divmod(start, self.num_tokens)
        row = self._epoch(epoch)[offset : offset + length + 1]
        while len(row) < length + 1:
            epoch += 1
            row = torch.cat((row, self._epoch(epoch)))[: length + 1]
        return row.long()

    def _epoch(self, number: int) -> Tensor:
        if number not in self.epochs:
            self.epochs = {n: tokens for n, tokens in self.epochs.items() if n == number - 1}
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            order = torch.randperm(len(self.passages), generator=generator).tolist()
            self.epochs[number] = torch.cat([self.passages[index] for index in order])
        return self.epochs[number]


def next_batch(streams: list[Stream], cursors: list[int], rows: int, length: int, decaying: bool) -> Tensor:
    """Windows [rows, length + 1], the sources in their shares; advances `cursors`.

    Multiples of the golden ratio spread evenly, so any stretch of rows has the mixture asked for.
    """
    shares = torch.tensor([stream.decay_weight if decaying else stream.weight for stream in streams])
    bounds = (shares / shares.sum()).cumsum(0)
    windows = []
    for _ in range(rows):
        point = (sum(cursors) // length + 1) * GOLDEN_RATIO % 1.0
        chosen = min(int((bounds <= point).sum()), len(streams) - 1)
        windows.append(streams[chosen].window(cursors[chosen], length))
        cursors[chosen] += length
    return torch.stack(windows)


def tokenize(tokenizer: Tokenizer, passages: list[Passage]) -> list[Tensor]:
    """Token ids (int16) of each passage, ready for `Stream`."""
    encodings = tokenizer.encode_batch([passage.text for passage in passages])
    ends = [[EOS_ID] if passage.ends_story else [] for passage in passages]
    return [torch.tensor(e.ids + end, dtype=torch.int16) for e, end in zip(encodings, ends, strict=True)]


def held_out_windows(passages: list[Tensor], length: int) -> Tensor:
    """All held-out tokens of a source as windows [N, length + 1]; a rest shorter than one is left out."""
    tokens = torch.cat(passages).long()
    length = min(length, len(tokens) - 1)
    num_windows = (len(tokens) - 1) // length
    return torch.stack([tokens[n * length : (n + 1) * length + 1] for n in range(num_windows)])
