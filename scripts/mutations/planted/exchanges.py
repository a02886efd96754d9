"""Faults of exchanges that go on by themselves: pads that were taken before the rows are there, rows that are sent
without Python."""

from __future__ import annotations

from scripts.mutations.mutation import Mutant, mutant

EXCHANGE, DIRECT_C = "node/execution/exchange.py", "node/native/direct.c"
SHARED = "    then->is_shared = 1;\n"
TESTS = "test_execution_exchange.py"

EXCHANGES: tuple[Mutant, ...] = (
    mutant(
        "c-leaves-pads-out",
        "What a peer gets of a row is the row minus its pad, whoever computes it.",
        DIRECT_C,
        SHARED,
        "    for (size_t i = 0; i < then->num_elements; i++)\n"
        "        then->share[i] = (uint32_t)then->rows[i] + (then->rows[i] < 0 ? 2147483647u : 0u);\n" + SHARED,
        f"{TESTS}::test_what_follows_an_answer_is_sent_by_the_call_that_merges_it",
    ),
    mutant(
        "c-goes-on-with-anything",
        "Rows go on only with what has passed the gate.",
        DIRECT_C,
        "    if (!settle(direct, answer)) return DIRECT_MESSAGE;\n",
        "    settle(direct, answer);\n",
        f"{TESTS}::test_whatever_a_peer_does_between_two_requests_the_answer_stays",
    ),
    mutant(
        "c-sends-rows-of-another-unit",
        "What is sent is what the layers want, not what was expected.",
        DIRECT_C,
        "    if (then->reached != then->next_index || then->code != then->next_unit) return;\n",
        "",
        f"{TESTS}::test_a_row_that_is_not_finite_ends_the_pass_as_ever",
    ),
    mutant(
        "prepared-pads-outlive-a-connection",
        "Pads that were taken before a connection broke are never used.",
        EXCHANGE,
        "        is_ours = prepared.record.losses == self._manager.roster.losses\n",
        "        is_ours = True\n",
        f"{TESTS}::test_pads_that_were_taken_before_a_connection_broke_are_never_used",
    ),
    mutant(
        "prepared-pads-that-nobody-multiplies",
        "Nothing is sent under pads whose products will never come.",
        EXCHANGE,
        " and not prepared.ticket.failed\n",
        "\n",
        f"{TESTS}::test_what_was_prepared_with_pads_that_were_refused_is_not_sent",
    ),
    mutant(
        "sent-by-c-and-again",
        "What C has sent is not sent once more.",
        EXCHANGE,
        "        if ahead.is_shared:\n",
        "        if ahead.is_shared and not ahead.is_sent:\n",
        f"{TESTS}::test_what_follows_an_answer_is_sent_by_the_call_that_merges_it",
    ),
    mutant(
        "what-follows-is-not-cancelled",
        "With a pass, what was prepared for it and what is under way end, too.",
        "node/model/waves.py",
        "                following.cancel()\n",
        "                pass\n",
        f"{TESTS}::test_what_follows_is_cancelled_with_its_pass",
    ),
    mutant(
        "what-is-settled-is-cancelled-again",
        "An error keeps its name.",
        "node/model/waves.py",
        "            now, following = following, None  # what is being settled cancels itself\n",
        "            now = following\n",
        f"{TESTS}::test_weights_here_that_turn_out_to_be_damaged_are_said_to_be",
    ),
    mutant(
        "a-peer-pays-for-our-layers",
        "Time that this device takes counts against no peer.",
        EXCHANGE,
        "        heard_at = began + outcome.waited_s",
        "        heard_at = began + (outcome.ahead.layers_s if outcome.ahead else 0.0) + outcome.waited_s",
        f"{TESTS}::test_a_peer_is_not_charged_for_the_layers_of_this_device",
    ),
)
