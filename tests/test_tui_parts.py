"""The parts of the interface that draw nothing: cutting text, chunk records, conversations, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.harness.gateway_twin import PEER_IDS, model, peer, receipt
from tui.chain import chain_lines
from tui.chunks import HERE, MAX_ROWS, ChunkBoard
from tui.conversation import Answer, AnswerStatus, Conversation, Turn
from tui.receipt_words import receipt_markdown
from tui.segments import HARD_LINES, Roll, Segmenter, Write, code_blocks, segments_of
from tui.snapshot import Fields, ModelFacts, NodeState, PeerFacts, SpanFacts, clean
from tui.words import bytes_words, duration_words, end_line, peer_state, sparkline, status_line


def pieces(text: str, size: int) -> list[str]:
    """The segments of a text that comes in pieces of this size."""
    segmenter, found = Segmenter(), [""]
    for start in range(0, len(text), size):
        for cut in segmenter.feed(text[start : start + size]):
            if isinstance(cut, Roll):
                found.append("")
            else:
                found[-1] += cut.text
    return found


@given(
    st.text(alphabet=st.sampled_from("ab \n\n\n`-#"), max_size=2000).filter(lambda text: "```" not in text),
    st.integers(1, 50),
)
def test_segments_lose_nothing_and_do_not_depend_on_how_text_arrives(text: str, size: int) -> None:
    assert "".join(pieces(text, size)) == text


def test_a_long_answer_is_cut_at_blank_lines() -> None:
    text = "".join(f"line {number}\n{'' if number % 5 else chr(10)}" for number in range(400))
    found = segments_of(text)
    assert len(found) > 10 and "".join(found) == text
    assert all(piece.startswith("line") and piece.endswith("\n\n") for piece in found[:-1])
    assert max(piece.count("\n") for piece in found) <= HARD_LINES


def test_a_long_code_block_is_closed_and_opened_again() -> None:
    code = [f"x = {number}" for number in range(3 * HARD_LINES)]
    found = segments_of("\n".join(["```python", *code, "```", "after"]))
    assert len(found) > 3
    assert all(piece.startswith("```python\n") and piece.count("```") == 2 for piece in found[1:-1])
    assert "\n".join(block for piece in found for block in code_blocks(piece)) == "\n".join(code)


def test_an_indented_line_is_not_torn_from_its_list() -> None:
    text = "- item\n\n    belongs to it\n\n" * 30
    found = segments_of(text)
    assert len(found) > 2 and all(piece.startswith("- item") for piece in found)


def test_endless_lines_are_cut_at_spaces() -> None:
    segmenter = Segmenter()
    cuts = [cut for _ in range(3000) for cut in segmenter.feed("word ")]
    assert any(isinstance(cut, Roll) for cut in cuts)
    assert "".join(cut.text for cut in cuts if isinstance(cut, Write)) == "word " * 3000


def test_code_blocks_are_found() -> None:
    text = "a\n```py\none\n```\nb\n~~~\ntwo\n```\nstill\n~~~\n```\nopen"
    assert code_blocks(text) == ["one", "two\n```\nstill", "open"]


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[31mb\x07\x9bc\u202ed\r\ne\tf") == "a[31mbcd\ne\tf"
    fields = Fields({"text": 3, "number": "x", "flag": "yes", "list": [1, "a\x1b"], "object": []})
    assert (fields.text("text"), fields.number("number"), fields.flag("flag")) == ("", 0.0, False)
    assert fields.texts("list") == ("a",) and fields.object("object").text("x") == ""


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_a_state_of_any_shape_is_read(junk: object) -> None:
    event = {"type": "state", "node": junk, "peers": [junk], "models": junk, "transfers": [junk], "requests": [junk]}
    assert isinstance(NodeState.of(event), NodeState)
    ChunkBoard().apply([junk, [junk] * 10], 0.0)


def record(seq: int, state: str, number: int = 1, ms: float = 2.0, layer: int = 0) -> list[object]:
    return [seq, "r", layer, "qkv", 0, 8, PEER_IDS[number], "share", state, ms]


def test_the_board_follows_a_chunk_and_remembers_trouble() -> None:
    board = ChunkBoard()
    board.apply([record(1, "planned"), record(1, "sent")], 10.0)
    assert board.in_flight == 1
    board.apply([record(1, "rejected"), record(1, "local"), record(1, "merged")], 10.1)
    row = board.rows[1]
    assert row.state == "merged" and row.trouble and not row.open
    assert board.in_flight == 0
    assert board.totals == {"planned": 1, "sent": 1, "rejected": 1, "local": 1, "merged": 1}
    assert board.newest(5, only_trouble=True) == [row]
    cell = board.cells(PEER_IDS[1], 10.2, 4)[-1]
    assert cell is not None and cell.mark == "rejected"
    here = board.cells(HERE, 10.2, 4)[-1]
    assert here is not None and here.done == 1
    assert board.cells(PEER_IDS[1], 12.2, 4) == [None] * 4


def test_the_board_is_bounded_and_shows_what_is_open_first() -> None:
    board = ChunkBoard()
    for seq in range(3 * MAX_ROWS):
        board.apply([record(seq, "merged")], seq / 100)
    board.apply([record(-1, "sent")], 0.0)
    board.apply([record(9 * MAX_ROWS, "merged")], 0.0)
    assert len(board.rows) == MAX_ROWS
    assert board.newest(3)[0].state == "sent"
    board.close("r")
    assert board.in_flight == 0 and board.newest(3)[1].state == "dropped"


def test_an_answer_that_was_stopped_keeps_its_text() -> None:
    answer = Answer("r", 0.0)
    for event in (
        {"event": "started", "mode": "split"},
        {"event": "token", "text": "Once"},
        {"event": "token", "text": " upon"},
    ):
        answer.apply(event, 1.0)
    answer.stop()
    answer.apply({"event": "token", "text": " a"}, 1.1)
    answer.apply({"event": "receipt", "receipt": receipt("Once upon a", finish_reason="cancelled")}, 1.2)
    assert answer.text == "Once upon" and answer.status is AnswerStatus.STOPPED
    assert "«stopped»" in end_line(answer)


def conversation(*turns: tuple[str, str]) -> Conversation:
    found = Conversation()
    for prompt, text in turns:
        found.turns.append(Turn(prompt, Answer("r", 0.0, parts=[text])))
    return found


def sent(found: Conversation, context: int | None = None) -> tuple[str, str]:
    """The text for a model that continues text, and what is said of it."""
    asked = found.asked_of(ModelFacts("story", context=context))
    return asked.fields["prompt"], asked.note


def test_a_model_without_template_is_given_the_text_so_far() -> None:
    assert sent(conversation(("Once", " upon a time."), ("Then", ""))) == ("Once upon a time. Then", "")
    assert sent(conversation(("Once", " upon"), ("", "")), 512) == ("Once upon", "")


def test_old_text_that_is_not_read_any_more_is_said() -> None:
    long = conversation(("A. ", "The cat sat. " * 400), ("Then", ""))
    prompt, note = sent(long, 512)
    assert len(prompt) <= 512 * 1.5 and prompt.endswith("Then") and prompt.startswith("The cat")
    unread = 3 + 13 * 400 - (len(prompt) - len("Then"))
    assert f"the first {unread} characters" in note and "512 tokens" in note and "ctrl+n" in note


def test_a_new_prompt_is_never_cut() -> None:
    pasted = "The cat sat. " * 2000
    assert sent(conversation((pasted, "")), 512) == (pasted, "")
    prompt, note = sent(conversation(("Once", " upon"), (pasted, "")), 512)
    assert prompt == pasted and "the first 9 characters" in note


def test_a_prompt_that_was_refused_is_no_part_of_what_follows() -> None:
    refused = conversation(("Once", " upon"), ("x" * 27_000, ""), ("a time", ""))
    refused.turns[1].answer.fail("too long")
    assert sent(refused, 512) == ("Once upon a time", "")
    refused.turns[2].prompt = ""
    assert sent(refused)[0] == "Once upon " + "x" * 27_000, "nothing was typed after it: it is asked again"


def test_a_model_with_template_is_given_messages() -> None:
    chat = ModelFacts("chat", chat=True)
    assert conversation(("Hi", "Hello"), ("Bye", "")).asked_of(chat).fields == {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Bye"},
        ]
    }


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("local", ["Nobody but this device saw anything", "no results from peers to check"]),
        ("strict", ["not even all of them together", "38 results"]),
        ("split", ["No single peer could read anything", "1 wrong result", "network address"]),
        ("trusted", ["could read this prompt"]),
    ],
)
def test_a_receipt_says_who_saw_what(mode: str, words: list[str]) -> None:
    text = receipt_markdown(receipt("text", mode), "because it is faster")
    for word in words:
        assert word in text
    assert "the mode was `" + mode in text and "because it is faster." in text


def test_layers_that_others_computed_are_named_with_what_these_saw() -> None:
    lent = {"first": 6, "end": 8, "peer_id": None, "name": "", "step_ms": None, "tokens": 0, "lent": "split"}
    mixed = receipt_markdown(receipt("t", "trusted", spans=[lent], chunks={"verified": 8, "rejected": 1}))
    assert "Devices of others, in split, computed layers 6 to 7." in mixed and "8 results from peers" in mixed
    assert "helped in `split`. **No single peer could read anything.**" in mixed
    assert chain_lines([SpanFacts(6, 8, lent="split")]).splitlines()[1] == "├ other devices, in split: layers 6-7"


def test_a_receipt_of_any_shape_is_words() -> None:
    spans = [{"first": 0, "end": 6, "peer_id": "12D3KooWdesk00", "name": "desk", "step_ms": 1.0, "tokens": 3}]
    for again, words in (
        ({"rows": 9, "equal": 4, "wrong": 0}, "4 results of 9 were computed again here"),
        ({"rows": 9, "equal": 4, "wrong": 1}, "Wrong results found when they were computed again here: 1."),
        ({"rows": 9, "equal": 4, "wrong": 0, "elsewhere": 4}, "4 results of 9 were computed again by another device"),
        ({"rows": 9, "equal": 4, "wrong": 0, "elsewhere": 5, "differ": 1}, "cannot tell which is wrong"),
        (None, "No result has been computed again"),
    ):
        told = receipt_markdown(receipt("t", "trusted", spans=spans, rechecked=again))
        assert "`desk` computed layers 0 to 5" in told and words in told
    assert "Mode" in receipt_markdown({"mode": "new", "peers": "x", "chunks": 3, "bytes": None})
    assert "\\[click\\]" in receipt_markdown(receipt("t", note="[click](http://x)"))


def test_the_line_of_facts_fits() -> None:
    state = NodeState.of({"peers": [peer(0), peer(1)], "models": [model()]})
    answer = Answer("r", 0.0, parts=["x"], status=AnswerStatus.WRITING, mode="split", tokens=11)
    answer.first_at, answer.last_at = 0.1, 0.35
    answer.receipt = receipt("x")
    full = status_line("", state, answer, "auto", "story", 140)
    for fact in (
        "next prompt: auto",
        "2 peers",
        "38.0 tok/s",
        "first token 0.10 s",
        "38 verified",
        "1 rejected",
        "2 here",
    ):
        assert fact in full
    short = status_line("", state, answer, "auto", "story", 58)
    assert len(short) <= 58 and "38.0 tok/s" in short and "✗ 1" in short


def test_states_are_never_a_sign_alone() -> None:
    facts = PeerFacts.of(Fields(peer(0)))
    assert peer_state(facts) == "● alive"
    assert peer_state(PeerFacts.of(Fields(peer(0, state="suspect")))) == "◐ suspect"
    assert peer_state(PeerFacts.of(Fields(peer(0, excluded="banned: a wrong result")))) == "✗ banned"


def test_sizes_and_times() -> None:
    assert [bytes_words(count) for count in (0, 999, 1500, 4_300_000, 2e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "4.3 MB",
        "2000.0 TB",
    ]
    assert [duration_words(seconds) for seconds in (0.1, 34.2, 200)] == ["0.10 s", "34 s", "3 min 20 s"]
    assert sparkline([0, 1, 8]) == " ▂█"
