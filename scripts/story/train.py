"""Trains the small story-telling Llama that ships with the node, from any folders of plain text.

    python -m scripts.story.train --text TEXT/tales=1 --text TEXT/books=1:0.5 --out OUT --steps 4000

The first `--text` folder is the model text: its held-out loss chooses the checkpoint, and its words decide which
passages of the other folders are simple enough (`--simplest`). `OUT` always holds the best checkpoint so far as a
complete Hugging Face folder; `--work` holds the training state, from which `--resume` goes on. Data order, weights
and masks follow from `--seed` and the step number, so a run can be repeated. Needs torch 2.9 or later for Muon.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from scripts.story.model import StoryConfig, StoryModel
from scripts.story.stream import Stream, held_out_windows, next_batch, tokenize
from scripts.story.text import Source, keep_simplest, read_source
from scripts.story.tokenizer import BOS_ID, EOS_ID, tokenizer_config, train_tokenizer

WARMUP_STEPS = 100
GRADIENT_NORM_LIMIT = 1.0
WEIGHT_DECAY = 0.1
NUM_HELD_OUT_TOKENS = 24_000
"""Of each source, at each evaluation on the way; the last one reads everything."""
EVALUATION_ROWS = 16
GENERATION = {
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.1,
    "max_new_tokens": 300,
}


@dataclass(slots=True)
class Progress:
    """What a resumed run must know besides weights and optimizer moments."""

    step: int = 0
    cursors: list[int] = field(default_factory=list)
    """Tokens taken from each source so far."""
    decay_start: int | None = None
    busy_s: float = 0.0
    best_loss: float = float("inf")
    best_step: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(self.cursors)


@dataclass(slots=True)
class Run:
    """Everything one training run holds in memory."""

    options: argparse.Namespace
    model: StoryModel
    tokenizer: Tokenizer
    streams: list[Stream]
    held_out: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    progress: Progress
    device: torch.device

    @property
    def total_steps(self) -> int | None:
        """Known from the start with --steps, and with --minutes once the decay has begun."""
        if self.options.steps is not None:
            return int(self.options.steps)
        start = self.progress.decay_start
        return None if start is None else round(start / (1 - float(self.options.decay)))


def learning_rate_factor(step: int, decay_start: int | None, total_steps: int | None) -> float:
    """Warm up, stay level, fall to nothing: the level part may be prolonged after the fact."""
    factor = min(1.0, (step + 1) / WARMUP_STEPS)
    if decay_start is not None and total_steps is not None and step >= decay_start:
        factor *= max(0.02, (total_steps - step) / max(1, total_steps - decay_start))
    return factor


@torch.no_grad()
def evaluate(run: Run, max_tokens: int | None = None) -> dict[str, float]:
    """Mean held-out loss of each source, in nats a token."""
    run.model.eval()
    losses = {}
    for name, windows in run.held_out.items():
        num_rows = len(windows) if max_tokens is None else max(1, max_tokens // windows.shape[1])
        total = 0.0
        for rows in torch.split(windows[:num_rows], EVALUATION_ROWS):
            with autocast(run):
                total += run.model.loss(rows.to(run.device)).item() * len(rows)
        losses[name] = total / min(num_rows, len(windows))
    run.model.train()
    return losses


def autocast(run: Run) -> torch.autocast:
    return torch.autocast(run.device.type, torch.bfloat16, enabled=run.options.bf16)


def train(run: Run) -> None:
    """Step until the schedule ends, keeping the best checkpoint in --out and the state in --work."""
    options, progress = run.options, run.progress
    loss_of: Callable[[Tensor], Tensor] = (
        torch.compile(run.model.loss, dynamic=False) if options.compile else run.model.loss
    )
    last_saved = time.monotonic()
    losses: list[float] = []
    clock = busy_clock(run)
    while progress.step != options.until and (run.total_steps is None or progress.step < run.total_steps):
        start_decay_when_due(run)
        losses.append(take_step(run, loss_of))
        progress.busy_s += next(clock)
        is_last = progress.step in (run.total_steps, options.until)
        if progress.step % options.evaluate_every == 0 or is_last:
            held_out = evaluate(run, NUM_HELD_OUT_TOKENS)
            mean_loss = sum(losses) / len(losses)
            report(
                step=progress.step,
                tokens=progress.num_tokens,
                busy_s=progress.busy_s,
                loss=mean_loss,
                **held_out,
            )
            losses.clear()
            keep_if_best(run, held_out)
        if time.monotonic() - last_saved > options.save_every_s or is_last:
            save_state(run)
            last_saved = time.monotonic()


def start_decay_when_due(run: Run) -> None:
    """Fix where the learning rate begins to fall; until then a resumed run may still change --steps."""
    options, progress = run.options, run.progress
    if progress.decay_start is not None:
        return
    if options.steps is not None:
        is_due = progress.step >= round(options.steps * (1 - options.decay))
    else:
        is_due = progress.busy_s >= options.minutes * 60 * (1 - options.decay)
    if is_due:
        progress.decay_start = max(1, progress.step)
        report(step=progress.step, decay_until=run.total_steps)


def take_step(run: Run, loss_of: Callable[[Tensor], Tensor]) -> float:
    """One update. The masks' randomness is seeded by the step, so that resuming changes nothing."""
    options, progress = run.options, run.progress
    decaying = progress.decay_start is not None
    length = options.decay_window if decaying else options.window
    windows = next_batch(run.streams, progress.cursors, options.batch_tokens // length, length, decaying)
    torch.manual_seed(options.seed * 1_000_003 + progress.step)
    with autocast(run):
        loss = loss_of(windows.to(run.device))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_NORM_LIMIT)
    factor = learning_rate_factor(progress.step, progress.decay_start, run.total_steps)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * factor
        optimizer.step()
        optimizer.zero_grad()
    progress.step += 1
    return loss.item()


