"""What all commands share: flags, overrides of the config, one line for what went wrong, exit codes.

A command is a module with `define(flags)`, `command(call)` and `main(argv=None)`, which is `run` with these two. Flags
live in a FlagValues of their own, so that `main` can be called twice in one process.

Exit codes: 0 done; 1 done, but something was left out or is not finished, which the command said; 2 given up, with
one line on stderr that says why (a wrong flag, config key or file, a loss that is not finite, a full disk); 75 a
training that SIGTERM or Ctrl-C stopped after it saved, and that the same command resumes; 130 stopped by Ctrl-C. A
traceback is a bug (and its exit code 1).
"""
import io
import logging as python_logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags, logging
from absl.flags import FlagValues
from ml_collections import ConfigDict

from relnet_jax import config as config_lib
from relnet_jax import interrupt
from relnet_jax.errors import UserError, hint

DONE, UNFINISHED, WRONG, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130     # 75: EX_TEMPFAIL of sysexits.h, 'try again'
HELP = ('--help', '-help', '-h', '-?', '--helpfull', '--helpshort')
OVERRIDE = re.compile(r'--?(no)?config\.([^=]*)(=.*)?', re.DOTALL)
NUMBER = re.compile(r'-\.?\d.*')
WIDTH = 110     # of the help


class Call(NamedTuple):
    """What a command was called with."""
    flags: FlagValues
    overrides: tuple[str, ...]          # 'train.steps=600' of --config.train.steps=600
    words: tuple[str, ...]              # arguments that are no flags
    argv: tuple[str, ...]               # all arguments, as given


# ---- flags beyond those of absl; a flag without a default (None) is required ----
class _PathParser(flags.ArgumentParser):
    """Expands `~`. `kind`: 'folder' or 'file' to write, which must not be there as the other; '' is not looked at."""

    def __init__(self, kind: str):
        self._kind = kind

    def parse(self, argument: str) -> str:
        path = Path(argument).expanduser()
        if argument and self._kind == 'folder' and path.exists() and not path.is_dir():
            raise ValueError('expected a folder, this is a file')
        if argument and self._kind == 'file' and path.is_dir():
            raise ValueError('expected a file, this is a folder')
        return os.path.expanduser(argument)


def define_path(values: FlagValues, name: str, default: str | None, meaning: str, *, kind: str = '') -> None:
    flags.DEFINE(_PathParser(kind), name, default, meaning, values)


def define_config(values: FlagValues, default: str) -> None:
    """The flag --config, which `config_of` reads."""
    flags.DEFINE_string('config', default, 'file as path.py[:argument], or the name of a config that comes along: '
                        f'{", ".join(config_lib.shipped())}', flag_values=values)


def define_processes(values: FlagValues) -> None:
    """Flags for `processes.join`."""
    flags.DEFINE_string('coordinator', '', 'work as one with other processes: host:port of process 0, or auto, as JAX '
                        'finds it under Slurm, Open MPI, on TPUs and Kubernetes (docs/scaling.md)', flag_values=values)
    flags.DEFINE_integer('num_processes', 0, 'how many they are, beside --coordinator=host:port', lower_bound=0,
                         flag_values=values)
    flags.DEFINE_integer('process_id', -1, 'which of them this is, from 0', lower_bound=-1, flag_values=values)


def config_of(call: Call) -> ConfigDict:
    """The config that --config names, with the overrides."""
    return config_lib.with_overrides(config_lib.load(call.flags.config), call.overrides)


def numbers(text: str, flag: str) -> list[int]:
    """'1000,512' -> [1000, 512], '' -> []. Raises UserError for anything but positive whole numbers, each once."""
    parts = text.split(',') if text else []
    found = [int(part) for part in parts if part.strip().isdecimal()]
    if len(found) != len(parts) or len(set(found)) != len(found) or 0 in found:
        raise UserError(f"--{flag}: expected different positive numbers separated by commas, got '{text}'")
    return found


