"""Print the test vectors of SPEC.md section 13 from this implementation, for when the protocol changes on purpose.

`tests/test_spec.py` goes the other way: it reads the vectors out of SPEC.md and holds the implementation to them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from msgspec.structs import replace

from node.kernels.portable import PortableKernels
from node.model.waves import MOST_WAVES
from node.planning.cut import cut_rows, cut_waves, split_wave
from protocol.codec import decode_message, encode_message
from protocol.finding.announcement import announce
from protocol.identity import Identity
from protocol.limits import MAX_DATA_HEADER_BYTES, PIECE_BYTES, TILE_OUTPUTS
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role
from protocol.linear.shares import PadSeeds, pad_row, pad_rows, row_seed
from protocol.linear.verification import result_digest
from protocol.link.admission import SwarmKey
from protocol.link.door import Doorway, Knock, door_box
from protocol.link.hello import Hello, hello_ok
from protocol.membership.messages import Digest, DigestEntry, SyncOk
from protocol.message import ErrorReply, Ping
from protocol.pairing.code import CERTIFICATE_DOMAIN, Meeting, certified, commitment, sign_consent
from protocol.spans.binding import SpanBinding, SpanRows, span_digest
from protocol.spans.messages import SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward, seal_of
from protocol.transfer.outline import Outline

# Found by search: the element stream of this seed meets the rejected word 2^31 - 1 at this index.
REJECTION_SEED = hashlib.sha256(b"kek/1 rejection 1764").digest()
REJECTION_INDEX = 891_072


def vectors() -> dict[str, Any]:
    """Every vector, as JSON values; bytes as lower-case hex."""
    return {
        "identity": _identity(),
        "seeds": _seeds(),
        "pads": _pads(),
        "linear": _linear(),
        "trusted": _trusted(),
        "span": _span(),
        "pairing": _pairing(),
        "door": _door(),
        "swarm": _swarm(),
        "buckets": _buckets(),
        "outline": _outline(),
        "digest": _digest(),
        "messages": _messages(),
    }


def _swarm() -> dict[str, Any]:
    """Proofs of the two hellos, and the entry of a node on the local network."""
    key, dialler = SwarmKey(bytes(range(32))), Identity.from_seed(bytes(range(32)))
    listener = Identity.from_seed(bytes(range(32, 64)))
    hello = Hello(dialler.public_key, (1,), "vector", (), 0, (), 0, (1,), bytes([1]) * 16)
    answer = hello_ok(replace(hello, public_key=listener.public_key, nonce=bytes([2]) * 16))
    proved, answered = key.prove(hello, listener.public_key), key.prove_answer(hello, answer)
    assert proved.proof is not None and answered.proof is not None
    entries = announce(dialler.public_key, key.secret, bytes([3]) * 24)
    return {
        "key": key.secret.hex(),
        "name": key.name,
        "dialler": dialler.public_key.hex(),
        "listener": listener.public_key.hex(),
        "versions": [1],
        "hello_nonce": hello.nonce.hex(),
        "hello_proof": proved.proof.hex(),
        "answer_nonce": answer.nonce.hex(),
        "answer_proof": answered.proof.hex(),
        "mdns_nonce": (bytes([3]) * 24).hex(),
        "mdns_entry": {name.decode(): value.decode() for name, value in entries.items()},
    }


def _buckets() -> dict[str, Any]:
    """Messages of a pass as [lane, rows], wave by wave, for lanes of speeds 3 and 1 and chunks of 128 rows."""
    speeds = [3.0, 1.0]

    def cut(num_rows: int) -> list[list[int]]:
        spans = [span for wave in cut_waves(num_rows, MOST_WAVES) for span in split_wave(wave, speeds)]
        return [[chunk.lane, chunk.num_sent] for span in spans for chunk in cut_rows(span, 128)]

    return {
        "speeds": speeds,
        "chunk_limit": 128,
        "most_waves": MOST_WAVES,
        "passes": [[rows, cut(rows)] for rows in (1, 2, 9, 33, 129, 512)],
    }


def _outline() -> dict[str, Any]:
    """A blob of one piece and 3 bytes, all zero."""
    pieces = (hashlib.sha256(bytes(PIECE_BYTES)).digest(), hashlib.sha256(bytes(3)).digest())
    outline = Outline(PIECE_BYTES + 3, pieces)
    return {
        "size_bytes": outline.size_bytes,
        "pieces": [piece.hex() for piece in pieces],
        "root": outline.root.hex(),
    }


def _digest() -> dict[str, Any]:
    """A SYNC_OK whose digest has one entry, as its frame."""
    entry = DigestEntry(bytes(range(32)), 7, bytes(range(8)))
    (frame,) = encode_message(SyncOk(Digest(bytes(32), None, (entry,))), 5)
    return {
        "start": bytes(32).hex(),
        "end": None,
        "entry": [entry.key.hex(), entry.seq, entry.prefix.hex()],
        "frame": bytes(frame).hex(),
    }


def _identity() -> dict[str, Any]:
    identity = Identity.from_seed(bytes(range(32)))
    return {
        "seed": identity.seed.hex(),
        "public_key": identity.public_key.hex(),
        "peer_id": identity.peer_id,
        "curve_public_key": identity.curve_public_key.hex(),
        "signature_of_hello_in_domain_test": identity.sign(b"test", b"hello").hex(),
    }


def _door() -> dict[str, Any]:
    swarm, dialler = SwarmKey(bytes(range(32))), Identity.from_seed(bytes(range(32)))
    listener = Identity.from_seed(bytes(range(32, 64)))
    nonce, challenge, box_nonce = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 24
    knock = Knock(door_box(swarm), dialler.public_key, listener.public_key, nonce)
    doorway = Doorway(door_box(swarm), listener.public_key)
    return {
        "swarm_key": swarm.secret.hex(),
        "box_key": bytes(door_box(swarm)).hex(),
        "box_key_of_an_open_swarm": bytes(door_box(None)).hex(),
        "dialler": dialler.public_key.hex(),
        "listener": listener.public_key.hex(),
        "box_nonce": box_nonce.hex(),
        "knock": knock.first().hex(),
        "challenge": challenge.hex(),
        "proof": knock.proof(challenge, box_nonce).hex(),
        "answer": doorway.answer(nonce, challenge, box_nonce).hex(),
    }


def _seeds() -> dict[str, Any]:
    seeds = PadSeeds(bytes(range(32)), bytes(range(32, 64)))
    first = seeds.next(0, "qkv", "guard")
    second = seeds.next(None, "head", "own")
    return {
        "master": bytes(range(32)).hex(),
        "model_id": bytes(range(32, 64)).hex(),
        "chunk_1_layer_0_qkv_guard": first.hex(),
        "chunk_2_head_own": second.hex(),
        "row_0_of_chunk_1": row_seed(first, 0).hex(),
        "row_511_of_chunk_1": row_seed(first, 511).hex(),
    }


def _pads() -> dict[str, Any]:
    around = pad_row(REJECTION_SEED, REJECTION_INDEX + 2)[REJECTION_INDEX - 2 :]
    return {
        "seed": bytes(32).hex(),
        "first_elements": [int(element) for element in pad_row(bytes(32), 4)],
        "rejection_seed": REJECTION_SEED.hex(),
        "rejection_index": REJECTION_INDEX,
        "elements_from_two_before": [int(element) for element in around],
    }


def _linear() -> dict[str, Any]:
    """A unit of one tile, two rows: share, products, merged sums and the digest of the share's result."""
    kernels = PortableKernels()
    num_outputs, num_inputs = 3, 4
    weights = np.array([[127, -127, 1, 0], [-1, 2, -3, 4], [0, 0, 0, 127]], dtype=np.int8)
    rows = np.array([[2047, -2047, 5, 0], [-7, 0, 1, 2]], dtype=np.int16)
    seed = bytes(range(32))
    pads = pad_rows(seed, 0, 2, num_inputs)
    share = kernels.share(rows, pads)
    share_result = kernels.linear_field(weights, share)
    pad_products = kernels.linear_field(weights, pads)
    binding = ChunkBinding(
        bytes(16), 7, bytes(range(32, 64)), hashlib.sha256(b"unit").digest(), Role.SHARE, 0, 2, 0, 1
    )
    assert num_outputs <= TILE_OUTPUTS
    return {
        "weights": weights.tolist(),
        "rows": rows.tolist(),
        "seed": seed.hex(),
        "pads": pads.tolist(),
        "share": share.tolist(),
        "share_result": share_result.tolist(),
        "pad_products": pad_products.tolist(),
        "sums": kernels.merge(share_result, pad_products).tolist(),
        "binding": [entry.hex() if isinstance(entry, bytes) else entry for entry in binding.as_list()],
        "digest": result_digest(binding, share_result).hex(),
    }


