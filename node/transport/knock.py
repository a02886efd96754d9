"""Knocks at other nodes' doors: every ZeroMQ connection that this node opens begins with one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from concurrent.futures import Future

from node.errors import PeerRefusedError, TransportError
from protocol.identity import Identity, PeerId, public_key_of
from protocol.link.admission import SwarmKey
from protocol.link.door import (
    ANSWER_BYTES,
    BOX_NONCE_BYTES,
    CHALLENGE_BYTES,
    DOOR_NONCE_BYTES,
    DoorError,
    DoorStatus,
    Knock,
    door_box,
)

KNOCK_TIMEOUT_S = 3.0


class Knocks:
    """Knocks for one node, in a thread of their own; any thread may ask."""

    def __init__(self, identity: Identity, swarm: SwarmKey | None) -> None:
        self._me = identity.public_key
        self._box = door_box(swarm)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, once."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="knocks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up every knock that is under way and end the thread; a second call does nothing."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join()
            self._thread = None
            self._loop.close()

    def _end(self) -> None:
        """Cancel what is under way, then end the loop."""
        under_way = asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True)
        under_way.cancel()
        under_way.add_done_callback(self._ended)

    def _ended(self, under_way: asyncio.Future[list[object]]) -> None:
        if not under_way.cancelled():
            under_way.exception()  # of a gathering that was cancelled: asyncio complains where nobody looks
        self._loop.stop()

    def knock(self, peer_id: PeerId, host: str, port: int, pause_s: float = 0.0) -> Future[None]:
        """Be let in by a node, after a pause; the ZeroMQ connection has to follow within 10 s.

        The future raises TransportError where nobody answers as a door does, PeerRefusedError where it stays shut.

        Args:
            host: an IP address, of IPv6 with or without brackets.
        """
        return asyncio.run_coroutine_threadsafe(self._knock(peer_id, host.strip("[]"), port, pause_s), self._loop)

    async def _knock(self, peer_id: PeerId, host: str, port: int, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        knock = Knock(self._box, self._me, public_key_of(peer_id), secrets.token_bytes(DOOR_NONCE_BYTES))
        try:
            async with asyncio.timeout(KNOCK_TIMEOUT_S):
                await self._talk(knock, host, port)
        except TimeoutError as exc:
            raise TransportError(f"did not answer within {KNOCK_TIMEOUT_S:g} s") from exc
        except (EOFError, ConnectionResetError) as exc:
            raise TransportError("hung up at the door: no node, one of another version, or too busy") from exc
        except OSError as exc:
            raise TransportError(os.strerror(exc.errno) if exc.errno else str(exc)) from exc

    @staticmethod
    async def _talk(knock: Knock, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=ANSWER_BYTES)
        try:
            writer.write(knock.first())
            challenge = await reader.readexactly(CHALLENGE_BYTES)
            writer.write(knock.proof(challenge, secrets.token_bytes(BOX_NONCE_BYTES)))
            knock.check(challenge, await reader.readexactly(ANSWER_BYTES))
        except DoorError as exc:
            refused = exc.status in (DoorStatus.OTHER_KEY, DoorStatus.UNWANTED)
            raise (PeerRefusedError if refused else TransportError)(str(exc)) from exc
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
