"""What membership keeps over a restart: the sequence number of this node's record, and the last records of others.

<data dir>/seq       last sequence number, decimal; on the disk before a record with it is sent
<data dir>/anchors   CBOR list of peer records, those heard last first
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from node.errors import AddressError, ConfigError
from node.store.files import replace_private
from protocol import cbor
from protocol.errors import RemoteProtocolError
from protocol.membership.records import MAX_RECORD_BYTES, MAX_SEQ, PeerRecord, open_record
from protocol.multiaddr import Multiaddr, parse_multiaddr

log = logging.getLogger(__name__)

MAX_ANCHORS = 64
MAX_ANCHOR_FILE_BYTES = MAX_ANCHORS * (MAX_RECORD_BYTES + 8) + 16


class SwarmMemory:
    """The files `seq` and `anchors` of a data directory."""

    def __init__(self, folder: Path) -> None:
        self._seq_path = folder / "seq"
        self._anchors_path = folder / "anchors"
        self._anchors: list[bytes] | None = None

    def seq(self) -> int:
        """The last sequence number; 0 if there was none. Raises ConfigError for a damaged file."""
        try:
            text = self._seq_path.read_text("ascii")
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"cannot read {self._seq_path}: {exc}; restore or remove it") from exc
        if not text.strip().isdigit() or not 0 <= int(text) <= MAX_SEQ:
            raise ConfigError(f"{self._seq_path} holds no sequence number: remove it, then the clock gives one")
        return int(text)

    def keep_seq(self, seq: int) -> None:
        """Returns once the number is on the disk."""
        replace_private(self._seq_path, f"{seq}\n".encode())

    def anchors(self) -> list[PeerRecord]:
        """Records of the last run. Unreadable ones are left out: they are only hints, and peers will send them."""
        try:
            content = self._anchors_path.read_bytes()
            envelopes = cbor.decode(content, MAX_ANCHOR_FILE_BYTES)
        except FileNotFoundError:
            return []
        except (OSError, RemoteProtocolError) as exc:
            log.warning("the records of the last run cannot be read (%s): %s", self._anchors_path, exc)
            return []
        return [record for envelope in envelopes for record in _read(envelope)] if isinstance(envelopes, list) else []

    def keep_anchors(self, envelopes: Sequence[bytes]) -> None:
        """Write the records, if they differ from the last ones."""
        chosen = list(envelopes[:MAX_ANCHORS])
        if chosen != self._anchors:
            replace_private(self._anchors_path, cbor.encode(chosen))
            self._anchors = chosen


def addresses_of(record: PeerRecord) -> list[Multiaddr]:
    """The addresses at which a record says that its peer can be dialled."""
    addresses = []
    for text in record.facts.addrs:
        with contextlib.suppress(AddressError):
            addresses.append(parse_multiaddr(text).with_peer(record.peer_id))
    return addresses


def _read(envelope: object) -> list[PeerRecord]:
    try:
        return [open_record(envelope)] if isinstance(envelope, bytes) else []
    except RemoteProtocolError as exc:
        log.warning("a record of the last run was left out: %s", exc)
        return []
