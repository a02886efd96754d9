"""A hub on loopback: the routes that huggingface_hub uses, with ranges, breaks in the middle, tokens and gates.

Run as a program it serves a folder of repositories, prints its address, and writes each request to a log.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"
LARGE_BYTES = 1 << 20
BLOCK = 1 << 16


class Hub:
    """Serves `folder/ORG/NAME/FILE`. `breaks` counts how often a large file still ends before its end."""

    def __init__(self, folder: Path, log: Path, breaks: int, pace_s: float) -> None:
        self.folder, self.log, self.breaks, self.pace_s = folder, log, breaks, pace_s

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models", self.search)
        app.router.add_get("/api/models/{org}/{name}", self.info)
        app.router.add_get("/api/models/{org}/{name}/revision/{revision}", self.info)
        app.router.add_route("*", "/{org}/{name}/resolve/{revision}/{file:.+}", self.file)
        return app

    def note(self, request: web.Request, **more: object) -> None:
        line = {"method": request.method, "path": request.path, "range": request.headers.get("Range"), **more}
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def refusal(self, request: web.Request) -> web.Response | None:
        org, name = request.match_info["org"], request.match_info["name"]
        signed = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not (self.folder / org / name).is_dir() or (org == "private" and not signed):
            return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        if org == "gated" and not signed:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if request.match_info.get("revision", "main") not in ("main", COMMIT):
            headers = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no revision"}
            return web.Response(status=404, headers=headers)
        return None

    async def info(self, request: web.Request) -> web.Response:
        self.note(request)
        refused = self.refusal(request)
        if refused is not None:
            return refused
        org, name = request.match_info["org"], request.match_info["name"]
        siblings = []
        for path in sorted((self.folder / org / name).iterdir()):
            content = path.read_bytes()
            entry: dict[str, object] = {"rfilename": path.name, "size": len(content), "blobId": blob_id(content)}
            if len(content) >= LARGE_BYTES:
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return web.json_response({"id": f"{org}/{name}", "sha": COMMIT, "siblings": siblings})

    async def search(self, request: web.Request) -> web.Response:
        self.note(request)
        wanted = request.query["search"].lower()
        repos = [f"{path.parent.name}/{path.name}" for path in sorted(self.folder.glob("*/*"))]
        found = [
            {
                "id": repo,
                "downloads": len(repo),
                "gated": "manual" if repo.startswith("gated/") else False,
                "config": {"model_type": "mixtral" if "moe" in repo else "llama"},
                "safetensors": {"parameters": {"F32": 7_000_000}, "total": 7_000_000},
            }
            for repo in repos
            if wanted in repo.lower()
        ]
        return web.json_response(found[: int(request.query["limit"])])

    async def file(self, request: web.Request) -> web.StreamResponse:
        refused = self.refusal(request)
        path = self.folder / request.match_info["org"] / request.match_info["name"] / request.match_info["file"]
        if refused is None and not path.is_file():
            refused = web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if refused is not None:
            self.note(request)
            return refused
        content = path.read_bytes()
        etag = sha256(content) if len(content) >= LARGE_BYTES else blob_id(content)
        start = request.http_range.start or 0
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(content) - start)
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        sent = 0
        if request.method == "GET":
            sent = await self.stream(request, response, content[start:])
        self.note(request, sent=sent)
        return response

    async def stream(self, request: web.Request, response: web.StreamResponse, content: bytes) -> int:
        large, most = len(content) >= LARGE_BYTES, len(content) * 7 // 8
        sent = 0
        while sent < len(content):
            if large and self.breaks and sent >= most:
                self.breaks -= 1
                assert request.transport is not None
                request.transport.close()
                return sent
            block = content[sent : sent + BLOCK]
            try:
                await response.write(block)
            except ConnectionError:
                return sent
            sent += len(block)
            if large and self.pace_s:
                await asyncio.sleep(self.pace_s)
        return sent


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


async def main(folder: str, log: str, breaks: str, pace_s: str) -> None:
    runner = web.AppRunner(Hub(Path(folder), Path(log), int(breaks), float(pace_s)).app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
