"""Faults of the gate that every result passes: binding, SHA-256, canonical range, Freivalds' check."""

from __future__ import annotations

from scripts.mutations.mutation import Mutant, mutant

VERIFICATION, LIMITS = "protocol/linear/verification.py", "protocol/limits.py"
MESSAGES, GATE = "protocol/linear/messages.py", "node/execution/gate.py"
TESTS = "test_protocol_verification.py"
BOUND = "A result counts for the one request that it answers."


def _unbound(what: str, zero: str) -> Mutant:
    """The digest covers everything of a binding but one part."""
    return mutant(
        f"binding-without-{what}",
        BOUND,
        VERIFICATION,
        "        self._sha256 = hashlib.sha256(DIGEST_DOMAIN + binding.encoded)\n",
        "        from msgspec.structs import replace\n\n"
        f"        self._sha256 = hashlib.sha256(DIGEST_DOMAIN + replace(binding, {zero}).encoded)\n",
        f"{TESTS}::test_the_digest_of_another_request_fails",
    )


CHECKS = (
    mutant(
        "exit-early",
        "A verdict is one bit, taken after everything was computed.",
        VERIFICATION,
        "    bound = result_digest(binding, result.numbers) == result.digest\n",
        "    bound = result_digest(binding, result.numbers) == result.digest\n"
        "    if not bound:\n        return False\n",
        f"{TESTS}::test_a_lie_costs_the_same_work_as_the_truth",
    ),
    mutant(
        "exit-after-the-range",
        "A value out of range costs as much work as any other.",
        VERIFICATION,
        "    safe = outputs if canonical else np.zeros_like(outputs)\n",
        "    if not canonical:\n        return False\n    safe = outputs\n",
        f"{TESTS}::test_a_lie_costs_the_same_work_as_the_truth",
    ),
    mutant(
        "not-canonical",
        "An element is below p, or the result is refused.",
        VERIFICATION,
        "projections, next(combined)) and canonical",
        "projections, next(combined))",
        "test_protocol_verification.py::test_p_is_not_zero",
    ),
    mutant(
        "canonical-by-repair",
        "A value that fails a check is refused and never repaired.",
        VERIFICATION,
        "    correct = freivalds(check, binding, inputs, result.elements, arithmetic, random_bytes)\n",
        "    correct = freivalds(check, binding, inputs, result.elements % np.uint32(P), arithmetic, random_bytes)\n",
        f"{TESTS}::test_p_is_not_zero",
    ),
    mutant(
        "integers-not-centred",
        "An integer of a trusted device stands for one element alone.",
        MESSAGES,
        "        return all_centred(self.sums)",
        "        return True",
        "test_execution_trusted.py::test_a_trusted_device_is_believed_no_more_than_anybody",
    ),
    mutant(
        "no-vector",
        "Every result is checked against three secret vectors.",
        VERIFICATION,
        "        return arithmetic.dots_agree(vectors, outputs, projections, inputs)",
        "        return arithmetic.dots_agree(vectors[:0], outputs, projections[:0], inputs)",
        f"{TESTS}::test_a_forgery_with_its_own_digest_fails",
    ),
    mutant(
        "one-vector",
        "Every result is checked against three secret vectors.",
        LIMITS,
        "FREIVALDS_VECTORS = 3",
        "FREIVALDS_VECTORS = 1",
        f"{TESTS}::test_the_projections_are_the_product",
    ),
    mutant(
        "hash-alone",
        "The right digest does not make a product right.",
        VERIFICATION,
        "    return bound and result.is_whole and correct",
        "    return bound and result.is_whole",
        "test_protocol_verification.py::test_a_forgery_with_its_own_digest_fails",
    ),
    mutant(
        "no-hash",
        "The digest binds a result to its request.",
        VERIFICATION,
        "    return bound and result.is_whole and correct",
        "    return result.is_whole and correct",
        f"{TESTS}::test_a_digest_of_other_bytes_fails",
    ),
    mutant(
        "first-row-alone",
        "Every row of a result is checked.",
        VERIFICATION,
        "    coefficients = random_elements((FREIVALDS_VECTORS, len(outputs)), random_bytes)",
        "    coefficients = random_elements((FREIVALDS_VECTORS, len(outputs)), random_bytes)\n"
        "    coefficients[:, 1:] = 0",
        "test_protocol_verification.py::test_every_single_element_counts",
    ),
    mutant(
        "rows-combined-by-ones",
        "Rows are combined with fresh secret coefficients, so that errors of two rows do not cancel.",
        VERIFICATION,
        "    coefficients = random_elements((FREIVALDS_VECTORS, len(outputs)), random_bytes)",
        "    coefficients = np.ones((FREIVALDS_VECTORS, len(outputs)), np.uint32)",
        f"{TESTS}::test_a_forgery_among_rows_fails",
    ),
    mutant(
        "coefficients-of-no-secret",
        "Coefficients come from the operating system's random bytes.",
        GATE,
        "check, kernels, secrets.token_bytes)",
        "check, kernels, lambda size: bytes(size))",
        "test_execution_manager.py::test_in_strict_mode_a_refused_share_is_done_by_another",
    ),
    mutant(
        "vectors-of-no-secret",
        "The vectors of a check come from the operating system's random bytes.",
        GATE,
        "UnitCheck.of(unit.weights, self._kernels, secrets.token_bytes)",
        "UnitCheck.of(unit.weights, self._kernels, lambda size: bytes(size))",
        "test_execution_manager.py::test_in_strict_mode_a_refused_share_is_done_by_another",
    ),
    mutant(
        "vectors-of-the-model",
        "The vectors of a check are drawn, and can be derived from nothing.",
        GATE,
        "UnitCheck.of(unit.weights, self._kernels, secrets.token_bytes)",
        "UnitCheck.of(unit.weights, self._kernels, lambda size: (unit.ref.sha256 * size)[:size])",
        "test_execution_gate.py::test_vectors_are_drawn_anew_for_every_node_and_after_every_refusal",
    ),
    mutant(
        "narrow-vectors",
        "The vectors of a check are uniform below p.",
        VERIFICATION,
        "    return elements[:wanted].reshape(shape)",
        "    return (elements[:wanted] & np.uint32(0xFFFF)).reshape(shape)",
        f"{TESTS}::test_the_secrets_are_uniform_and_fresh",
    ),
    mutant(
        "other-form",
        "A request is answered in the form of its role.",
        VERIFICATION,
        "    if binding.role not in result.ROLES or result.numbers.shape",
        "    if result.numbers.shape",
        "test_execution_trusted.py::test_a_trusted_device_is_believed_no_more_than_anybody",
    ),
    _unbound("session", "session=bytes(16)"),
    _unbound("nonce", "nonce=0"),
    _unbound("model", "model_id=bytes(32)"),
    _unbound("unit", "unit=bytes(32)"),
    _unbound("role", "role=1"),
    _unbound("rows", "row_start=0, row_end=1"),
    _unbound("tiles", "tile_start=0, tile_end=1"),
    mutant(
        "digest-without-domain",
        "A digest of a result is a digest of nothing else.",
        VERIFICATION,
        "hashlib.sha256(DIGEST_DOMAIN + binding.encoded)",
        "hashlib.sha256(binding.encoded)",
        f"{TESTS}::test_the_digest_is_the_one_of_the_specification",
    ),
    mutant(
        "compiled-range-has-p",
        "The compiled check of the range refuses p itself.",
        "node/kernels/residues.h",
        "        beyond |= elements[i] | (elements[i] + 1u);",
        "        beyond |= elements[i];",
        "test_kernels_integers.py::test_elements_that_are_not_canonical_are_found_anywhere",
    ),
)