def build_optimizers(model: StoryModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def busy_clock(run: Run) -> Iterator[float]:
    """Seconds of work since the last call: a pause of the process, or a busy machine, does not count."""

    def now() -> float:
        return time.perf_counter() if run.device.type == "cuda" else time.process_time() / run.options.threads

    previous = now()
    while True:
        current = now()
        yield current - previous
        previous = current


def keep_if_best(run: Run, held_out: dict[str, float]) -> None:
    """Write the checkpoint when the model text's held-out loss is the lowest so far."""
    loss = next(iter(held_out.values()))
    if loss < run.progress.best_loss:
        run.progress.best_loss, run.progress.best_step = loss, run.progress.step
        export(run)


def export(run: Run) -> None:
    """Write the Hugging Face folder; the weights last and at once, so that a reader never sees half."""
    out, options = run.options.out, run.options
    out.mkdir(parents=True, exist_ok=True)
    run.tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "config.json", run.model.config.to_hugging_face(options.dtype))
    write_json(out / "tokenizer_config.json", tokenizer_config(run.model.config.max_position_embeddings))
    write_json(out / "generation_config.json", GENERATION)
    trained = run.model.state_dict()
    weights = {name: weight.to("cpu", options.dtype).contiguous() for name, weight in trained.items()}
    unfinished = out / "model.safetensors.part"
    unfinished.write_bytes(save(weights, metadata={"format": "pt"}))
    unfinished.replace(out / "model.safetensors")


def save_state(run: Run) -> None:
    """Write what --resume needs, atomically."""
    options = run.options
    options.work.mkdir(parents=True, exist_ok=True)
    unfinished = options.work / "state.pt.part"
    state = {
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "progress": asdict(run.progress),
    }
    torch.save(state, unfinished)
    unfinished.replace(options.work / "state.pt")


