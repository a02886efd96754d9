"""A Llama-style tokenizer (BPE over `▁`-marked words, bytes for the rest) learned from the training text.

The file it makes is read by `tokenizers` alone. Whatever text comes in comes out again: characters the
vocabulary lacks are spelled in their UTF-8 bytes. Exceptions, as with Llama 2: the mark `▁` (U+2581) itself
returns as a space, and the literal names of the special tokens are taken for the tokens.
"""

import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL_TOKENS = (UNKNOWN, BOS, EOS)
UNKNOWN_ID, BOS_ID, EOS_ID = range(3)
SPACE_MARK = "▁"
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
MIN_CHARACTER_COUNT = 100
"""Rarer characters go by bytes: the few accents that children's books use often stay."""

_ALPHABET = [SPACE_MARK, "\n", *(c for c in string.printable if c.isprintable() and c != " ")]
_PIECES = Regex(
    rf"{SPACE_MARK}?\p{{L}}+(?:'\p{{L}}+)?|{SPACE_MARK}?\p{{N}}|{SPACE_MARK}?[^{SPACE_MARK}\s\p{{L}}\p{{N}}]+|\n+|{SPACE_MARK}"
)
"""Merges never cross a word, a digit, a run of punctuation or a run of line breaks."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Learn a vocabulary of exactly `vocab_size` tokens; ids 0-2 are special, the next 256 are the bytes."""
    learner = _with_pipeline(Tokenizer(models.BPE()))
    num_learned = vocab_size - len(SPECIAL_TOKENS) - len(BYTE_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=num_learned,
        initial_alphabet=_ALPHABET,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(_without_rare_characters(texts), trainer)
    learned = json.loads(learner.to_str())["model"]
    by_id = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *BYTE_TOKENS, *by_id])}
    merges = [tuple(pair) for pair in learned["merges"]]
    model = models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    tokenizer = _with_pipeline(Tokenizer(model))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL_TOKENS])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def tokenizer_config(max_length: int) -> dict[str, object]:
    """The tokenizer_config.json that makes transformers use tokenizer.json as it is."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }


def _without_rare_characters(texts: Sequence[str]) -> Iterable[str]:
    """The trainer's own alphabet limit breaks ties at random, so the alphabet is settled beforehand."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    rare = {ord(c): " " for c, count in counts.items() if count < MIN_CHARACTER_COUNT and c not in _ALPHABET}
    return (text.translate(rare) for text in texts)


def _with_pipeline(tokenizer: Tokenizer) -> Tokenizer:
    """The steps around the model; the prepended mark lets a first word look like any other."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE_MARK), normalizers.Replace(" ", SPACE_MARK)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_PIECES, behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE_MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer
