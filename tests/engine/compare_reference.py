"""Compares the reference setting's greedy tokens and logits with transformers' on twenty prompts.

Run by hand: ``python -m tests.engine.compare_reference MODEL.gguf [TOKENS]`` where transformers and
gguf are installed; they are no dependency of edvac. A place is compared while both have chosen the
same tokens before it. Where they part, the gap between the two choices in each one's logits is
printed beside the largest difference of any logit there: a gap that is not larger is a tie that
rounding decides. The last line sums up; docs/benchmarks/reference.md keeps it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edvac.core.seams import SystemClock
from edvac.engine.answer import Answer
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.loader import LoadOptions, load
from edvac.engine.protocol import Generate, Segment
from edvac.engine.scheduler import Limits

from .prompts import QUESTIONS, rendered

TOKENS = 24


@dataclass
class Spoken:
    """What was chosen, place by place, and the logits it was chosen from."""

    tokens: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)


class Watched(Engine):
    """Notes what every answer is chosen from."""

    def watch(self) -> dict[str, Spoken]:
        self.spoken: dict[str, Spoken] = {}
        return self.spoken

    def _choose(self, answer: Answer, logits: torch.Tensor) -> int:
        token = super()._choose(answer, logits)
        spoken = self.spoken.setdefault(answer.request.id, Spoken())
        spoken.tokens.append(token)
        spoken.logits.append(logits.float().clone())
        return token


@dataclass
class Tally:
    encoded: int = 0
    answers: int = 0
    places: int = 0
    alike: int = 0
    furthest: float = 0.0  # the largest difference of a logit at any place compared


def ours(path: Path, most: int) -> tuple[dict[str, Spoken], list[list[int]], list[int]]:
    """What the engine says, how it encodes the prompts, and the tokens that end an answer."""
    with tempfile.TemporaryDirectory() as cache:
        options = LoadOptions(path, "0" * 64, Path(cache), True, lambda done, total: None)
        decoder, source = load(options)
    limits = Limits(slots=20, context=512, step_tokens=256, kv_tokens=10_000)
    engine = Watched(
        decoder, source.codec, EngineOptions(limits, True, torch.float32), SystemClock()
    )
    spoken = engine.watch()
    for number, question in enumerate(QUESTIONS):
        segments = [Segment(rendered(question), control=True)]
        engine.submit(Generate(id=str(number), segments=segments, max_tokens=most))
    while engine.busy:
        engine.step()
    encoded = [source.codec.encode(rendered(question), control=True) for question in QUESTIONS]
    return spoken, encoded, sorted(source.codec.specials.ends)


def compare(question: str, mine: Spoken, peer: Spoken, tally: Tally) -> None:
    for place, (one, other) in enumerate(zip(mine.tokens, peer.tokens, strict=False)):
        tally.places += 1
        width = min(len(mine.logits[place]), len(peer.logits[place]))
        apart = float((mine.logits[place][:width] - peer.logits[place][:width]).abs().max())
        tally.furthest = max(tally.furthest, apart)
        if one != other:
            gaps = [
                float(said.logits[place][token] - said.logits[place][rival])
                for said, token, rival in ((mine, one, other), (peer, other, one))
            ]
            sys.stdout.write(
                f"{question!r}: place {place}, ours {one}, the peer's {other}; gap {gaps[0]:.6f} in"
                f" our logits, {gaps[1]:.6f} in the peer's; logits differ by at most {apart:.6f}\n"
            )
            return
        tally.alike += 1
    tally.answers += len(mine.tokens) == len(peer.tokens)


def main() -> int:
    path = Path(sys.argv[1]).resolve()
    most = int(sys.argv[2]) if len(sys.argv) > 2 else TOKENS
    spoken, encoded, ends = ours(path, most)
    folder, name = str(path.parent), path.name
    peer = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tally = Tally()
    for number, question in enumerate(QUESTIONS):
        ids = tokenizer(rendered(question), add_special_tokens=False).input_ids
        tally.encoded += ids == encoded[number]
        with torch.inference_mode():
            found = peer.generate(
                torch.tensor([ids]),
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=ends,
                output_logits=True,
                return_dict_in_generate=True,
            )
        said = Spoken(found.sequences[0][len(ids) :].tolist(), [one[0] for one in found.logits])
        compare(question, spoken[str(number)], said, tally)
    sys.stdout.write(
        f"prompts encoded alike {tally.encoded}/20, answers alike {tally.answers}/20, tokens alike"
        f" {tally.alike}/{tally.places}, logits differ by at most {tally.furthest:.2g}\n"
    )
    return 0 if tally.answers == len(QUESTIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
