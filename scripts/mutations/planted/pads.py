"""Faults of one-time pads: masks that are not uniform, and pads that hide a second row."""

from __future__ import annotations

from scripts.mutations.mutation import Edit, Mutant, mutant

SHARES, FIELD = "protocol/linear/shares.py", "protocol/linear/field.py"
OWN, GUARD = "node/execution/pads/own.py", "node/execution/pads/guard.py"
POOL = "node/execution/pads/pool.py"
BATCH, MANAGER, OPENING = "node/execution/pads/batch.py", "node/execution/manager.py", "node/session/opening.py"
UNIFORM = "A pad is uniform below p: words are rejected, never reduced, and have all of their 31 bits."
ONCE = "A pad hides one row once."

COPIED = "Two copies of a device that go on with the same memory use no pad twice."
PADS = (
    mutant(
        "masks-biased",
        UNIFORM,
        FIELD,
        "return masked if not (masked == P).any() else masked[masked != P]",
        "return np.asarray(words, dtype='<u4') % np.uint32(P)",
        "test_protocol_shares.py::test_a_pad_is_the_stream_word_by_word",
    ),
    mutant(
        "masks-12-bit",
        UNIFORM,
        SHARES,
        'elements = elements_of_words(np.frombuffer(stream, dtype="<u4"))',
        'elements = elements_of_words(np.frombuffer(stream, dtype="<u4")) & np.uint32(0xFFF)',
        "test_protocol_shares.py::test_pads_are_uniform_in_their_high_and_low_bytes",
    ),
    mutant(
        "masks-16-bit",
        UNIFORM,
        SHARES,
        "words &= np.uint32(P)",
        "words &= np.uint32(0xFFFF)",
        "test_protocol_shares.py::test_shares_of_very_different_rows_look_alike",
    ),
    mutant(
        "pads-left-out",
        "What a peer gets of a row is the row minus its pad.",
        MANAGER,
        "record.share = self.kernels.share(fill_bucket(rows, len(record.ticket.pads)), record.ticket.pads)",
        "record.share = self.kernels.share(fill_bucket(rows, len(record.ticket.pads)), 0 * record.ticket.pads)",
        "test_execution_manager.py::test_honest_peers_do_all_of_it",
    ),
    mutant(
        "pad-across-tokens",
        ONCE,
        BATCH,
        "        self.next_row += min(most, self.left)\n        return self, start, self.next_row",
        "        return self, start, start + min(most, self.left)",
        "test_execution_pads.py::test_a_long_decode_uses_each_row_once",
    ),
    mutant(
        "pad-across-rows",
        ONCE,
        BATCH,
        "pad_rows(self.seed, 0, self.num_rows, self.unit.num_inputs)",
        "pad_rows(self.seed, 0, 1, self.unit.num_inputs).repeat(self.num_rows, axis=0)",
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    mutant(
        "pad-across-layers",
        ONCE,
        OWN,
        'seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "own")',
        'seed = PadSeeds(self._seeds.master, self._seeds.model_id).next(None, "any", "own")',
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    mutant(
        "one-seed-for-two-units",
        "A seed makes the pads of one unit.",
        GUARD,
        'seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "guard")',
        'nth = vars(self).setdefault("nth", {})\n'
        "        nth[unit.ref] = nth.get(unit.ref, 0) + 1\n"
        '        seed = PadSeeds(self._seeds.master, self._seeds.model_id, nth[unit.ref]).next(None, "any", "guard")',
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    mutant(
        "seed-without-its-unit",
        "A seed is made from everything that names its chunk.",
        SHARES,
        "cbor.encode([self.model_id, layer, kind, role, self.counter])",
        "cbor.encode([self.model_id, role, self.counter])",
        "test_protocol_shares.py::test_everything_that_names_a_chunk_goes_into_its_seed",
    ),
    mutant(
        "counter-stands-still",
        "The counter of seeds only grows.",
        SHARES,
        "        self.counter += 1\n",
        "",
        "test_protocol_shares.py::test_no_seed_comes_twice",
    ),
    mutant(
        "counter-moves-late",
        "The counter moves before a seed exists, so that a failure burns a value and repeats none.",
        SHARES,
        "        self.counter += 1\n        message = cbor.encode([self.model_id, layer, kind, role, self.counter])",
        "        message = cbor.encode([self.model_id, layer, kind, role, self.counter + 1])\n"
        "        self.counter += 1",
        "test_protocol_shares.py::test_a_counter_is_burnt_even_where_no_seed_came_of_it",
    ),
    mutant(
        "pad-across-retries",
        "A row that goes to another lane gets fresh pads.",
        MANAGER,
        "record.ticket = lane.pads.take(unit, len(rows), record.chunk.num_sent)",
        "record.ticket = record.ticket or lane.pads.take(unit, len(rows), record.chunk.num_sent)",
        "test_execution_recovery.py::test_another_lane_does_what_one_could_not",
    ),
    mutant(
        "pad-across-regenerate",
        "A prompt that is asked again gets other pads.",
        OWN,
        "        batches = self._pool.setdefault(unit.ref, deque())\n        parts: list[Span] = []",
        "        batches = self._pool.setdefault(unit.ref, deque())\n"
        "        self._seeds.counter = 0 if num_sent > DECODE_BATCH_ROWS else self._seeds.counter\n"
        "        parts: list[Span] = []",
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    mutant(
        "pad-across-batches",
        "The pads of one request for products belong to one batch.",
        GUARD,
        "            batch.next_row = num_sent\n",
        "            self._ahead.setdefault(unit.ref, deque()).appendleft(batch)\n",
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    mutant(
        "pad-of-a-rejected-guess",
        "Pads of guesses that were wrong are spent.",
        OWN,
        '        """Does nothing: an empty pool is filled when a row needs it."""',
        "        for unit in units:\n"
        "            for batch in self._pool.get(unit.ref, ()):\n"
        "                batch.next_row = max(0, batch.next_row - num_rows + 1)",
        "test_execution_manager.py::test_honest_peers_do_all_of_it",
    ),
    mutant(
        "pad-of-a-cancelled-pass",
        "Pads of a pass that was cancelled are spent.",
        MANAGER,
        "        spent = [batch for batch in batches if not batch.left]\n",
        "        spent = [batch for batch in batches if not batch.left]\n"
        "        for batch, start, _end in [] if record.ticket is None else record.ticket.batches:\n"
        "            batch.next_row = start\n",
        "test_execution_interrupt.py::test_pads_of_a_cancelled_pass_are_spent",
    ),
    mutant(
        "pad-after-a-restart",
        "Each session draws the master of its seeds anew, so that nothing comes twice after a crash.",
        OPENING,
        "self._seeds = PadSeeds(secrets.token_bytes(SEED_BYTES), model_id)",
        "self._seeds = PadSeeds(node.config.identity.public_key, model_id)",
        "test_session_opening.py::test_no_session_repeats_a_pad_of_another",
    ),
    mutant(
        "pad-across-lanes",
        "All lanes of a session draw their seeds from one counter.",
        OPENING,
        "return GuardPads(self._join(peers[lane.pads], Role.PAD), self._seeds, self._manager.send_pad)",
        "seeds = PadSeeds(self._seeds.master, self._model_id)\n"
        "        return GuardPads(self._join(peers[lane.pads], Role.PAD), seeds, self._manager.send_pad)",
        "test_session_opening.py::test_no_session_repeats_a_pad_of_another",
    ),
    mutant(
        "zero-rows-in-the-clear",
        "Zero rows that fill a bucket are hidden as any other.",
        OWN,
        "            pads.append(pad_rows(seed, 0, filling, unit.ref.num_inputs))",
        "            pads.append(0 * pad_rows(seed, 0, filling, unit.ref.num_inputs))",
        "test_execution_pads.py::test_every_pad_row_is_handed_out_once",
    ),
    Mutant(
        "seed-to-a-share-peer",
        "Nobody who gets shares gets a seed, and nobody who gets seeds a share.",
        (Edit("node/execution/requests.py", "if peer.role is not Role.PAD:", "if False:"),),
        ("test_session_opening.py::test_nobody_holds_both_roles_whatever_a_plan_says",),
    ),
    mutant(
        "masks-of-many-rows-12-bit",
        UNIFORM,
        SHARES,
        "words &= np.uint32(P)",
        "words &= np.uint32(0xFFF)",
        "test_protocol_shares.py::test_shares_of_very_different_rows_look_alike",
    ),
    mutant(
        "rejected-value-kept-in-many-rows",
        UNIFORM,
        SHARES,
        "for place in np.flatnonzero((pads == P).any(axis=1)):",
        "for place in np.flatnonzero(pads[:0, 0]):",
        "test_protocol_shares.py::test_the_one_rejected_value_is_skipped_in_order",
    ),
    mutant(
        "rows-of-a-seed-share-a-pad",
        ONCE,
        SHARES,
        "_row_seed(keyed, row))",
        "_row_seed(keyed, row_start))",
        "test_protocol_shares.py::test_rows_can_be_cut_again",
    ),
    mutant(
        "pool-gives-a-pad-twice",
        ONCE,
        POOL,
        "            ready = batches.popleft() if batches else None",
        "            ready = batches[0] if batches else None",
        "test_execution_pads.py::test_a_pool_gives_every_row_once_and_the_products_of_its_pads",
    ),
    Mutant(
        "pools-share-a-master",
        "Every pool of pads draws random bytes of its own, so a process that starts again repeats none.",
        (
            Edit(
                POOL, "PadSeeds(secrets.token_bytes(SEED_BYTES), model_id)", "PadSeeds(bytes(SEED_BYTES), model_id)"
            ),
            Edit(POOL, "self._seeds.stir(secrets.token_bytes(SEED_BYTES))", "self._seeds.stir(bytes(SEED_BYTES))"),
        ),
        ("test_execution_pads.py::test_two_pools_and_two_sessions_never_share_a_pad",),
    ),
    mutant(
        "pads-of-a-fork",
        "A forked process uses no pad of its parent.",
        POOL,
        "if os.getpid() != self._process:",
        "if False:",
        "test_execution_pads.py::test_a_fork_gets_no_pads_of_its_parent",
    ),
    mutant(
        "seeds-of-a-fork",
        "A forked process uses no pad of its parent.",
        SHARES,
        "if os.getpid() != self.process:",
        "if False:",
        "test_execution_pads.py::test_a_fork_gets_no_pads_of_its_parent",
    ),
    mutant(
        "pads-ahead-after-a-broken-connection",
        COPIED,
        "node/execution/roster.py",
        "                lane.pads.forget()",
        "                pass",
        "test_execution_pads.py::test_pads_made_ahead_end_with_a_connection",
    ),
    mutant(
        "pool-of-a-node-that-lost-a-link",
        COPIED,
        "node/transport/links.py",
        "        self._registry.on_link_end()",
        "        pass",
        "test_session_opening.py::test_every_pass_draws_its_pads_with_fresh_random_bytes",
    ),
    mutant(
        "pads-after-a-break-without-fresh-random-bytes",
        COPIED,
        OWN,
        "        self._pool.clear()\n        self._seeds.stir(secrets.token_bytes(SEED_BYTES))",
        "        self._pool.clear()",
        "test_execution_pads.py::test_pads_made_ahead_end_with_a_connection",
    ),
    mutant(
        "share-sent-again-over-a-new-connection",
        COPIED,
        "node/execution/roster.py",
        "[lane for lane in lanes if lane.share_peer.lost_as <= record.losses]",
        "lanes",
        "test_execution_pads.py::test_a_share_is_not_sent_again_over_a_connection_that_is_newer_than_its_pads",
    ),
    mutant(
        "pads-of-a-peer-that-attached-itself-anew",
        COPIED,
        OPENING,
        "                    self._manager.roster.lost(peer)",
        "                    pass",
        "test_session_opening.py::test_pads_ahead_end_where_a_peer_attached_itself_anew",
    ),
    mutant(
        "pads-made-while-they-are-forgotten",
        COPIED,
        POOL,
        "            if self._clears == clears:\n",
        "            if True:\n",
        "test_execution_pads.py::test_pads_that_are_being_made_are_forgotten_too",
    ),
    mutant(
        "passes-without-fresh-random-bytes",
        COPIED,
        OPENING,
        "        self._seeds.stir(secrets.token_bytes(SEED_BYTES))",
        "        pass",
        "test_session_opening.py::test_every_pass_draws_its_pads_with_fresh_random_bytes",
    ),
    mutant(
        "pool-without-fresh-random-bytes",
        COPIED,
        POOL,
        "        self._seeds.stir(secrets.token_bytes(SEED_BYTES))\n",
        "",
        "test_execution_pads.py::test_copies_of_one_device_draw_different_pads",
    ),
)
