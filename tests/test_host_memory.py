"""What a process may still take: of the system, of its group of processes, of its own limit."""
import resource

import pytest

from relnet_jax.host_memory import host_free

GB = 1 << 30


@pytest.fixture
def system(tmp_path):
    """write(text, *path): files in place of /proc and /sys/fs/cgroup; with 8 GiB available."""
    def write(text, *path):
        file = tmp_path.joinpath(*path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    write(f'MemTotal: 1 kB\nMemAvailable:    {8 * GB // 1024} kB\n', 'proc', 'meminfo')
    write.free = lambda: host_free(proc=tmp_path / 'proc', cgroups=tmp_path / 'cgroup')
    return write


def test_what_the_system_has_is_free_where_nothing_limits_it(system):
    assert system.free() == 8 * GB
    system('0::/\n', 'proc', 'self', 'cgroup')
    system('max\n', 'cgroup', 'memory.max')
    system(f'{5 * GB}\n', 'cgroup', 'memory.current')
    assert system.free() == 8 * GB


def test_a_group_s_limit_counts_less_what_it_took_and_cannot_give_back(system):
    system('1:cpu:/other\n0::/job/step\n', 'proc', 'self', 'cgroup')
    system(f'{4 * GB}\n', 'cgroup', 'job', 'step', 'memory.max')
    system(f'{3 * GB}\n', 'cgroup', 'job', 'step', 'memory.current')
    system(f'anon {2 * GB}\ninactive_file {GB}\nactive_file 7\n', 'cgroup', 'job', 'step', 'memory.stat')
    assert system.free() == 2 * GB
    system(f'{6 * GB}\n', 'cgroup', 'job', 'memory.max')      # of a group around it
    system(f'{6 * GB - 5}\n', 'cgroup', 'job', 'memory.current')
    assert system.free() == 5


def test_groups_of_version_1_count_too_and_a_huge_limit_is_none(system):
    system('4:memory:/box\n', 'proc', 'self', 'cgroup')
    system(f'{2 ** 63 - 4096}\n', 'cgroup', 'memory', 'memory.limit_in_bytes')
    system(f'{GB}\n', 'cgroup', 'memory', 'memory.usage_in_bytes')
    assert system.free() == 8 * GB
    system(f'{2 * GB}\n', 'cgroup', 'memory', 'box', 'memory.limit_in_bytes')
    system(f'{GB}\n', 'cgroup', 'memory', 'box', 'memory.usage_in_bytes')
    assert system.free() == GB


def test_nothing_is_known_outside_linux(tmp_path):
    assert host_free(proc=tmp_path, cgroups=tmp_path) is None


def test_a_limit_of_the_process_counts_less_what_it_took(system, monkeypatch):
    system('1000 7 7\n', 'proc', 'self', 'statm')
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: (GB, GB))
    assert system.free() == GB - 1000 * resource.getpagesize()
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: (5, 5))
    assert system.free() == 0
