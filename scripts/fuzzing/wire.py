"""Targets: all that another node sends, and the lines and addresses by which it is found."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from nacl.secret import SecretBox

from protocol import cbor
from protocol.codec import decode_message, encode_message
from protocol.envelope import Frame, decode_envelope
from protocol.errors import AddressError, RemoteProtocolError
from protocol.finding.announcement import MAX_ANNOUNCED_CHARACTERS, OPEN_KEY, SEALED_KEY, announce, read_announcement
from protocol.finding.invitation import CHECKSUM_BYTES, InvitationError, format_invitation, parse_invitation
from protocol.identity import public_key_of
from protocol.limits import MAX_CONTROL_FRAME_BYTES, MAX_DATA_HEADER_BYTES
from protocol.linear import quick as linear
from protocol.link.door import ANSWER_BYTES, DoorError, Doorway, Knock, door_box
from protocol.link.zmtp import GREETING_BYTES, ServerHandshake
from protocol.membership.records import RECORD_DOMAIN, RECORD_TYPE, claimed_key, open_record
from protocol.message import Message
from protocol.multiaddr import parse_multiaddr
from protocol.spans import quick as spans
from scripts.fuzzing import samples
from scripts.fuzzing.forms import CBOR, FRAMES, split_frames
from scripts.fuzzing.target import Target

QuickMessage = Callable[[Sequence[Frame], int], tuple[int, Message] | None]

NOW_S = 1.8e9
CHALLENGE, NONCE = bytes([1]) * 32, bytes([2]) * 32


def read_envelope(data: bytes) -> None:
    """Frames of any message, as far as they are the same for all."""
    decode_envelope(split_frames(data), MAX_CONTROL_FRAME_BYTES)


def read_message(data: bytes, max_header_bytes: int) -> None:
    """Frames of a message; one that was read can be written, and is then read as the same again."""
    received = decode_message(split_frames(data), max_header_bytes)
    frames = encode_message(received.message, received.id)
    again = decode_message(frames, max_header_bytes)
    assert again.id == received.id and type(again.message) is type(received.message)
    assert [bytes(frame) for frame in encode_message(again.message, again.id)] == [bytes(frame) for frame in frames]


def read_quick(data: bytes, pattern: QuickMessage) -> None:
    """The same; and a header that a pattern takes means to the general way what it means to the pattern."""
    frames = split_frames(data)
    if (quick := pattern(frames, MAX_DATA_HEADER_BYTES)) is not None:
        general = decode_envelope(frames, MAX_DATA_HEADER_BYTES)
        other = type(quick[1]).from_parts(general.body, general.buffers)
        assert (quick[0], quick[1].TYPE, quick[1].to_body()) == (general.id, general.type, other.to_body())
        for one, two in zip(quick[1].to_buffers(), other.to_buffers(), strict=True):
            assert one.data.shape == two.data.shape and one.data.tobytes() == two.data.tobytes()
    read_message(data, MAX_DATA_HEADER_BYTES)


def read_record(data: bytes) -> None:
    """A signed record as it came."""
    claimed_key(data)
    open_record(data)


def read_signed(data: bytes) -> None:
    """The content of a record, signed by who wrote it: any member can."""
    payload = bytes(data)
    length = (
        len(payload).to_bytes(1, "big")
        if len(payload) < 128
        else bytes([len(payload) & 127 | 128, len(payload) >> 7 & 255])
    )
    stated = bytes([len(RECORD_TYPE)]) + RECORD_TYPE + length + payload
    signature = samples.ME.sign(RECORD_DOMAIN, stated)
    key = bytes.fromhex("0a2408011220") + samples.ME.public_key
    typed = b"\x12" + bytes([len(RECORD_TYPE)]) + RECORD_TYPE
    open_record(key + typed + b"\x1a" + length + payload + b"\x2a\x40" + signature)


def read_line(data: bytes) -> None:
    """An invitation, as a user pastes it."""
    parse_invitation(data.decode("utf-8", "surrogateescape"), NOW_S)


def read_invited(data: bytes) -> None:
    """The content of an invitation, in a line that is whole."""
    import base64

    checksum = hashlib.sha256(b"kek/1 invitation" + data).digest()[:CHECKSUM_BYTES]
    line = base64.urlsafe_b64encode(data + checksum).decode().rstrip("=")
    parse_invitation(f"kekahyde:1:{line}", NOW_S)


def read_announced(data: bytes) -> None:
    """What multicast DNS carries: of an open swarm, sealed by a stranger, and sealed by a member."""
    sealed = bytes(
        SecretBox(hashlib.blake2b(key=samples.KEY.secret, digest_size=32, person=b"kek/1 mdns").digest()).encrypt(
            data[:64], bytes(24)
        )
    )
    import base64

    for key, text, secret in (
        (OPEN_KEY, data, None),
        (SEALED_KEY, data, samples.KEY.secret),
        (SEALED_KEY, base64.b64encode(sealed)[: MAX_ANNOUNCED_CHARACTERS + 1], samples.KEY.secret),
    ):
        read_announcement({b"v": b"1", key: text}, secret)


def read_address(data: bytes) -> None:
    """An address as text, and the PeerID in it."""
    text = data.decode("utf-8", "surrogateescape")
    address = parse_multiaddr(text)
    assert parse_multiaddr(str(address)) == address
    if address.peer_id is not None:
        public_key_of(address.peer_id)


def read_door(data: bytes) -> None:
    """What comes through a door, at both of its sides; the first byte says at which step."""
    doorway = Doorway(door_box(samples.KEY), samples.OTHER.public_key)
    knock = Knock(door_box(samples.KEY), samples.ME.public_key, samples.OTHER.public_key, NONCE)
    step, said = data[:1], data[1:]
    match step:
        case b"k":
            doorway.nonce_of(said)
        case b"p":
            doorway.dialler_of(NONCE, CHALLENGE, said)
        case b"s":
            doorway.dialler_of(NONCE, CHALLENGE, bytes(doorway.box.encrypt(said, bytes(24))))
        case _ if len(said) == ANSWER_BYTES:
            knock.check(CHALLENGE, said)


def read_zmtp(data: bytes) -> None:
    """A CURVE server's side of a handshake, in two pieces: how it is cut changes nothing."""
    whole, cut = ServerHandshake(), ServerHandshake()
    at = len(data) // 2
    cut.receive(data[:at])
    assert whole.receive(data) is cut.receive(data[at:])


