"""What every command shares (relnet_jax.cli): flags, overrides and words, exit codes and lines, Ctrl-C."""
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from absl import flags

from relnet_jax import cli
from relnet_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def define(values):
    flags.DEFINE_integer('count', 2, 'how many', flag_values=values)
    flags.DEFINE_bool('keep', True, 'whether to keep it', flag_values=values)
    cli.define_path(values, 'out', '', 'where to')


def run(command, *argv, **options):
    return cli.run('it', __doc__, define, command, argv, **options)


def test_flags_overrides_and_words_are_told_apart_and_a_second_call_starts_anew():
    calls = []
    assert run(calls.append, 'a', '--count=3', '--config.b.c=d=e', '-config.f', '-2', '--no-keep', '--noconfig.g',
               '--out', '~/x', '--config.h', '--', '--count', words=('A', 'B')) == 0
    assert run(calls.append) == 0
    first, second = calls
    assert (first.flags.count, first.flags.keep, first.flags.out) == (3, False, str(Path.home() / 'x'))
    assert first.overrides == ('b.c=d=e', 'f=-2', 'g=false', 'h=true') and first.words == ('a', '--count')
    assert (second.flags.count, second.flags.keep, second.flags.out) == (2, True, '')
    assert second.overrides == second.words == ()


@pytest.mark.parametrize('argument, sr, seg, many', [
    ('--dicom-sr', True, True, 1), ('--no-dicom-seg', False, False, 1), ('--nodicom_seg', False, False, 1),
    ('--no-dicom_seg', False, False, 1), ('--dicom-seg=false', False, False, 1), ('--how-many=3', False, True, 3)])
def test_flags_may_be_written_with_dashes(argument, sr, seg, many):
    def dashed(values):
        flags.DEFINE_bool('dicom_sr', False, '', flag_values=values)
        flags.DEFINE_bool('dicom_seg', True, '', flag_values=values)
        flags.DEFINE_integer('how_many', 1, '', flag_values=values)
    found = cli.parse(dashed, [argument]).flags
    assert (found.dicom_sr, found.dicom_seg, found.how_many) == (sr, seg, many)


def test_exit_codes_and_lines(capsys):
    def fail(error):
        def command(call):
            raise error
        return command

    assert run(lambda call: None) == 0 and run(lambda call: cli.UNFINISHED) == 1
    assert capsys.readouterr().err == ''
    assert run(fail(UserError('wrong'))) == 2 and capsys.readouterr().err == 'it: wrong\n'
    assert run(fail(PermissionError(13, 'Permission denied', '/x'))) == 2
    assert capsys.readouterr().err == 'it: /x: Permission denied\n'
    assert run(fail(KeyboardInterrupt())) == 130 and capsys.readouterr().err == 'it: interrupted\n'
    with pytest.raises(ValueError, match='a bug'):
        run(fail(ValueError('a bug')))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_paths_with_commas_are_taken_as_they_are_if_they_exist(tmp_path):
    odd = tmp_path / 'a,b.png'
    odd.touch()
    assert cli.paths([str(odd), 'c,d', '~/e,~/f']) == [str(odd), 'c', 'd', f'{Path.home()}/e', f'{Path.home()}/f']


# ---- as processes ----
@contextmanager
def process(*arguments):
    """A started Python with these arguments, in the checkout."""
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize('name', ['train', 'eval', 'phantom'])
def test_a_process_ends_with_the_code_and_the_line(name):
    command = [f'{name}.py'] if (ROOT / f'{name}.py').exists() else ['-m', 'relnet_jax.data.phantom']
    with process(*command, '--outt=x') as child:
        _, err = child.communicate(timeout=120)
    assert child.returncode == 2 and len(err.splitlines()) == 1, err
    assert err.startswith(f"{name}: no flag '--outt'")


STUCK = '''
import ctypes, sys
from relnet_jax import cli, interrupt
interrupt.PATIENCE = 0.2
def command(call):
    print('started', flush=True)
    if call.flags.compiled:
        ctypes.CDLL(None).sleep(60)     # as the compiler does, it lets other threads run but not signal handlers
    while True:
        pass
def define(values):
    cli.flags.DEFINE_bool('compiled', False, '', flag_values=values)
sys.exit(cli.run('it', '', define, command))
'''


@pytest.mark.parametrize('argument', ['--compiled', '--nocompiled'])
def test_ctrl_c_ends_at_once_with_one_line_also_in_compiled_code(argument):
    with process('-c', STUCK, argument) as child:
        assert child.stdout.readline() == 'started\n'
        time.sleep(0.2)
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=50)
        assert time.monotonic() - begun < 10
    assert (child.returncode, err) == (130, 'it: interrupted\n')
