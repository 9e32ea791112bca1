"""What a Markdown page says that can be checked: links, headings, commands, keys, the width of its lines.

Commands are found wherever they stand: code blocks, tables, inline code. Variables that the page itself sets
(`DATA="--config..."`) are filled in. Placeholders: an argument that ends with `...` stands for more and is left out;
brackets around an argument say that it is optional; N and i are numbers, RUN after a config is any run.
"""
import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').glob('*.md'))]
GENERATED = re.compile(r'<!-- (\w+): begin.*?<!-- \1: end -->', re.DOTALL)
FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.DOTALL | re.MULTILINE)
INLINE = re.compile(r'(?<!`)`([^`]+)`(?!`)')
ASSIGNED = re.compile(r'''(?:^|; )\s*([A-Z]+)=("[^"]*"|[^\s;]+)''', re.MULTILINE)
PLACEHOLDERS = {'N': '2', 'i': '1'}
ENDS = {'&&', ';', '|', '>', '2>', '||'}
WIDTH = 120
NO_KEYS = {'data.check', 'train.py', 'model.json', 'model.relation.NAME',
           'model.transform.size_divisible'}       # torchvision's


class Command(NamedTuple):
    """`python train.py --x` as ('relnet_jax.train', ('--x',))."""
    module: str
    arguments: tuple[str, ...]

    def __str__(self):
        return f'{self.module} {shlex.join(self.arguments)}'


# ---- links ----
def anchors(text: str) -> set[str]:
    """What `page.md#...` may name: the headings, as GitHub makes anchors of them."""
    found = set()
    for heading in re.findall(r'^#+ (.*)$', FENCE.sub('', text), re.MULTILINE):
        slug = re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')
        found.add(next(s for s in (slug, *(f'{slug}-{i}' for i in range(1, 99))) if s not in found))
    return found


def links(text: str) -> list[str]:
    """Targets of all links and pictures, without those to the web."""
    prose = INLINE.sub('', FENCE.sub('', text))
    return [t for t in re.findall(r'\]\(([^)\s]+)\)', prose) if not re.match(r'\w+:', t)]


def broken_links(text: str, page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    broken = []
    for target in links(text):
        name, _, anchor = target.partition('#')
        file = page.parent / name if name else page
        if not file.exists():
            broken.append(f'{target}: no such file')
        elif anchor and anchor not in anchors(text if file == page else file.read_text()):
            broken.append(f'{target}: no such heading')
    return broken


# ---- width ----
def wide_lines(text: str) -> list[str]:
    """Lines of more than WIDTH characters, outside of tables, URLs and what is generated."""
    text = GENERATED.sub(lambda found: '\n' * found[0].count('\n'), text)
    return [f'line {i} has {len(line)} characters: {line[:60]}' for i, line in enumerate(text.splitlines(), 1)
            if len(line) > WIDTH and not line.lstrip().startswith('|') and not re.search(r'https?://\S{40}', line)]


# ---- keys of the config ----
def keys(text: str) -> list[str]:
    """`train.steps` of every `train.steps`, `config.train.steps=3` and `--config.train.steps=3` in inline code."""
    form = re.compile(r'^(?:--)?(?:no)?(?:config\.)?((?:data|model|train|test)\.[a-z_][\w.]*)(?:$|[= ])')
    names = [name for code in INLINE.findall(FENCE.sub('', GENERATED.sub('', text))) for name in form.findall(code)]
    return [name for name in dict.fromkeys(names) if name not in NO_KEYS]


# ---- commands ----
def commands(text: str, scripts: dict[str, str]) -> list[Command]:
    """All commands of a page. scripts: name of an installed command -> its module."""
    text = GENERATED.sub('', text)
    variables, found = {}, []
    for line in _code(text):
        for name, value in ASSIGNED.findall(line):
            variables[name] = _filled(value.strip('"'), variables)
        found += _in_line(_filled(line, variables), scripts)
    return found


def _code(text: str) -> list[str]:
    """Lines of code: of blocks with continued ones joined, then of inline code, also where that has several lines."""
    blocks = [code for language, code in FENCE.findall(text) if language not in ('python', 'json')]
    rest = FENCE.sub('', text)
    indented = '\n'.join(re.findall(r'^ {4}(.*)$', rest, re.MULTILINE))
    lines = re.sub(r'\\\n\s*', ' ', '\n'.join([*blocks, indented])).splitlines()
    return lines + [' '.join(code.split()) for code in INLINE.findall(rest)]


def _filled(text: str, variables: dict[str, str]) -> str:
    return re.sub(r'\$([A-Z]+)\b', lambda found: variables.get(found[1], found[0]), text)


def _in_line(line: str, scripts: dict[str, str]) -> list[Command]:
    if not re.search(r'python (?:train|eval)\.py|python -m (?:relnet_jax|benchmarks)|relnet-|^check -', line):
        return []
    words, found = shlex.split(line, comments=True), []
    for i, word in enumerate(words):
        if ' python ' in word:                                  # a command within quotes, for another machine
            found += _in_line(word.partition('=')[2] if word.startswith('-') else word, scripts)
        module, rest = _program(words[i:], scripts, first=i == 0)
        if module:
            end = next((j for j, w in enumerate(rest) if w in ENDS or w.endswith(';')), len(rest))
            found.append(Command(module, tuple(filter(None, map(_argument, rest[:end])))))
    return found


def _program(words: list[str], scripts: dict[str, str], *, first: bool) -> tuple[str, list[str]]:
    """(module that these words call, its arguments), or ('', [])."""
    match words:
        case ['python', 'train.py' | 'eval.py' as file, *rest]:
            return f'relnet_jax.{file[:-3]}', rest
        case ['python', '-m', module, *rest] if module.split('.')[0] in ('relnet_jax', 'benchmarks'):
            return module, rest
        case ['check', *rest] if first and rest:                # docs/data_checks.md leaves `python -m` out
            return 'relnet_jax.data.check', rest
        case [name, *rest] if first and name.startswith('relnet-'):
            return scripts[name], rest      # KeyError: there is no such command
    return '', []


def _argument(word: str) -> str:
    if word.startswith('[') and word.endswith(']'):
        word = word[1:-1]
    if word.endswith('...'):
        return ''
    name, equals, value = word.partition('=')
    return name + equals + re.sub(r'(?<=:)RUN\b', 'base', PLACEHOLDERS.get(value, value))
