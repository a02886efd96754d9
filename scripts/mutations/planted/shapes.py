"""Faults by which sizes, counts or reuse tell peers something about a text."""

from __future__ import annotations

from scripts.mutations.mutation import Edit, Mutant, mutant

CUT, SPECULATION, CACHES = "node/planning/cut.py", "node/engine/speculation.py", "node/engine/caches.py"

SHAPES = (
    mutant(
        "bucket-left-out",
        "Peers see the bucket of a pass and not its number of rows.",
        CUT,
        "    bucket = row_bucket(num_rows)\n    if bucket",
        "    bucket = num_rows\n    if bucket",
        "test_execution_plan.py::test_a_pass_shows_its_bucket_and_no_more",
    ),
    mutant(
        "last-chunk-short",
        "Every chunk of a pass has the rows of a bucket, also a chunk without a row of the pass.",
        CUT,
        "    return RowSpan(whole.lane, start, end, until - sent)",
        "    return RowSpan(whole.lane, start, end, max(1, end - start))",
        "test_execution_plan.py::test_a_pass_shows_its_bucket_and_no_more",
        "test_execution_plan.py::test_chunks_cover_the_rows_and_hold_them",
    ),
    mutant(
        "cut-by-rows",
        "How a pass is cut among lanes depends on its bucket alone.",
        CUT,
        "else granule * round(bucket * passed / total / granule)",
        "else granule * round(num_rows * passed / total / granule)",
        "test_execution_plan.py::test_a_pass_shows_its_bucket_and_no_more",
    ),
    mutant(
        "outliers-stay-here",
        "What is sent does not depend on the values of the rows.",
        "node/execution/manager.py",
        "        if lane is not None and lane.usable and not self._patience.used_up:",
        "        plain = np.abs(rows.astype(np.int32)).max(initial=0) < 8 * np.abs(rows.astype(np.int32)).mean()\n"
        "        if lane is not None and lane.usable and not self._patience.used_up and plain:",
        "test_execution_shapes.py::test_rows_of_any_content_are_sent_alike",
    ),
    mutant(
        "zeros-stay-here",
        "A chunk without anything in its rows is sent like any other.",
        "node/execution/manager.py",
        "        if lane is not None and lane.usable and not self._patience.used_up:",
        "        if lane is not None and lane.usable and not self._patience.used_up and rows.any():",
        "test_execution_shapes.py::test_rows_of_any_content_are_sent_alike",
    ),
    Mutant(
        "window-follows-acceptance",
        "Every pass with guesses has the same rows, however many guesses were right before.",
        (
            Edit(
                SPECULATION,
                "self.drafter.guess(self.window - 1), cache.length",
                "self.drafter.guess(self.window - 1 if self.right >= self.passes else 1), cache.length",
            ),
            Edit(
                SPECULATION, "before = cache.length - self.window", "before = cache.length - 1 - len(self._guesses)"
            ),
        ),
        ("test_engine_speculation.py::test_liars_change_no_token",),
    ),
    mutant(
        "prefix-of-another-requester",
        "Rows that peers see are reused within one conversation alone.",
        CACHES,
        "        if conversation is None or conversation != self.conversation:\n            return 0\n",
        "",
        "test_engine_caches.py::test_a_turn_takes_over_its_own_conversation_and_nothing_else",
    ),
    mutant(
        "prefix-in-split",
        "Where rows go to peers, a request begins with nothing of an earlier one.",
        CACHES,
        "if mode in (Privacy.LOCAL, Privacy.TRUSTED):",
        "if mode in (Privacy.LOCAL, Privacy.TRUSTED, Privacy.SPLIT, Privacy.STRICT):",
        "test_engine_caches.py::test_rows_are_saved_within_a_conversation_alone",
    ),
    mutant(
        "prefix-although-all-rows",
        "With `--send-all-rows` every row is sent.",
        CACHES,
        "return None if sends_all_rows else caches.take_turn(",
        "return caches.take_turn(",
        "test_engine_caches.py::test_every_row_is_sent_where_the_user_wants_that",
    ),
    mutant(
        "one-session-id-for-all",
        "Each peer sees another session id, so that guards cannot match what they have.",
        "node/execution/peer.py",
        "session: bytes = field(default_factory=lambda: secrets.token_bytes(SESSION_BYTES))",
        "session: bytes = bytes(SESSION_BYTES)",
        "test_execution_noise.py::test_no_two_peers_see_the_same_session_or_neighbouring_ids",
    ),
    mutant(
        "message-ids-from-one",
        "Message ids begin at random, so that an answer to an earlier session answers nothing.",
        "node/execution/peer.py",
        "itertools.count(secrets.randbits(62))",
        "itertools.count(1)",
        "test_execution_manager.py::test_two_sessions_do_not_share_ids",
    ),
    mutant(
        "share-in-a-text",
        "No share, pad or result is ever part of a printed or logged text.",
        "node/execution/chunk.py",
        'HIDDEN: ClassVar[tuple[str, ...]] = ("share", "plain", "ticket", "result")',
        'HIDDEN: ClassVar[tuple[str, ...]] = ("plain", "ticket", "result")',
        "test_discreet.py::test_what_is_hidden_is_not_shown",
    ),
    mutant(
        "share-kept",
        "Shares and pads of a chunk are forgotten when it is merged.",
        "node/execution/chunk.py",
        "self.share = self.plain = self.ticket = self.result = None",
        "self.plain = self.ticket = self.result = None",
        "test_execution_pads.py::test_nothing_secret_is_logged_or_kept",
    ),
    mutant(
        "draft-computes-what-was-right",
        "Before every pass a draft computes as many rows, however many of its guesses were right.",
        "node/engine/drafts.py",
        "            logits = self._decoder.forward(guesses[-1:], cache)  # the last one too: it may be right",
        "            logits = self._decoder.forward(guesses[-1:], cache) if len(guesses) < count else logits",
        "test_engine_speculation.py::test_a_draft_that_errs_costs_as_many_rows",
    ),
    mutant(
        "draft-draws-for-the-answer",
        "Guessing takes none of an answer's random numbers.",
        "node/model/sampling.py",
        "        twin._random = np.random.Philox(key=self.seed)\n        twin._random.state = self._random.state\n",
        "",
        "test_engine_speculation.py::test_a_draft_that_says_the_same_is_always_right_and_costs_a_row_a_guess",
    ),
    mutant(
        "guesses-that-were-wrong-cost-nothing",
        "After a pass with guesses, as many choices are made whatever was guessed right.",
        SPECULATION,
        "            answer.spend(row)",
        "            pass",
        "test_engine_speculation.py::test_every_row_of_a_pass_is_followed_by_a_choice",
    ),
    mutant(
        "padding-without-choices",
        "After a pass of the padding, as many choices are made as after any other.",
        "node/engine/running.py",
        "            self.answer.spend(row)",
        "            pass",
        "test_engine_padding.py::test_a_pass_of_the_padding_takes_as_many_choices_as_any",
    ),
    mutant(
        "short-answers-without-padding",
        "A padded answer of one token has passes as any other.",
        "node/engine/padding.py",
        "if multiple and num_passes else multiple",
        "if multiple else 0",
        "test_engine_padding.py::test_passes_are_filled_up_to_a_multiple",
    ),
)