def _trusted() -> dict[str, Any]:
    """Plain rows through the unit above: the first fits, the second needs a larger scale (by a made-up norm)."""
    kernels = PortableKernels()
    weights = np.array(_linear()["weights"], dtype=np.int8)
    rows = np.array([[1.5, -0.375, 0.0, 2.0], [1e-3, 1e-3, -1e-3, 1e-3]], dtype=np.float32)
    norm = 300_000.0
    rounded, scales = kernels.quantize(rows, norm)
    sums = kernels.linear_a12(weights, rounded)
    binding = ChunkBinding(
        bytes(16), 7, bytes(range(32, 64)), hashlib.sha256(b"unit").digest(), Role.PLAIN, 0, 2, 0, 1
    )
    return {
        "rows_f32": rows.tobytes().hex(),
        "largest_norm": norm,
        "scales_f32": scales.tobytes().hex(),
        "quantized": rounded.tolist(),
        "sums": sums.tolist(),
        "digest": result_digest(binding, sums).hex(),
    }


def _span() -> dict[str, Any]:
    """A step of two sequences, and the digest of a result."""
    parts = (SpanRows(bytes(range(16)), 0, 1), SpanRows(bytes(range(16, 32)), 300, 302))
    binding = SpanBinding(7, bytes(range(32, 64)), 2, 5, parts)
    rows = np.array([[1.5, -0.375], [0.0, 2.0], [1e-3, -1e-3]], dtype=np.float32)
    digest = span_digest(binding, rows)
    key, way = bytes(range(64, 96)), list[Onward]()
    devices = [Identity.from_seed(bytes([index] * 32)).peer_id for index in range(3)]
    for index in (2, 1):
        after = replace(binding, nonce=7 + index, first=5 + index, end=6 + index)
        way.insert(0, Onward(devices[index], after, seal_of(key, devices[index - 1], after, way)))
    handed = SpanPass(way[0].binding, rows, tuple(way[1:]), way[0].seal)
    return {
        "rows_f32": rows.tobytes().hex(),
        "step": [bytes(frame).hex() for frame in encode_message(SpanStep(binding, rows), 7)],
        "key": key.hex(),
        "devices": devices,
        "seals": [onward.seal.hex() for onward in way],
        "step_with_way": [bytes(frame).hex() for frame in encode_message(SpanStep(binding, rows, tuple(way)), 7)],
        "pass": [bytes(frame).hex() for frame in encode_message(handed, handed.binding.nonce)],
        "digest": digest.hex(),
        "result": [bytes(frame).hex() for frame in encode_message(SpanResult(digest, 1000, rows), 7)],
    }