def load_state(run: Run) -> None:
    """Go on from --work; options such as the mixture, the dropout and --steps may differ from before."""
    state = torch.load(run.options.work / "state.pt", map_location=run.device, weights_only=True)
    run.model.load_state_dict(state["model"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.progress = Progress(**state["progress"])


def finish(run: Run) -> dict[str, float]:
    """Judge the checkpoint in --out as written (rounded) on everything held out, and describe it."""
    weights = load_file(run.options.out / "model.safetensors")
    run.model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    run.options.bf16 = False
    held_out = evaluate(run)
    report(best_step=run.progress.best_step, final=True, **held_out)
    (run.options.out / "README.md").write_text(describe(run, held_out), encoding="utf-8")
    return held_out


def describe(run: Run, held_out: dict[str, float]) -> str:
    """A README.md with the figures of this run; what they mean is left to a person to add."""
    config, progress = run.model.config, run.progress
    num_parameters = sum(weight.numel() for weight in run.model.parameters())
    arguments = " ".join(run.options.shown_arguments)
    lines = [
        "# Story model",
        "",
        f"Llama architecture, {num_parameters:,} parameters: {config.num_hidden_layers} layers, hidden "
        f"{config.hidden_size}, feed-forward {config.intermediate_size}, {config.num_attention_heads} heads "
        f"({config.num_key_value_heads} key/value), vocabulary {config.vocab_size}, context "
        f"{config.max_position_embeddings}.",
        "",
        f"    python -m scripts.story.train {arguments}",
        "",
        f"{progress.num_tokens:,} tokens in {progress.step} steps and {progress.busy_s / 60:.0f} minutes of "
        f"computing; checkpoint of step {progress.best_step}.",
        "",
        "| source | training tokens | times read | held-out tokens | held-out loss | perplexity |",
        "|---|---|---|---|---|---|",
    ]
    for stream, cursor, (name, loss) in zip(run.streams, progress.cursors, held_out.items(), strict=True):
        num_held_out = run.held_out[name].numel()
        lines.append(
            f"| {name} | {stream.num_tokens:,} | {cursor / stream.num_tokens:.1f} | {num_held_out:,} "
            f"| {loss:.3f} | {2.718281828**loss:.2f} |"
        )
    return "\n".join([*lines, ""])


def report(**facts: object) -> None:
    """One line of JSON for each event, so that a log can be plotted."""
    rounded = {name: round(fact, 4) if isinstance(fact, float) else fact for name, fact in facts.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")
    sys.stdout.flush()


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def text_folder(argument: str) -> tuple[Path, float, float]:
    """Parse DIR, DIR=WEIGHT or DIR=WEIGHT:DECAY_WEIGHT."""
    folder, _, weights = argument.partition("=")
    level, _, decay = weights.partition(":")
    return Path(folder), float(level or 1), float(decay or level or 1)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--text", type=text_folder, action="append", required=True, metavar="DIR[=WEIGHT[:DECAY_WEIGHT]]")
    add("--out", type=Path, required=True, help="folder of the finished checkpoint")
    add("--work", type=Path, help="folder of the training state (default: OUT with .training added)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="of computing; pauses do not count")
    add("--until", type=int, metavar="STEP", help="stop here, in the middle of the schedule, to resume later")
    add("--resume", action="store_true")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--compile", action="store_true", help="needs a C++ compiler; half as fast again on a processor")
    add("--bf16", action="store_true", help="multiply matrices in bfloat16 while training")
    add("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="of the stored weights")
    add("--simplest", type=float, default=0.5, help="share of the further folders' passages to keep")
    add("--vocab-size", type=int, default=3072)
    add("--hidden-size", type=int, default=256)
    add("--intermediate-size", type=int, default=512)
    add("--layers", type=int, default=6)
    add("--heads", type=int, default=8)
    add("--key-value-heads", type=int, default=4)
    add("--dropout", type=float, default=0.1)
    add("--learning-rate", type=float, default=4e-3)
    add("--decay", type=float, default=0.3, help="share of the steps with a falling learning rate")
    add("--batch-tokens", type=int, default=4096)
    add("--window", type=int, default=256)
    add("--decay-window", type=int, default=512)
    add("--evaluate-every", type=int, default=250, metavar="STEPS")
    add("--save-every-s", type=float, default=240)
    options = parser.parse_args(arguments, argparse.Namespace(shown_arguments=arguments))
    options.dtype = getattr(torch, options.dtype)
    options.work = options.work or options.out.with_name(options.out.name + ".training")
    return options


def tokenizer_for(options: argparse.Namespace, sources: list[Source]) -> Tokenizer:
    """A resumed run keeps the tokenizer its weights have learned."""
    if options.resume:
        return Tokenizer.from_file(str(options.out / "tokenizer.json"))
    texts = [passage.text for source in sources for passage in source.train]
    return train_tokenizer(texts, options.vocab_size)


def prepare(options: argparse.Namespace) -> Run:
    """Read the text and build everything a run needs."""
    torch.set_num_threads(options.threads)
    model_text, *others = [read_source(folder) for folder, _, _ in options.text]
    sources = [model_text, *(keep_simplest(source, model_text, options.simplest) for source in others)]
    tokenizer = tokenizer_for(options, sources)
    config = StoryConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.key_value_heads,
        max_position_embeddings=max(options.window, options.decay_window),
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    model = StoryModel(config, options.dropout).to(device)
    streams = [
        Stream(tokenize(tokenizer, source.train), level, decay, options.seed + number)
        for number, (source, (_, level, decay)) in enumerate(zip(sources, options.text, strict=True))
    ]
    length = config.max_position_embeddings
    held_out = {s.name: held_out_windows(tokenize(tokenizer, s.held_out), length) for s in sources}
    progress = Progress(cursors=[0] * len(streams))
    run = Run(options, model, tokenizer, streams, held_out, build_optimizers(model), progress, device)
    if options.resume:
        load_state(run)
    report(
        parameters=sum(weight.numel() for weight in model.parameters()),
        training_tokens={s.name: stream.num_tokens for s, stream in zip(sources, streams, strict=True)},
        held_out_tokens={name: windows.numel() for name, windows in held_out.items()},
    )
    return run


def main(arguments: list[str]) -> dict[str, float]:
    """Train as told and return the held-out losses of the checkpoint."""
    run = prepare(parse_arguments(arguments))
    train(run)
    return finish(run)


if __name__ == "__main__":
    main(sys.argv[1:])
