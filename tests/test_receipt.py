"""The receipt travels between processes and says the same at both ends."""

from node.execution.ledger import ChunkCounts
from node.planning.placement import LAYERS_LENT
from node.session.plan_line import PlanLine
from node.session.receipt import PeerShare, Receipt


def example() -> Receipt:
    plan = dict.fromkeys(PlanLine.__struct_fields__, 1)
    return Receipt(
        text="once",
        tokens=4,
        prompt_tokens=2,
        cached_tokens=1,
        mode="strict",
        asked="auto",
        model="story",
        model_id="00" * 32,
        peers=[PeerShare("12D3KooWA", "share", 3, 1, "banned"), PeerShare("12D3KooWB", "plain", 2, 0, "active")],
        chunks=ChunkCounts(5, 4, 1, 0, 1, 5),
        bytes_up=10,
        bytes_down=20,
        ttft_s=0.25,
        tokens_per_s=12.5,
        finish_reason="length",
        pads_made=7,
        pads_paired=8,
        pad_s=0.5,
        timings_s={"wait": 1.0},
        placement=LAYERS_LENT.as_json(),
        weights_here_bytes=4096,
        checks_bytes=512,
        plan=PlanLine(**plan),  # type: ignore[arg-type]
        note="a note",
    )


def test_a_receipt_comes_back_as_it_went() -> None:
    receipt = example()
    assert Receipt.from_json(receipt.as_json()) == receipt


def test_who_could_read_the_prompt_is_said_in_the_line_and_in_json() -> None:
    receipt = example()
    assert receipt.as_json()["could_read"] == ["12D3KooWB"]
    assert "12D3KooWB could read the prompt" in receipt.as_line()