def paths(given: Sequence[str]) -> list[str]:
    """File and folder names, each a name of its own or several separated by commas; what exists is taken as it is."""
    whole = [os.path.expanduser(text) for text in given]
    return [name for text in whole for name in ([text] if os.path.exists(text) else
                                                map(os.path.expanduser, filter(None, text.split(','))))]


# ---- reading the command line ----
def split_overrides(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """(other arguments, overrides 'train.steps=600'). --config.KEY=VALUE, or --config.KEY VALUE; for a switch also
    --config.KEY and --noconfig.KEY."""
    others, overrides, argv = [], [], list(argv)
    while argv:
        argument = argv.pop(0)
        found = OVERRIDE.fullmatch(argument)
        if argument == '--':
            return [*others, argument, *argv], tuple(overrides)
        if not found:
            others.append(argument)
            continue
        no, key, value = found.groups()
        if value is None:
            is_value = not no and argv and (not argv[0].startswith('-') or NUMBER.fullmatch(argv[0]))
            value = f'={argv.pop(0)}' if is_value else '=false' if no else '=true'
        overrides.append(key + value)
    return others, tuple(overrides)


def parse(define: Callable[[FlagValues], None], argv: Sequence[str], *, words: Sequence[str] = (),
          overrides: bool = True) -> Call:
    """Raises UserError, naming the flag or word, for what the command does not know, lacks or cannot read.

    `words`: names of the arguments without dashes that it takes. overrides: whether it has a config to override.
    """
    values = FlagValues()
    values.set_gnu_getopt(True)     # flags may stand behind words
    define(values)
    try:
        others = values.read_flags_from_files(list(argv), force_gnu=True)
        others, found = split_overrides(others) if overrides else (others, ())
        left = tuple(values(['command', *(_absl_form(argument, values) for argument in others)])[1:])
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown(error.flagname, values, overrides)) from None
    except flags.Error as error:
        raise UserError(' '.join(str(error).removeprefix('flag ').split())) from None
    if lacking := [flag for flag in map(values.__getitem__, values) if flag.default is None and not flag.value]:
        raise UserError(f'--{lacking[0].name} is required: {lacking[0].help}')
    if len(left) != len(words):
        stray = left[len(words):len(words) + 1] or left
        expected = f'expected {" ".join(words)}' if words else 'expected flags only'
        dashes = bool(stray) and re.split('[.=]', stray[0])[0] in (*values, 'config')
        raise UserError(f"{expected}, got {' '.join(map(repr, left)) or 'nothing'}"
                        + (f"; did you mean '--{stray[0]}'?" if dashes else ''))
    return Call(values, found, left, tuple(argv))


def _absl_form(argument: str, values: FlagValues) -> str:
    """`--no-keep` and `--dicom-sr` as absl has them, `--nokeep` and `--dicom_sr`."""
    if not argument.startswith('--'):
        return argument
    name, equals, value = argument[2:].partition('=')
    name = name.replace('-', '_')
    if name.startswith('no_') and name[3:] in values and values[name[3:]].boolean:
        return f'--no{name[3:]}{equals}{value}'
    return f'--{name}{equals}{value}' if name in values else argument


def _unknown(name: str, values: FlagValues, overrides: bool) -> str:
    if name.split('.')[0] == 'config':
        why = 'only keys of the config, --config.KEY=VALUE' if overrides else 'this command has no config'
        return f"no flag '--{name}': {why}"
    return f"no flag '--{name}'{hint(f'--{name}', [f'--{known}' for known in values])} (--help says more)"


