"""Shared by all tests: a compilation cache that survives between runs, and the optional real data."""
import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:      # begun in the background, which the tests' commands inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault('PJRT_NPROC', '8')          # two fake CPU devices deadlock without it
# Two devices; and as little optimisation as there is: in tests compilation takes the time, not what is compiled. The
# last flag, older emitters of fusions that need half of the time, is gone in later versions.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 '
                      '--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=4'
                      + ' --xla_cpu_use_fusion_emitters=false' * version('jaxlib').startswith('0.10.'))

import jax
import numpy as np
import pytest

from relnet_jax.runs import startup

CACHE = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'relnet_jax' / 'tests'
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)
GOLDEN = Path(__file__).parent / 'golden'
REAL_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='module', autouse=True)
def release_programs():
    """What a test file compiled is given back after it: a worker would otherwise grow by what all files compiled."""
    yield
    jax.clear_caches()
    gc.collect()
    startup.give_back_memory()


@pytest.fixture(scope='session')
def golden():
    """The torchvision known answers (tests/golden/torchvision.npz)."""
    return np.load(GOLDEN / 'torchvision.npz')


@pytest.fixture
def real_data():
    """Folder of real images that may not be redistributed; tests that want it skip without."""
    if not REAL_DATA.is_dir():
        pytest.skip(f'real data not present at {REAL_DATA.name}/ beside the project')
    return REAL_DATA