def _pairing() -> dict[str, Any]:
    """An attempt of two identities with known nonces."""
    asker, answerer = Identity.from_seed(bytes(range(32))), Identity.from_seed(bytes(range(32, 64)))
    nonces = bytes([1] * 32), bytes([2] * 32)
    meeting = Meeting(bytes(range(16)), asker.public_key, answerer.public_key, *nonces)
    message = certified(meeting.pairing, meeting.asker, meeting.answerer)
    return {
        "attempt": meeting.attempt.hex(),
        "asker": asker.public_key.hex(),
        "answerer": answerer.public_key.hex(),
        "asker_nonce": nonces[0].hex(),
        "answerer_nonce": nonces[1].hex(),
        "commitment": commitment(meeting.attempt, meeting.asker, meeting.answerer, nonces[0]).hex(),
        "code": meeting.code,
        "pairing": meeting.pairing.hex(),
        "asker_signature": asker.sign(CERTIFICATE_DOMAIN, message).hex(),
        "answerer_signature": answerer.sign(CERTIFICATE_DOMAIN, message).hex(),
        "consent_of_asker": sign_consent(asker, meeting.pairing, answerer.public_key).hex(),
    }


def _messages() -> dict[str, Any]:
    """Frames of some messages, in hex."""
    linear = _linear()
    session, nonce, model_id, unit, _role, *slices = linear["binding"]
    share = ChunkBinding(
        bytes.fromhex(session), nonce, bytes.fromhex(model_id), bytes.fromhex(unit), Role.SHARE, *slices
    )
    pad = ChunkBinding(bytes.fromhex(session), 8, bytes.fromhex(model_id), bytes.fromhex(unit), Role.PAD, *slices)
    result = LinearResult(bytes.fromhex(linear["digest"]), 42, np.array(linear["share_result"], dtype=np.uint32))
    messages = {
        "ping": (Ping(), 5),
        "error": (ErrorReply(100, "say hello first"), 6),
        "linear_share": (Linear(share, rows=np.array(linear["share"], dtype=np.uint32)), 7),
        "linear_pad": (Linear(pad, seed=bytes.fromhex(linear["seed"])), 8),
        "linear_result": (result, 7),
    }
    frames = {name: encode_message(message, message_id) for name, (message, message_id) in messages.items()}
    for encoded in frames.values():
        decode_message(encoded, MAX_DATA_HEADER_BYTES)
    return {name: [bytes(frame).hex() for frame in encoded] for name, encoded in frames.items()}


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
