"""What this device computes for others: how much, for whom, and whether it does so now.

<data dir>/lending.json   the owner's rules, and the bytes of this month
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from node.errors import ConfigError
from node.json_file import read_bounded
from node.store.files import replace_private
from protocol.identity import PeerId

MAX_FILE_BYTES = 1 << 16
MAX_BORROWERS = 256
"""Most peers and models that are counted apart; those that asked longest ago are forgotten."""
BUSY_SHARE = 0.25
"""A device is in use where other programs take more than this share of its processors."""
LOOK_EVERY_S = 5.0
"""Over so long the use of the processors is measured."""
STORE_EVERY_S = 60.0
QUARTER_S = 900.0


class LendingRules(Struct, frozen=True):
    """When this device computes for others."""

    paused: bool = False
    only_idle: bool = False
    """Only while other programs leave the processors alone."""
    hours: tuple[int, int] | None = None
    """From this hour of the day to that one, local time; 22 to 6 crosses midnight. None: always."""
    monthly_bytes: int | None = None
    """Most bytes received and sent for others in a calendar month. None: no limit."""
    replicate: bool | None = None
    """Whether it holds parts of models that members publish. None: in a swarm with a key, not in an open one."""

    def check(self) -> None:
        """Raises ConfigError for rules that cannot be."""
        if self.hours is not None and (
            len(self.hours) != 2 or not all(0 <= hour <= 24 for hour in self.hours) or self.hours[0] == self.hours[1]
        ):
            given = "-".join(map(str, self.hours))
            raise ConfigError(f"{given} are not hours: give two different ones from 0 to 24, such as 22-6")
        if self.monthly_bytes is not None and self.monthly_bytes < 0:
            raise ConfigError("the limit of a month is a number of bytes, 0 or more")


class Borrower(Struct):
    """What one peer had computed of one model since the start."""

    peer_id: PeerId
    model_id: bytes
    requests: int = 0
    rows: int = 0
    num_bytes: int = 0
    last_unix_s: float = 0.0


class Lending:
    """Counts and decides. Thread-safe; `refusal` is asked for every request and is cheap.

    Args:
        path: where the rules are kept; None: only in memory.
    """

    def __init__(self, path: Path | None = None, unix_s: Callable[[], float] = time.time) -> None:
        """Raises ConfigError for a damaged file: a pause is never forgotten silently."""
        self._path, self._unix_s = path, unix_s
        self._lock = threading.Lock()
        self._borrowers: dict[tuple[PeerId, bytes], Borrower] = {}
        self.rules, self._month, self._month_bytes = LendingRules(), "", 0
        if path is not None and path.exists():
            self.rules, self._month, self._month_bytes = _read(path)
        self._looked_at, self._in_use = 0.0, False
        self._own_s = self._busy_s = 0.0
        self._stored_at = unix_s()
        self._month_ends_at = 0.0
        """Until then `_month` is the month that is; asking the calendar for every request costs too much."""

    @property
    def refusal(self) -> str | None:
        """Why nothing is computed for others now; None if it is."""
        rules = self.rules
        if rules.paused:
            return "its owner has paused it"
        if rules.hours is not None and not _within(time.localtime(self._unix_s()).tm_hour, *rules.hours):
            return "it lends at other hours"
        if rules.monthly_bytes is not None and self._bytes_of_month() >= rules.monthly_bytes:
            return "its limit for this month is used up"
        if rules.only_idle and self._is_in_use():
            return "its owner is using it"
        return None

    def set_rules(self, rules: LendingRules) -> None:
        """Follow these rules from now on; they are on the disk when this returns. Raises ConfigError."""
        rules.check()
        with self._lock:
            self.rules = rules
            self._store()

    def count(self, peer_id: PeerId, model_id: bytes, rows: int, num_bytes: int, requests: int = 1) -> None:
        """Requests of a peer were answered: so many rows, and bytes both ways."""
        now = self._unix_s()
        with self._lock:
            key = (peer_id, model_id)
            borrower = self._borrowers.pop(key, None) or Borrower(peer_id, model_id)
            self._borrowers[key] = borrower
            borrower.requests += requests
            borrower.rows += rows
            borrower.num_bytes += num_bytes
            borrower.last_unix_s = now
            if len(self._borrowers) > MAX_BORROWERS:
                del self._borrowers[next(iter(self._borrowers))]
            if not self._month_ends_at > now:
                self._month_bytes, self._month = self._bytes_of_month(), _month(now)
                self._month_ends_at = (now // QUARTER_S + 1) * QUARTER_S  # months end at full quarters everywhere
            self._month_bytes += num_bytes
            if now - self._stored_at > STORE_EVERY_S and self.rules.monthly_bytes is not None:
                self._store()

    def borrowers(self) -> list[Borrower]:
        """Who asked, the last one first."""
        with self._lock:
            return [replace(one) for one in reversed(self._borrowers.values())]

    def as_json(self) -> dict[str, Any]:
        """The rules, why nothing is lent now (or null), the bytes of this month, and who asked."""
        return {
            "rules": asdict(self.rules),
            "refusal": self.refusal,
            "month_bytes": self._bytes_of_month(),
            "borrowers": [asdict(one) | {"model_id": one.model_id.hex()} for one in self.borrowers()],
        }

    def close(self) -> None:
        """Keep the bytes of this month."""
        with self._lock:
            if self._month_bytes and self.rules != LendingRules():
                self._store()

    def _bytes_of_month(self) -> int:
        return self._month_bytes if self._month == _month(self._unix_s()) else 0

    def _is_in_use(self) -> bool:
        """Whether other programs took more than BUSY_SHARE of the processors in the last few seconds."""
        import psutil  # only who chose this rule waits for its import

        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            own_times, all_times = psutil.Process().cpu_times(), psutil.cpu_times()
            own_s = own_times.user + own_times.system
            busy_s = sum(all_times) - all_times.idle - getattr(all_times, "iowait", 0.0)
            if self._looked_at:
                others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
                self._in_use = others_s > BUSY_SHARE * (psutil.cpu_count() or 1) * (now - self._looked_at)
            self._looked_at, self._own_s, self._busy_s = now, own_s, busy_s
        return self._in_use

    def _store(self) -> None:
        self._stored_at = self._unix_s()
        if self._path is not None:
            facts = {"rules": asdict(self.rules), "month": self._month, "month_bytes": self._month_bytes}
            replace_private(self._path, json.dumps(facts).encode())


def _read(path: Path) -> tuple[LendingRules, str, int]:
    try:
        facts = json.loads(read_bounded(path, MAX_FILE_BYTES))
        stored = facts["rules"]
        hours = None if stored["hours"] is None else (int(stored["hours"][0]), int(stored["hours"][1]))
        limit = None if stored["monthly_bytes"] is None else int(stored["monthly_bytes"])
        replicate = stored.get("replicate")  # older files have none
        rules = LendingRules(
            stored["paused"] is True,
            stored["only_idle"] is True,
            hours,
            limit,
            None if replicate is None else replicate is True,
        )
        rules.check()
        return rules, str(facts["month"]), int(facts["month_bytes"])
    except Exception as exc:
        raise ConfigError(f"{path} is damaged ({exc}): delete it to lend without limits") from exc


def _within(hour: int, start: int, end: int) -> bool:
    return start <= hour < end if start < end else hour >= start or hour < end


def _month(unix_s: float) -> str:
    return time.strftime("%Y-%m", time.localtime(unix_s))
