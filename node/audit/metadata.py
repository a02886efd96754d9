"""What sizes, counts, order and times of messages tell about a text, whatever the messages hold.

A classifier gets what one peer, or all together, can measure of each request, and learns from all other requests
which topic, language and length such figures belong to. This is no claim but a figure: peers do learn from metadata.
Only the length of an answer that was padded must not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.audit.client import Asked, Client, Settings
from node.audit.findings import Finding, Kind, Section, by_chance, percent
from node.audit.prompts import TEXTS
from node.audit.statistics import Numbers, wilson
from node.audit.tap import Tapped, read_tap
from node.audit.workers import Workers
from node.planning.placement import Lend
from node.privacy import Privacy
from node.store.stored import StoredModel
from protocol.limits import row_bucket
from protocol.linear.messages import ChunkBinding

SHORTEST, LONGEST = 4, 32
"""Tokens of the answers; how many each has is drawn."""
PAD_OUTPUT = 32
NEIGHBOURS = 5
SOME_ORDERS, MANY_ORDERS = 1_000, 20_000
"""Random orders of the labels with which a guess is compared; a claim needs more of them."""
METADATA = "metadata"
ANSWER = "length of the answer"
Stamp = tuple[int, ChunkBinding]
"""When a request came, and what it was bound to."""


def audit_metadata(model: StoredModel, workers: Workers, client: Client, pad_output: int, seed: int = 5) -> Section:
    """Ask many texts, and guess what they were by their metadata."""
    tokenizer, generator = model.tokenizer(), np.random.default_rng(seed)
    texts = [TEXTS[index] for index in generator.permutation(len(TEXTS))]
    limits = generator.integers(SHORTEST, LONGEST + 1, len(texts)).tolist()
    workers.cut()
    settings = Settings(Privacy.SPLIT, Lend.LAYERS, 0, lanes=1, pad_output=pad_output, to_the_end=True)
    every = client.ask(settings, [tokenizer.encode(text.words) for text in texts], limits).asked
    asked = [one for one in every if one.used_peers]
    texts = [texts[one.number] for one in asked]
    taps = [tapped for records in workers.cut().values() if (tapped := read_tap(records)).sessions]
    lengths = [len(one.token_ids) - one.num_prompt for one in asked]
    questions = {
        "topic": [text.topic for text in texts],
        "language": [text.language for text in texts],
        "length of the prompt": thirds([one.num_prompt for one in asked]),
        ANSWER: thirds(lengths),
    }
    measured = np.array([np.concatenate([measures(tapped, one) for tapped in taps]) for one in asked])
    findings = [_guessed(what, labels, measured, bool(pad_output)) for what, labels in questions.items()]
    name = f"{METADATA}, {f'answers padded to {pad_output}' if pad_output else 'answers not padded'}"
    return Section(model.name, name, [*findings, _sequences(taps, asked)])


def _guessed(what: str, labels: Sequence[str], measured: Numbers, is_padded: bool) -> Finding:
    is_claim = is_padded and what == ANSWER
    guess = guess_labels(measured, labels, MANY_ORDERS if is_claim else SOME_ORDERS)
    count = len(labels)
    low, high = wilson(guess.right, count)
    seen = f"{percent(guess.right / count)} ({100 * low:.0f}–{100 * high:.0f}), chance {percent(guess.chance)}"
    figures = {"right": guess.right, "of": count, "chance": guess.chance, "interval": [low, high]}
    if is_claim:
        return by_chance(what, guess.p, seen, figures)
    return Finding(Kind.FIGURE, what, seen, figures={**figures, "p": guess.p})


def measures(tapped: Tapped, asked: Asked) -> Numbers:
    """What one peer can measure of a request."""
    stamps = _stamps(tapped, asked)
    if not stamps:
        return np.zeros(10)
    times = np.array([at_ns for at_ns, _binding in stamps]) / 1e9
    rows = np.array([binding.num_rows for _at, binding in stamps])
    gaps = np.diff(times) if len(times) > 1 else np.zeros(1)
    most = Counter(binding.unit for _at, binding in stamps).most_common(1)[0][1]
    figures = [len(stamps), most, rows.sum(), rows.max(), (rows == rows.max()).sum(), times[-1] - times[0]]
    return np.array([*figures, gaps.mean(), np.median(gaps), np.quantile(gaps, 0.9), gaps.max()], dtype=np.float64)


def _stamps(tapped: Tapped, asked: Asked) -> list[Stamp]:
    every = [(share.at_ns, share.binding) for share in tapped.shares]
    every += [(seed.at_ns, seed.binding) for seed in tapped.seeds]
    return sorted(
        (stamp for stamp in every if asked.began_ns <= stamp[0] <= asked.ended_ns), key=lambda stamp: stamp[0]
    )


class Guess(Struct, frozen=True):
    """How well labels are guessed by figures."""

    right: int
    chance: float
    """The mean share that the same guesser gets right where labels are in a random order."""
    p: float
    """The chance that it gets so many right then."""


def guess_labels(measured: Numbers, labels: Sequence[str], orders: int, seed: int = 3) -> Guess:
    """Guess each label by the nearest of the others: by each figure alone and by all together, whichever is best.

    Choosing the best one favours the guesser, as much with labels in a random order, with which it is compared.

    Args:
        measured: [requests, figures].
        orders: how many random orders.
    """
    spread = measured.std(axis=0)
    values = (measured - measured.mean(axis=0)) / np.where(spread > 0, spread, 1)
    nearest = np.stack([_nearest(part) for part in (*np.split(values, values.shape[1], axis=1), values)])
    _names, numbers = np.unique(labels, return_inverse=True)
    right, generator = _most_right(nearest, numbers), np.random.default_rng(seed)
    by_chance_right = [_most_right(nearest, generator.permutation(numbers)) for _ in range(orders)]
    as_good = sum(other >= right for other in by_chance_right)
    return Guess(right, float(np.mean(by_chance_right)) / len(labels), (as_good + 1) / (orders + 1))


def _nearest(values: Numbers) -> NDArray[np.int64]:
    """For each request, the requests with the nearest figures: [requests, neighbours]."""
    distances = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]


def _most_right(nearest: NDArray[np.int64], numbers: NDArray[np.int64]) -> int:
    votes = (numbers[nearest][..., None] == np.arange(numbers.max() + 1)).sum(axis=2)
    return int((votes.argmax(axis=2) == numbers).sum(axis=1).max())


def thirds(lengths: Sequence[int]) -> list[str]:
    """Short, middle or long, about as many of each."""
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    return ["short" if length <= low else "middle" if length <= high else "long" for length in lengths]


def _sequences(taps: Sequence[Tapped], asked: Sequence[Asked]) -> Finding:
    """Of requests with one bucket and one number of passes: how many gave the share guard the same requests in the
    same order. Others differ by a chunk that was late or sent again."""
    tapped = next(tapped for tapped in taps if tapped.shares)
    groups: dict[tuple[int, int], list[tuple[tuple[bytes, int], ...]]] = {}
    for one in asked:
        sequence = tuple((binding.unit, binding.num_rows) for _at, binding in _stamps(tapped, one))
        size = row_bucket(one.num_prompt), len(one.token_ids) - one.num_prompt
        groups.setdefault(size, []).append(sequence)
    several = [group for group in groups.values() if len(group) > 1]
    same = sum(Counter(group).most_common(1)[0][1] for group in several)
    count = sum(map(len, several))
    seen = f"{same} of {count}"
    return Finding(
        Kind.FIGURE, "same sizes, same requests in the same order", seen, figures={"same": same, "of": count}
    )
