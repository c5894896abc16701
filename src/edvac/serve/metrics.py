"""Counters of the service and of its engine, as Prometheus' text format has them.

What llama.cpp's server counts too has its name, so that what watches one watches the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edvac.engine.protocol import StatsReply
from edvac.processor import Answer, Timings

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Metrics:
    """What this service has answered since its start; calls that were given up are not in it."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt_ms: float = 0.0
    answer_ms: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    def count(self, answer: Answer) -> None:
        spent = answer.timings or Timings()
        self.prompt_tokens += answer.prompt_tokens - answer.cached_tokens
        self.cached_tokens += answer.cached_tokens
        self.answer_tokens += answer.completion_tokens
        self.prompt_ms += spent.prompt_ms
        self.answer_ms += spent.answer_ms
        self.drafted += spent.drafted
        self.accepted += spent.accepted

    def text(self, engines: Sequence[StatsReply], waiting: int) -> str:
        """
        Args:
            engines: their counters, in which runs and other clients count too.
            waiting: calls that wait for their turn here.
        """
        engine = _sum_of(engines)
        rows = [
            ("llamacpp:prompt_tokens_total", "Prompt tokens computed.", self.prompt_tokens),
            ("llamacpp:prompt_tokens_cached_total", "Prompt tokens known.", self.cached_tokens),
            ("llamacpp:prompt_seconds_total", "Time to read prompts.", self.prompt_ms / 1000),
            ("llamacpp:tokens_predicted_total", "Tokens of answers.", self.answer_tokens),
            (
                "llamacpp:tokens_predicted_seconds_total",
                "Time to write answers.",
                self.answer_ms / 1000,
            ),
            (
                "llamacpp:prompt_tokens_seconds",
                "Prompt tokens computed a second.",
                1000 * self.prompt_tokens / max(self.prompt_ms, 1e-9),
            ),
            (
                "llamacpp:predicted_tokens_seconds",
                "Tokens of answers a second.",
                1000 * self.answer_tokens / max(self.answer_ms, 1e-9),
            ),
            ("llamacpp:n_decode_total", "Steps of the engine.", engine.steps),
            ("llamacpp:spec_decode_num_draft_tokens_total", "Tokens drafted.", self.drafted),
            ("llamacpp:spec_decode_num_accepted_tokens_total", "Drafts that held.", self.accepted),
            ("llamacpp:requests_processing", "Sequences running.", engine.running),
            ("llamacpp:requests_deferred", "Requests waiting.", engine.waiting + waiting),
            ("edvac_kv_tokens", "Tokens of running sequences in memory.", engine.kv_tokens),
            ("edvac_kv_bytes", "Memory of keys and values in use.", engine.kv_bytes),
            ("edvac_kv_capacity_bytes", "Memory for keys and values.", engine.kv_capacity_bytes),
            ("edvac_kv_parked_prefixes", "Finished prefixes in memory.", engine.parked_prefixes),
            ("edvac_engine_slots", "Sequences that can run at a time.", engine.slots),
            ("edvac_engine_busy_seconds_total", "Time in steps.", engine.busy_seconds),
            ("edvac_engine_forced_tokens_total", "Tokens by grammar.", engine.forced_tokens),
            ("edvac_engine_resident_bytes", "Memory of the engines.", engine.resident_bytes),
            ("edvac_models_loaded", "Models in memory.", len(engines)),
            ("edvac_adapters", "Adapters in memory.", engine.adapters),
            ("edvac_adapter_bytes", "Memory of adapters.", engine.adapter_bytes),
        ]
        lines = [line for name, about, value in rows for line in _metric(name, about, value)]
        lines += ["# HELP edvac_http_responses_total Answers by status."]
        lines += ["# TYPE edvac_http_responses_total counter"]
        for status, times in sorted(self.statuses.items()):
            lines.append(f'edvac_http_responses_total{{status="{status}"}} {times}')
        return "\n".join(lines) + "\n"


def _sum_of(engines: Sequence[StatsReply]) -> StatsReply:
    names = StatsReply.__struct_fields__
    return StatsReply(**{name: sum(getattr(one, name) for one in engines) for name in names})


def _metric(name: str, about: str, value: float) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {value}"]
