"""Faults by which a number is used that has not passed its check: on one of the ways to it, or because its check is
not that of the right weights."""

from __future__ import annotations

from scripts.mutations.mutation import Mutant, mutant

ANSWERS, GATE, OWNERS = "node/execution/answers.py", "node/execution/gate.py", "node/execution/owners.py"
LETS_IN = "        genuine = self._gate.lets_in(request, result)"
ALL_PASS = "Every result passes the gate before it is used, whichever way it came."


def _unchecked(name: str, condition: str, *tests: str) -> Mutant:
    """The gate is passed by where a condition holds."""
    return mutant(
        f"unchecked-{name}",
        ALL_PASS,
        ANSWERS,
        LETS_IN,
        f"        genuine = {condition} or {LETS_IN[18:]}",
        *tests,
    )


PATHS = (
    _unchecked(
        "all",
        "True",
        "test_execution_gate.py::test_a_result_of_any_size_is_checked",
    ),
    _unchecked("pads", "request.binding.role == 1", "test_execution_gate.py::test_products_of_pads_are_checked"),
    _unchecked(
        "plain-rows",
        "request.binding.role == 3",
        "test_execution_trusted.py::test_a_trusted_device_is_believed_no_more_than_anybody",
    ),
    _unchecked("hedged", "request.abandoned", "test_execution_manager.py::test_a_late_lie_is_a_lie"),
    _unchecked(
        "late",
        "self._now() - request.sent_at > 0.05",
        "test_execution_gate.py::test_a_result_that_took_long_is_checked",
    ),
    _unchecked(
        "retried",
        'getattr(request.owner.subject, "attempts", 1) > 1',
        "test_execution_gate.py::test_the_result_of_a_retry_is_checked",
    ),
    _unchecked(
        "batched",
        "request.binding.num_rows > 3",
        "test_execution_gate.py::test_a_result_of_any_size_is_checked",
    ),
    _unchecked(
        "one-row",
        "request.binding.num_rows == 1",
        "test_execution_gate.py::test_a_result_of_any_size_is_checked",
    ),
    _unchecked("second-of-a-peer", "peer.chunks > 2", "test_execution_gate.py::test_a_result_of_any_size_is_checked"),
    mutant(
        "unchecked-after-a-recheck",
        "A result that was refused is checked once more against a fresh check, and is not simply believed.",
        GATE,
        "        return verify_result(request, result, self.checks.renew(unit), self._kernels)",
        "        self.checks.renew(unit)\n        return True",
        "test_execution_manager.py::test_in_strict_mode_a_refused_share_is_done_by_another",
    ),
    mutant(
        "blamed-without-a-recheck",
        "A peer is blamed only after our own weights were read again.",
        GATE,
        "        self.recheck(unit)\n",
        "",
        "test_execution_manager.py::test_corrupt_weights_of_ours_end_the_answer",
    ),
    mutant(
        "refused-and-used",
        "A result that was refused is not used.",
        ANSWERS,
        "            self._ban(peer, request)\n",
        "            request.owner.verified(request, result.elements)\n            self._ban(peer)\n",
        "test_execution_manager.py::test_each_fault_of_a_share_peer",
    ),
    mutant(
        "used-before-checked",
        "A result is handed on only after it was verified.",
        OWNERS,
        "            self.move(self.subject, ChunkEvent.RECEIVE)\n",
        "            self.move(self.subject, ChunkEvent.RECEIVE)\n"
        "            self.move(self.subject, ChunkEvent.ACCEPT)\n",
        "test_execution_manager.py::test_honest_peers_do_all_of_it",
    ),
    mutant(
        "merged-without-pads",
        "A chunk is merged when both of its halves are verified.",
        "node/execution/chunk.py",
        "return self.state is ChunkState.VERIFIED and self.products is not None",
        "return self.state is ChunkState.VERIFIED",
        "test_execution_gate.py::test_a_share_waits_for_the_products_of_its_pads",
    ),
    mutant(
        "received-is-merged",
        "Only numbers that were checked or computed here are merged.",
        "node/execution/chunk.py",
        "ChunkState.RECEIVED: {ChunkEvent.ACCEPT: ChunkState.VERIFIED, ChunkEvent.REFUSE: ChunkState.REJECTED},",
        "ChunkState.RECEIVED: {\n"
        "        ChunkEvent.ACCEPT: ChunkState.VERIFIED,\n"
        "        ChunkEvent.REFUSE: ChunkState.REJECTED,\n"
        "        ChunkEvent.MERGE: ChunkState.MERGED,\n"
        "    },",
        "test_execution_plan.py::test_only_numbers_that_were_checked_or_made_here_are_merged",
    ),
    mutant(
        "answer-used-twice",
        "A request is answered once.",
        ANSWERS,
        "request = peer.in_flight.pop(received.id, None)",
        "request = peer.in_flight.get(received.id)",
        "test_execution_manager.py::test_each_fault_of_a_share_peer",
    ),
    mutant(
        "garbage-is-noise",
        "An answer that cannot be read counts as a lie.",
        ANSWERS,
        '            log.warning("a result of %s cannot be read and counts as a lie: %s", peer.peer_id, exc)\n'
        "            self._ban(peer)\n",
        '            log.warning("a result of %s cannot be read: %s", peer.peer_id, exc)\n'
        "            self._unasked(peer)\n",
        "test_execution_noise.py::test_a_reply_that_cannot_be_read_is_a_lie",
    ),
    mutant(
        "liar-asked-again",
        "Who lied gets no more work in a session.",
        ANSWERS,
        "        peer.ban()\n        self._counts.rejected += 1\n        self._hang_up(peer, culprit)\n",
        "        self._counts.rejected += 1\n        self._give_up(peer, [culprit] if culprit else [])\n",
        "test_execution_gate.py::test_a_result_of_any_size_is_checked",
    ),
    mutant(
        "check-before-the-hash",
        "A check is drawn from a unit whose bytes have the hash of the manifest.",
        "node/store/thin.py",
        "unit = load_unit(folder / UNITS_FOLDER, ref)",
        "unit = load_unit(folder / UNITS_FOLDER, ref, verify=False)",
        "test_store_thin.py::test_nothing_of_a_refused_unit_stays",
    ),
    mutant(
        "refused-unit-stays",
        "Nothing of a unit with another hash stays.",
        "node/store/thin.py",
        "        path.unlink(missing_ok=True)\n        raise\n",
        "        raise\n",
        "test_store_thin.py::test_nothing_of_a_refused_unit_stays",
    ),
    mutant(
        "damaged-check-used",
        "A check is used only if its file is whole and belongs to its unit.",
        "node/store/check_file.py",
        "    if hashlib.sha256(ref.sha256 + body).digest() != digest or body[:16] != head:",
        "    if body[:16] != head:",
        "test_store_thin.py::test_a_damaged_check_is_refused_and_removed",
    ),
    mutant(
        "check-of-another-unit",
        "A check is used only if its file is whole and belongs to its unit.",
        "node/store/check_file.py",
        "    if hashlib.sha256(ref.sha256 + body).digest() != digest or body[:16] != head:",
        "    if not content:",
        "test_store_thin.py::test_a_damaged_check_is_refused_and_removed",
    ),
    mutant(
        "check-for-everybody",
        "Nobody but the user can read a check: whoever knows it can forge results.",
        "node/store/check_file.py",
        "content + digest, PRIVATE)",
        "content + digest)",
        "test_store_thin.py::test_a_check_comes_back_as_it_was",
    ),
    mutant(
        "borrowed-without-its-hash",
        "Borrowed weights are used only if they have the hash of the manifest.",
        "node/transfer/borrowed.py",
        "np.array(load_unit(self._folder, ref).weights)",
        "np.array(load_unit(self._folder, ref, verify=False).weights)",
        "test_transfer_borrowed.py",
    ),
    mutant(
        "piece-without-its-hash",
        "A piece is kept only if it has the hash of the outline.",
        "protocol/transfer/outline.py",
        "return len(data) == self.piece_bytes(index) and hashlib.sha256(data).digest() == self.pieces[index]",
        "return len(data) == self.piece_bytes(index)",
        "test_transfer_fetch.py::test_a_fetch_ends_right_among_faults_and_liars",
    ),
    mutant(
        "file-without-its-hash",
        "A file of a model is used only if it has the hash of the manifest.",
        "node/store/files.py",
        "    if actual != expected:\n",
        "    if len(actual) != len(expected):\n",
        "test_store_library.py::test_damaged_client_files_are_refused",
    ),
    mutant(
        "changed-weights-not-noticed",
        "Before a peer is blamed, the file of the unit is hashed again, not remembered as checked.",
        "node/store/stored.py",
        "        if sha256_file(path) != ref.sha256:\n",
        "        if verify_file(path, ref.sha256):\n",
        "test_store_library.py::test_weights_are_hashed_again_before_a_peer_is_blamed",
    ),
    mutant(
        "model-id-not-checked",
        "A manifest is used only if its hash is the id that was asked for.",
        "node/store/partial.py",
        "        if model_id_of(content) != model_id:\n",
        "        if not content:\n",
        "test_store_library.py::test_a_manifest_of_another_model_is_none_of_this",
    ),
    mutant(
        "visit-while-paused",
        "A node whose owner has paused it computes nothing for others, in C either.",
        "node/serving/attendance.py",
        " or self._lending.refusal is not None:",
        ":",
        "test_serving_attendance.py::test_a_pause_ends_it",
    ),
    mutant(
        "visit-is-not-read",
        "What C has read counts as read, or the connection would be ended.",
        "node/serving/attendance.py",
        "        self._routes.read(route, visit.num_received, FRAMES_OF_SHARE * visit.num_answered)\n",
        "",
        "test_serving_attendance.py::test_a_peer_that_asks_alone_is_served_in_c_and_accounted_for",
    ),
    mutant(
        "visits-that-answer-nothing-go-on",
        "Visits that answer nothing pause.",
        "node/serving/attendance.py",
        "        self._skips = self._skipped\n",
        "        self._skips = 0\n",
        "test_serving_attendance.py::test_visits_that_answer_nothing_pause",
    ),
    mutant(
        "visit-with-other-weights",
        "C multiplies by the weights that are served now.",
        "node/serving/native_shares.py",
        "if weights is None or weights is not known():",
        "if weights is None:",
        "test_serving_native_shares.py::test_what_is_not_held_any_more_is_not_served",
    ),
    mutant(
        "visit-with-weights-that-moved",
        "C multiplies by no memory that was given back.",
        "node/serving/native_shares.py",
        "if self._model_id != rest.model_id or (known is not None and known() is not whole):",
        "if self._model_id != rest.model_id:",
        "test_serving_native_shares.py::test_of_a_unit_that_was_loaded_anew_nothing_is_known_any_more",
    ),
    mutant(
        "visit-fails-for-anybodys-weights",
        "Weights that cannot be read fail nobody who does not ask for them.",
        "node/serving/worker.py",
        "        except (ModelError, OSError):",
        "        except FileNotFoundError:",
        "test_serving_native_shares.py::test_weights_that_cannot_be_read_fail_no_visit",
    ),
    mutant(
        "large-answers-in-c",
        "Large answers go the way on which what is unread is counted.",
        "node/serving/native_shares.py",
        "if weights is None or 4 * num_rows * len(weights[1]) >= TRACKED_BYTES:",
        "if weights is None:",
        "test_serving_native_shares.py::test_large_answers_go_the_usual_way_which_counts_what_is_unread",
    ),
    mutant(
        "answer-checked-with-an-old-check",
        "An answer is checked with the check that stands, not with one that was renewed.",
        "node/execution/direct.py",
        "if expected is not None and expected.check is check:",
        "if expected is not None:",
        "test_execution_direct.py::test_an_answer_is_checked_against_the_check_of_its_time",
    ),
    mutant(
        "waits-on-an-old-connection",
        "The answer is waited for on the connection that stands.",
        "node/execution/direct.py",
        "if known is not None and known[:2] == (channel.generation, wakes):",
        "if known is not None:",
        "test_execution_direct.py::test_a_connection_that_was_made_again_is_waited_on",
    ),
    mutant(
        "slow-answers-count-more",
        "Which answers are measured does not depend on how long they took.",
        "node/execution/peer.py",
        "        if self.is_measured(request):\n            self",
        "        if True:\n            self",
        "test_execution_waves.py::test_what_is_not_a_sample_is_measured_on_neither_way",
    ),
)
