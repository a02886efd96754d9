"""Fetches one file into the hub's own cache (HF_HOME), so that an interruption loses nothing that has arrived.

The library continues after a broken connection, but loses its data when the process ends. So large files are written
to a file with a fixed name beside the cache's blobs, continued where it ends, and moved into the cache when complete.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlparse

from node.errors import CorruptModelError
from node.hub.selection import HubFile
from node.store.files import sha256_file

LARGE_BYTES = 8 << 20
"""Smaller files are fetched again from the start."""
_ETAG = re.compile(r"[0-9a-zA-Z_-]{1,128}")

OnBytes = Callable[[int], None]


class FileFetcher:
    """Fetches files of one repository at one commit.

    Args:
        on_bytes: called with numbers of bytes as they come (first with those that were already here); an exception
            from it ends the fetch and keeps what has come.
    """

    def __init__(self, repo: str, commit: str, on_bytes: OnBytes) -> None:
        self._repo = repo
        self._commit = commit
        self._on_bytes = on_bytes

    def cached(self, file: HubFile) -> Path | None:
        """The path of a file in the cache; None if it is not there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._repo, file.name, revision=self._commit)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, file: HubFile) -> Path:
        """Fetch a file; returns its path in the cache. Raises the library's errors, OSError, CorruptModelError."""
        from huggingface_hub import hf_hub_download

        cached = self.cached(file)
        if cached is not None:
            self._on_bytes(file.size_bytes)
            return cached
        if file.size_bytes >= LARGE_BYTES and file.sha256 is not None:
            self._fetch_large(file)
            bar = _bar(lambda num_bytes: None)
        else:
            bar = _bar(self._on_bytes)
        return Path(hf_hub_download(self._repo, file.name, revision=self._commit, tqdm_class=bar))

    def _fetch_large(self, file: HubFile) -> None:
        """Fetch a blob into the cache, under the name that the library expects."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get, repo_folder_name
        from huggingface_hub.utils._headers import build_hf_headers

        url = hf_hub_url(self._repo, file.name, revision=self._commit)
        metadata = get_hf_file_metadata(url)
        if metadata.etag is None or not _ETAG.fullmatch(metadata.etag):
            return
        blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self._repo, repo_type="model") / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        blob, part = blobs / metadata.etag, blobs / f"{metadata.etag}.kekahyde.incomplete"
        headers = build_hf_headers()
        if urlparse(metadata.location).netloc != urlparse(url).netloc:
            headers.pop("authorization", None)  # the token is for the hub, not for the server that has its files
        with part.open("ab") as target:
            fcntl.flock(target, fcntl.LOCK_EX)
            if blob.exists():  # another process was faster
                part.unlink(missing_ok=True)
                return
            self._on_bytes(target.tell())
            http_get(
                metadata.location,
                target,
                resume_size=target.tell(),
                headers=headers,
                expected_size=metadata.size,
                tqdm_class=_bar(self._on_bytes),
            )
            target.flush()
            self._check(part, file)
            part.replace(blob)

    def _check(self, part: Path, file: HubFile) -> None:
        if sha256_file(part).hex() != file.sha256:
            part.unlink()
            raise CorruptModelError(
                f"{file.name} of {self._repo} has another SHA-256 than the hub states: it was removed, pull again"
            )


def _bar(on_bytes: OnBytes) -> Any:
    """A progress bar for the library that only counts bytes."""

    class Counter:
        def __init__(self, *_args: object, **_options: object) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_exc: object) -> None:
            pass

        def update(self, num_bytes: float | None = 1) -> None:
            on_bytes(int(num_bytes or 0))

        def close(self) -> None:
            pass

        def set_postfix_str(self, *_args: object, **_options: object) -> None:
            pass

        def set_description(self, *_args: object, **_options: object) -> None:
            pass

    return Counter
