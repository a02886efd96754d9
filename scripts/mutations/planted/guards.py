"""Faults in who is chosen as a guard, who is kept out, and for how long."""

from __future__ import annotations

from scripts.mutations.mutation import mutant

RULES, SEPARATION, KEEPER = "node/guards/rules.py", "node/guards/separation.py", "node/guards/keeper.py"
ACCESS, OPENING, CONDUCT = "node/swarm/access.py", "node/session/opening.py", "node/transport/conduct.py"
STICKY = "A guard keeps its place for months, whoever comes or goes."
APART = "Two guards of a lane have as little in common as can be."
BANNED = "A ban holds for both identities of a key, until its time is over, over restarts."

GUARDS = (
    mutant(
        "guards-chosen-anew",
        STICKY,
        RULES,
        "                lanes[index].holder(side) or Guard(chosen.peer_id, now, now + rng.uniform(*LIFETIME_S))",
        "                Guard(chosen.peer_id, now, now + rng.uniform(*LIFETIME_S))",
        "test_guards_rules.py::test_a_guard_is_replaced_for_a_reason_and_its_partner_stays",
    ),
    mutant(
        "guards-of-an-hour",
        STICKY,
        RULES,
        "LIFETIME_S = (180 * DAY_S, 360 * DAY_S)",
        "LIFETIME_S = (3600.0, 7200.0)",
        "test_guards_rules.py::test_guards_stay_for_half_a_year_at_least",
    ),
    mutant(
        "guards-not-kept",
        "Guards are the same after a restart.",
        KEEPER,
        "        stored = None if path is None else read_book(path)\n",
        "        stored = None\n",
        "test_guards_keeper.py::test_guards_are_the_same_after_a_restart",
    ),
    mutant(
        "absent-guard-replaced",
        "The place of an absent guard stays empty.",
        RULES,
        "    lanes += [LanePlaces()] * (min(max_lanes, MAX_LANES) - len(lanes))\n",
        "    present = [[g if g and g.peer_id in there else None for g in (one.pad, one.share)] for one in lanes]\n"
        "    lanes = [LanePlaces(*pair) for pair in present]\n"
        "    lanes += [LanePlaces()] * (min(max_lanes, MAX_LANES) - len(lanes))\n",
        "test_guards_rules.py::test_an_absent_guard_leaves_its_place_empty",
        "test_guards_rules.py::test_places_are_kept_whoever_comes_or_goes",
    ),
    mutant(
        "guard-changes-sides",
        "Who was a guard of one side is none of the other, in any model.",
        RULES,
        "[candidate for candidate in free if sides.get(candidate.peer_id, side) == side]",
        "list(free)",
        "test_guards_rules.py::test_a_guard_of_another_model_is_preferred_and_keeps_its_side",
    ),
    mutant(
        "liar-stays-a-guard",
        "Who lied loses its place at once and for good.",
        RULES,
        "    return worn_out or guard.peer_id in caught or banned(guard.peer_id)",
        "    return worn_out or banned(guard.peer_id)",
        "test_guards_rules.py::test_a_guard_is_replaced_for_a_reason_and_its_partner_stays",
    ),
    mutant(
        "liar-chosen-again",
        "Who lied never becomes a guard again.",
        RULES,
        "        if candidate.peer_id not in book.caught\n        and not banned",
        "        if not banned",
        "test_guards_rules.py::test_a_guard_is_replaced_for_a_reason_and_its_partner_stays",
    ),
    mutant(
        "liar-not-written-down",
        "Who lied never becomes a guard again.",
        OPENING,
        "        self._node.guards.caught(peer_id)\n",
        "",
        "test_session_bans.py::test_who_lied_is_kept_out_for_a_day_and_never_becomes_a_guard",
    ),
    mutant(
        "liar-not-banned",
        "Who lied is kept out for a day.",
        OPENING,
        '        self._node.ban(peer_id, "a result of it failed verification", LIE_BAN_S)\n',
        "",
        "test_session_bans.py::test_who_lied_is_kept_out_for_a_day_and_never_becomes_a_guard",
    ),
    mutant(
        "newcomer-is-a-guard",
        "A peer is a guard only a day after it was first seen.",
        RULES,
        "return now - first >= PROBATION_S or now - book.born < PROBATION_S",
        "return True",
        "test_guards_rules.py::test_a_newcomer_waits_a_day_unless_the_book_is_young",
    ),
    mutant(
        "operators-not-compared",
        APART,
        SEPARATION,
        "    if one.operator == other.operator != NO_OPERATOR or (one.paired and other.paired):",
        "    if one.paired and other.paired:",
        "test_guards_rules.py::test_operators_count_whatever_the_network_says_and_silence_is_no_operator",
    ),
    mutant(
        "own-devices-not-compared",
        APART,
        SEPARATION,
        "    if one.operator == other.operator != NO_OPERATOR or (one.paired and other.paired):",
        "    if one.operator == other.operator != NO_OPERATOR:",
        "test_guards_rules.py::test_operators_count_whatever_the_network_says_and_silence_is_no_operator",
    ),
    mutant(
        "subnets-not-compared",
        APART,
        SEPARATION,
        "    return Closeness.SUBNET if there in subnet else Closeness.NOTHING",
        "    return Closeness.NOTHING",
        "test_guards_rules.py::test_how_far_apart",
    ),
    mutant(
        "closeness-not-minded",
        APART,
        RULES,
        "score = (closeness(pad, share), -len(common - covered), -len(common), -tried, rng.random())",
        "score = (-len(common - covered), -len(common), -tried, rng.random())",
        "test_guards_rules.py::test_the_first_lane_is_as_far_apart_as_can_be",
    ),
    mutant(
        "ban-not-kept",
        BANNED,
        ACCESS,
        "            self._entries[entry.peer_id] = entry\n            self._index()\n            self._write()\n",
        "            self._entries[entry.peer_id] = entry\n            self._index()\n",
        "test_swarm_files.py::test_a_ban_persists_and_expires",
    ),
    mutant(
        "ban-read-and-forgotten",
        BANNED,
        ACCESS,
        "        self._entries = {entry.peer_id: entry for entry in entries}\n        self._index()\n",
        "        self._entries = {entry.peer_id: entry for entry in entries}\n",
        "test_swarm_files.py::test_a_ban_persists_and_expires",
    ),
    mutant(
        "ban-of-one-identity",
        BANNED,
        ACCESS,
        "banned_until = self._banned_keys.get(_curve_key_of(peer_id), 0.0) if self._banned_keys else 0.0",
        "banned_until = 0.0 if entry is None or entry.verdict is Verdict.ALLOW else entry.until",
        "test_transport_banned.py::test_a_ban_holds_for_both_identities_of_a_key",
    ),
    mutant(
        "ban-without-an-end-of-links",
        "A ban counts from the moment it is said.",
        "node/node.py",
        "        self.registry.expel(peer_id)\n",
        "",
        "test_transport_banned.py::test_a_ban_counts_from_the_moment_it_is_said",
    ),
    mutant(
        "users-ban-makes-room",
        "Bans that pass make room for others, and what the user said stays.",
        ACCESS,
        "passing = [e for e in self._entries.values() if e.until is not None and e.verdict is Verdict.BAN]",
        "passing = list(self._entries.values())",
        "test_transport_banned.py::test_bans_that_pass_make_room_and_what_the_user_said_stays",
    ),
    mutant(
        "damaged-bans-forgotten",
        "A list of bans that cannot be read is an error, never an empty list.",
        ACCESS,
        '            reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"\n',
        '            return\n            reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"\n',
        "test_swarm_files.py::test_lists_that_cannot_be_read_are_an_error",
    ),
    mutant(
        "banned-in-a-session",
        "Who is banned in the middle of an answer gets no more rows.",
        "node/session/session.py",
        "            peer.leaving = kept_out or registry.is_leaving(peer.peer_id)",
        "            peer.leaving = registry.is_leaving(peer.peer_id)",
        "test_session_bans.py::test_a_peer_that_is_banned_in_the_middle_gets_no_more_rows",
    ),
)
