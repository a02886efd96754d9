"""What a node lends and how many threads it takes is counted of the container that holds it, not of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from node.process import allowance

MIB = 1 << 20
LIMIT_BYTES = 400 * MIB
COUNT = """
import os, sys
for folder in sys.argv[1:]:
    with open(os.path.join(folder, "cgroup.procs"), "w") as group:
        group.write("0")
from node.cli.wanted import lendable_bytes
from node.kernels import select_kernels
from node.process.allowance import total_memory
print(lendable_bytes(), total_memory(), select_kernels().threads)
"""


def controller_folder(name: str) -> Path | None:
    """Where groups with this controller can be made, in either version."""
    first, unified = Path("/sys/fs/cgroup") / name, Path("/sys/fs/cgroup")
    if (first / "cgroup.procs").exists():
        return first
    enabled = unified / "cgroup.subtree_control"
    return unified if enabled.exists() and name in enabled.read_text().split() else None


@pytest.fixture
def container() -> Iterator[list[Path]]:
    """Groups of 400 MiB and one core, in whichever version this machine has."""
    wanted = {
        "memory": {"memory.limit_in_bytes": f"{LIMIT_BYTES}", "memory.max": f"{LIMIT_BYTES}"},
        "cpu": {"cpu.cfs_quota_us": "100000", "cpu.max": "100000 100000"},
    }
    made: dict[Path, None] = {}
    try:
        for name, settings in wanted.items():
            top = controller_folder(name)
            if top is None or not os.access(top, os.W_OK):
                pytest.skip(f"no control group with {name} can be made here: needs root and the controller")
            group = top / f"kekahyde-test-{os.getpid()}"
            group.mkdir(exist_ok=True)
            made[group] = None
            for file, value in settings.items():
                if (group / file).exists():
                    (group / file).write_text(value)
        yield list(made)
    except (PermissionError, OSError) as exc:
        pytest.skip(f"no control group can be made here: {exc}")
    finally:
        for group in made:
            with suppress(OSError):
                group.rmdir()


def test_a_node_in_a_container_of_400_mib_lends_less_than_that(container: list[Path]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", COUNT, *map(str, container)], capture_output=True, text=True, timeout=60, check=True
    )
    lent, total, threads = map(int, result.stdout.split())
    assert 0 < lent < LIMIT_BYTES // 2
    assert total == LIMIT_BYTES
    assert threads == 1


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


UNIFIED = {
    "proc/self/cgroup": "0::/user.slice/node.service\n",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
}
FIRST = {
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/af3\n4:memory:/docker/af3\n1:name=systemd:/docker/af3\n0::/x\n",
    "proc/self/mountinfo": (
        "23 1 0:21 / / rw - overlay overlay rw,lowerdir=memory,cpu\n"
        "32 31 0:29 /docker/af3 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /docker/af3 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    ),
}


def test_version_2_the_narrowest_group_on_the_way_up_decides(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice"
    write(tmp_path, **UNIFIED)
    write(
        tmp_path,
        **{
            f"{group}/node.service/memory.max": "max\n",
            f"{group}/node.service/memory.high": f"{300 * MIB}\n",
            f"{group}/node.service/memory.current": f"{250 * MIB}\n",
            f"{group}/node.service/memory.stat": f"anon {40 * MIB}\ninactive_file {150 * MIB}\nactive_file {MIB}\n",
            f"{group}/node.service/cpu.max": "max 100000\n",
            f"{group}/memory.max": f"{1000 * MIB}\n",
            f"{group}/memory.current": f"{980 * MIB}\n",
            f"{group}/cpu.max": "50000 100000\n",
        },
    )
    assert allowance.total_memory(tmp_path) == 300 * MIB
    assert allowance.available_memory(tmp_path) == 20 * MIB, "the slice above has no more"
    assert allowance.available_cores(tmp_path) == 1


def test_version_1_a_path_of_the_host_means_what_is_mounted(tmp_path: Path) -> None:
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"
    write(tmp_path, **FIRST)
    write(
        tmp_path,
        **{
            f"{memory}/memory.limit_in_bytes": f"{LIMIT_BYTES}\n",
            f"{memory}/memory.usage_in_bytes": f"{350 * MIB}\n",
            f"{memory}/memory.stat": f"cache {MIB}\ntotal_inactive_file {200 * MIB}\ninactive_file 7\n",
            f"{cpu}/cpu.cfs_quota_us": "1000\n",
            f"{cpu}/cpu.cfs_period_us": "100000\n",
        },
    )
    assert allowance.total_memory(tmp_path) == LIMIT_BYTES
    assert allowance.available_memory(tmp_path) == 250 * MIB
    assert allowance.available_cores(tmp_path) == 1


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "-1x"])
def test_a_group_without_a_limit_is_the_machine(tmp_path: Path, limit: str) -> None:
    write(tmp_path, **UNIFIED)
    group = "sys/fs/cgroup/user.slice/node.service"
    write(tmp_path, **{f"{group}/memory.max": limit, f"{group}/cpu.max": f"{limit} 100000"})
    assert allowance.total_memory(tmp_path) == psutil.virtual_memory().total
    assert allowance.available_memory(tmp_path) > LIMIT_BYTES
    assert allowance.available_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_no_control_groups_at_all_and_lines_that_are_none(tmp_path: Path) -> None:
    assert allowance.total_memory(tmp_path) == psutil.virtual_memory().total
    write(tmp_path, **{"proc/self/cgroup": "\n0\n0::\n0::/../..\n", "proc/self/mountinfo": "\n - \na b - c\n"})
    assert allowance.total_memory(tmp_path) == psutil.virtual_memory().total