def help_text(doc: str, define: Callable[[FlagValues], None], *, overrides: bool = True) -> str:
    """The docstring of a command and all its flags, with defaults and meaning."""
    values = FlagValues()
    define(values)
    lines = [doc.strip(), '', 'Flags:']
    for name in values:
        flag = values[name]
        default = 'required' if flag.default is None else f'default: {flag.default}'
        default = '' if flag.default == '' else f' ({default})'
        lines += textwrap.wrap(flag.help + default, WIDTH, initial_indent=f'  {_flag_form(flag)}  '.ljust(26),
                               subsequent_indent=' ' * 26)
    if overrides:
        lines += textwrap.wrap('Changes one key of the config, such as --config.train.steps=600. '
                               f'All keys, with meaning and values: {config_lib.SHIPPED / "base.py"}', WIDTH,
                               initial_indent='  --config.KEY=VALUE'.ljust(26), subsequent_indent=' ' * 26)
    return '\n'.join([*lines, '', *textwrap.wrap(__doc__[__doc__.index('Exit codes'):], WIDTH)])


def _flag_form(flag: flags.Flag) -> str:
    return f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}=...'


# ---- running ----
def run(name: str, doc: str, define: Callable[[FlagValues], None], command: Callable[[Call], int | None],
        argv: Sequence[str] | None = None, *, words: Sequence[str] = (), overrides: bool = True) -> int:
    """Calls `command` with what `argv` says; returns the exit code, as the module says. Without `argv` the arguments of
    the process are meant, and Ctrl-C ends it.

    `define` defines the flags; `words` and `overrides` as for `parse`.
    """
    def say(text: str) -> None:
        print(f'{name}: {text}', file=sys.stderr, flush=True)

    def leave() -> None:
        say('interrupted')
        sys.stdout.flush()
        os._exit(INTERRUPTED)

    own_process = argv is None
    argv = sys.argv[1:] if own_process else list(argv)
    if any(argument in HELP for argument in argv):
        print(help_text(doc, define, overrides=overrides))
        return DONE
    try:
        with interrupt.heard_at_once(leave):
            call = parse(define, argv, words=words, overrides=overrides)
            flags.FLAGS.mark_as_parsed()        # Grain and absl's logging look at absl's own, which nothing sets
            _write_any_letter()
            _log_to_stderr()
            return command(call) or DONE
    except (UserError, OSError) as error:
        say(told(error))
        return WRONG
    except MemoryError as error:
        say(f'out of memory {error}'.rstrip())
        return WRONG
    except KeyboardInterrupt:
        if own_process:
            leave()     # Python's own ending waits for compiled code that still runs, and has crashed in it
        say('interrupted')
        return INTERRUPTED


def _write_any_letter() -> None:
    """A letter that the terminal's encoding lacks (names of classes in an 8-bit locale) becomes \\xd6 or the like."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ('strict', 'surrogateescape'):
            stream.reconfigure(errors='backslashreplace')


def _log_to_stderr() -> None:
    """INFO and above, in `_Line`s on a terminal, else in absl's form; a program that has set up logging of its own
    keeps that."""
    if all(type(handler) is python_logging.StreamHandler for handler in python_logging.root.handlers):
        logging.use_absl_handler()      # takes the place of plain handlers, which some library makes when imported
    if sys.stderr.isatty():
        logging.get_absl_handler().setFormatter(_Line('%(asctime)s %(message)s', '%H:%M:%S'))
        flags.FLAGS.logtostderr = True      # to whatever sys.stderr is then: a bar replaces it, to keep lines above it
    logging.set_verbosity(logging.INFO)


class _Line(python_logging.Formatter):
    """'04:31:55 text'; a warning or an error has its level before the text."""

    def formatMessage(self, record: python_logging.LogRecord) -> str:
        if record.levelno > python_logging.INFO:
            record.message = f'{record.levelname}: {record.message}'
        return super().formatMessage(record)


def told(error: Exception) -> str:
    """What an expected error says to the one who called; where it is about a file, from which folder."""
    text = f'{error.filename}: {error.strerror}' if getattr(error, 'filename', None) and error.strerror else str(error)
    return f'{text} (working in {Path.cwd()})' if isinstance(error, FileNotFoundError) else text
