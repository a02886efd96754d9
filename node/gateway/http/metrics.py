"""`/metrics` in Prometheus' format, with vLLM's names. No label names a peer, prompt or user."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from node.engine import Engine
from node.engine.request import Completed, Event, Failed, Token
from node.engine.running import Running
from node.node import Node

SECONDS_TO_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SECONDS_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """Counts the engine's events; the gateway's threads read it."""

    def __init__(self, node: Node, engine: Engine) -> None:
        self._node = node
        self._engine = engine
        self.registry = registry = CollectorRegistry()
        self._prompt = Counter("kekahyde_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._generated = Counter("kekahyde_generation_tokens", "Tokens of answers.", registry=registry)
        self._requests = Counter("kekahyde_requests", "Requests that ended.", ["mode", "reason"], registry=registry)
        self._first = Histogram(
            "kekahyde_time_to_first_token_seconds", "From arrival.", buckets=SECONDS_TO_FIRST, registry=registry
        )
        self._between = Histogram(
            "kekahyde_inter_token_latency_seconds", "Between tokens.", buckets=SECONDS_BETWEEN, registry=registry
        )
        self._chunks = Counter("kekahyde_chunks", "Chunks of answers.", ["outcome"], registry=registry)
        self._bytes = Counter("kekahyde_link_bytes", "Payload to and from peers.", ["direction"], registry=registry)
        registry.register(self)
        engine.observe(self._heard)

    def text(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """The current values (prometheus_client calls this)."""
        running = [each for each, _session in self._engine.requests()]
        yield _gauge("kekahyde_num_requests_running", "Requests that run.", sum(each.started for each in running))
        yield _gauge("kekahyde_num_requests_waiting", "Requests in the queue.", sum(not r.started for r in running))
        yield _gauge("kekahyde_kv_cache_usage_ratio", "Used share of the KV caches.", self._usage())
        peers = self._node.registry.peers()
        served = CounterMetricFamily("kekahyde_served_chunks", "Chunks computed for others.")
        served.add_metric([], self._node.worker.answered)
        yield served
        yield _gauge("kekahyde_peers_connected", "Peers with a link.", len(peers))
        rtts = sorted(peer.rtt_s for peer in peers if peer.rtt_s is not None)
        family = GaugeMetricFamily("kekahyde_peer_rtt_seconds", "Round trips to peers.", labels=["quantile"])
        for quantile in ("0", "0.5", "1") if rtts else ():
            family.add_metric([quantile], rtts[round(float(quantile) * (len(rtts) - 1))])
        yield family

    def _usage(self) -> float:
        return self._engine.cache_usage

    def _heard(self, running: Running, event: Event) -> None:
        match event:
            case Token():
                self._generated.inc()
                times = running.token_times
                if len(times) == 1:
                    self._first.observe(running.ttft_s or 0.0)
                else:
                    self._between.observe(times[-1] - times[-2])
            case Completed(receipt):
                self._prompt.inc(receipt.prompt_tokens)
                self._requests.labels(receipt.mode, receipt.finish_reason).inc()
                for outcome in ("verified", "rejected", "hedged", "local"):
                    self._chunks.labels(outcome).inc(getattr(receipt.chunks, outcome))
                self._bytes.labels("up").inc(receipt.bytes_up)
                self._bytes.labels("down").inc(receipt.bytes_down)
            case Failed():
                self._requests.labels(running.request.privacy.value, "error").inc()
            case _:
                pass


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