def _door_seeds() -> list[bytes]:
    doorway = Doorway(door_box(samples.KEY), samples.OTHER.public_key)
    knock = Knock(door_box(samples.KEY), samples.ME.public_key, samples.OTHER.public_key, NONCE)
    stated = samples.ME.public_key + samples.OTHER.public_key + NONCE + CHALLENGE
    answer = doorway.answer(NONCE, CHALLENGE, bytes(24))
    return [b"k" + knock.first(), b"p" + knock.proof(CHALLENGE, bytes(24)), b"s" + stated, b"a" + answer]


def _zmtp_seeds() -> list[bytes]:
    greeting = b"\xff" + bytes(GREETING_BYTES - 1)
    welcome, ready = b"\x07WELCOME" + bytes(160), b"\x05READY" + bytes(40)
    commands = [b"\x04" + bytes([len(body)]) + body for body in (welcome, ready, b"\x05ERROR\x00")]
    return [greeting + commands[0] + commands[1], greeting + commands[2], greeting]


def _announced_seeds() -> list[bytes]:
    opened = announce(samples.ME.public_key, None, bytes(24))[OPEN_KEY]
    sealed = announce(samples.ME.public_key, samples.KEY.secret, bytes(24))[SEALED_KEY]
    return [opened, sealed, samples.ME.public_key]


def _payload() -> bytes:
    envelope = samples.record().envelope
    return envelope[64 : len(envelope) - 66]


def _body() -> bytes:
    import base64

    text = format_invitation(samples.invitation()).rpartition(":")[2]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:-CHECKSUM_BYTES]


def _inputs(messages: Callable[[], Sequence[Message]]) -> Callable[[], list[bytes]]:
    return lambda: [samples.as_input(message) for message in messages()]


def _all_inputs() -> list[bytes]:
    kinds = (samples.link_messages, samples.membership_messages, samples.pairing_messages, samples.linear_messages)
    return [one for kind in (*kinds, samples.transfer_messages, samples.span_messages) for one in _inputs(kind)()]


def _message_target(
    name: str, reads: str, messages: Callable[[], Sequence[Message]], max_header_bytes: int
) -> Target:
    read = functools.partial(read_message, max_header_bytes=max_header_bytes)
    return Target(name, reads, read, (RemoteProtocolError,), _inputs(messages), FRAMES)


def _quick_target(name: str, reads: str, messages: Callable[[], Sequence[Message]], pattern: QuickMessage) -> Target:
    read = functools.partial(read_quick, pattern=pattern)
    return Target(name, reads, read, (RemoteProtocolError,), _inputs(messages), FRAMES)


CONTROL, DATA = MAX_CONTROL_FRAME_BYTES, MAX_DATA_HEADER_BYTES
TARGETS = (
    Target(
        "cbor",
        "one value",
        lambda data: cbor.decode(data, CONTROL),
        (RemoteProtocolError,),
        lambda: [_payload(), _body()],
        CBOR,
    ),
    Target("envelope", "frames of any message", read_envelope, (RemoteProtocolError,), _all_inputs, FRAMES),
    _message_target("link", "hellos, pings, errors, dial-backs", samples.link_messages, CONTROL),
    _message_target("membership", "gossip and its exchange", samples.membership_messages, CONTROL),
    _message_target("pairing", "pairings", samples.pairing_messages, CONTROL),
    _quick_target("linear", "shares, seeds, plain rows, results", samples.linear_messages, linear.quick_message),
    _quick_target("spans", "steps through whole layers", samples.span_messages, spans.quick_message),
    _message_target("transfer", "blobs and pieces", samples.transfer_messages, DATA),
    Target("record", "a signed record", read_record, (RemoteProtocolError,), lambda: [samples.record().envelope]),
    Target(
        "signed-record",
        "the content of a record, signed",
        read_signed,
        (RemoteProtocolError,),
        lambda: [_payload()],
        CBOR,
    ),
    Target(
        "invitation",
        "a line that a user pastes",
        read_line,
        (InvitationError,),
        lambda: [
            format_invitation(samples.invitation()).encode(),
            format_invitation(replace(samples.invitation(), swarm_key=None)).encode(),
        ],
    ),
    Target(
        "invited",
        "the content of an invitation in a whole line",
        read_invited,
        (InvitationError,),
        lambda: [_body()],
        CBOR,
    ),
    Target("announcement", "an entry of multicast DNS", read_announced, (), _announced_seeds),
    Target(
        "address",
        "an address as text",
        read_address,
        (AddressError,),
        lambda: [
            f"{samples.ADDRESS}/p2p/{samples.ME.peer_id}".encode(),
            b"/ip6/::1/tcp/0",
            b"/dns4/example.org/tcp/65535",
        ],
    ),
    Target("door", "knock, proof and answer at a door", read_door, (DoorError,), _door_seeds),
    Target("zmtp", "a CURVE handshake", read_zmtp, (), _zmtp_seeds),
)
