"""report.html in a real browser, and what it holds where there is little to show."""
import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from configs import base
from relnet_jax.data.images import UnreadableImage
from relnet_jax.evaluation import report, worst_films
from relnet_jax.runs.operating_points import OperatingPoints
from relnet_jax.types import Example
from tests.evaluation.made import coco, film_set, thing

CHROMIUM = shutil.which('chromium')
HOSTILE = '<script>document.title = "taken"</script>'
SIZE = 260
# Notes what the page does before and after a click on the button of the column `objects` and one on it again.
WATCH = '''<script>
const seen = {errors: []}
addEventListener('error', e => seen.errors.push(String(e.message)), true)
addEventListener('securitypolicyviolation', e => seen.errors.push(e.blockedURI))
console.error = (...words) => seen.errors.push(words.join(' '))
addEventListener('load', () => {
  const state = column => {
    const table = document.querySelector('.sortable'), head = table.tHead.rows[0].cells[column]
    const rows = [...table.tBodies[0].rows]
    return {sort: head.getAttribute('aria-sort'), column: rows.map(r => r.cells[column].textContent)}
  }
  const click = column => { document.querySelectorAll('.sortable th button')[column].click(); return state(column) }
  seen.before = state(1); seen.once = click(1); seen.twice = click(1); seen.name = click(0); seen.number = state(1)
  const choice = document.getElementById('class')
  if (choice.options.length > 1) { choice.value = choice.options[1].value; choice.dispatchEvent(new Event('change')) }
  seen.chosen = new Set([...document.querySelectorAll('.line.on title')].map(t => t.textContent.split(':')[0])).size
  seen.pictures = [...document.images].map(i => i.complete && i.naturalWidth)
  seen.title = document.title; seen.scripts = document.scripts.length
  seen.wide = document.documentElement.scrollWidth - innerWidth
  document.documentElement.dataset.seen = JSON.stringify(seen)
})
</script>'''


def source_of(truth, *, unreadable=()):
    """A source of noisy films with the ids of a COCO dict."""
    def load(index):
        if index in unreadable:
            raise UnreadableImage('film.png', 'damaged')
        image = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        none = np.zeros(0, bool)
        return Example(image, truth['images'][index]['id'], index, np.zeros((0, 4), np.float32), np.zeros(0, np.int32),
                       none, np.zeros((0, 28, 28), np.uint8), none, np.zeros((0, 4), np.float32), none)
    return SimpleNamespace(
        name='films', records=[dict(image, width=SIZE, height=SIZE) for image in truth['images']], load=load,
        classes=tuple(c['name'] for c in truth['categories']),
        category_ids=tuple(c['id'] for c in truth['categories']))


def written(out, truth, results, **options):
    """report.html of these as text, with metrics.json's content."""
    metrics = report.full_report(out, source_of(truth), truth, results, base.get_config(), checkpoint='runs/x/7',
                                 **options)
    return (out / 'report.html').read_text(encoding='utf-8'), metrics


def with_masks(annotations):
    """Gives two of three annotations the polygon of their box."""
    for n, annotation in enumerate(annotations):
        if n % 3:
            x, y, w, h = annotation['bbox']
            annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


def browse(page, folder):
    """What WATCH notes in Chromium."""
    if CHROMIUM is None:
        pytest.skip('needs chromium')
    path = folder / 'watched.html'
    path.write_text(page.replace('<head>', '<head>' + WATCH, 1), encoding='utf-8')
    done = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--window-size=1280,900', '--dump-dom',
         '--virtual-time-budget=3000', f'--user-data-dir={folder / "profile"}', path.as_uri()],
        capture_output=True, text=True, timeout=120)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def test_the_page_works_in_a_browser_and_takes_nothing_from_outside(tmp_path):
    truth, results = film_set(3, 30, 0.4, classes=3)
    truth['categories'][1]['name'] = HOSTILE
    truth['categories'].append(dict(id=4, name='Unseen'))
    for record in (*truth['images'], *truth['annotations'], *results):      # ids may be any text
        key = 'image_id' if 'bbox' in record else 'id'
        record[key] = f'{record[key]}"><img src=missing onerror=alert(1)>'
    points = OperatingPoints({c['name']: 0.4 for c in truth['categories']}, 1.5, 0.2, HOSTILE)
    page, metrics = written(tmp_path, truth, results, points=points)
    assert len(page.encode()) < 5_000_000
    assert HOSTILE not in page and '&lt;script&gt;' in page and '<img src=missing' not in page
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', page) and '@import' not in page and 'url(' not in page
    seen = browse(page, tmp_path)
    assert seen['errors'] == [] and seen['title'] == 'Report: films' and seen['scripts'] == 2      # WATCH and its own
    assert len(seen['pictures']) > 20 and min(seen['pictures']) > 0
    assert seen['chosen'] == 1 and seen['wide'] <= 0
    counts = [str(v['objects']) for v in metrics['per_class'].values()]
    assert seen['before'] == dict(sort='none', column=counts)
    assert seen['once'] == dict(sort='descending', column=sorted(counts, key=int, reverse=True))
    assert seen['twice'] == dict(sort='ascending', column=sorted(counts, key=int))
    assert seen['name'] == dict(sort='ascending', column=[HOSTILE, '1', '3', 'Unseen'])
    assert seen['number']['sort'] == 'none'


@pytest.mark.parametrize('case', ['no detections', 'no findings', 'one class', 'nothing'])
def test_there_may_be_little_to_show(case, tmp_path):
    truth, results = film_set(5, 6, 0.5, classes=1 if case == 'one class' else 2)
    if case in ('no detections', 'nothing'):
        results = []
    if case in ('no findings', 'nothing'):
        truth['annotations'] = []
    page, _ = written(tmp_path, truth, results)
    assert 'mask AP' not in page        # boxes only
    seen = browse(page, tmp_path)
    assert seen['errors'] == [] and all(seen['pictures'])
    assert bool(seen['pictures']) == (case != 'nothing')


def test_the_page_says_what_was_measured_and_shows_the_numbers_of_metrics_json(tmp_path):
    truth, results = film_set(3, 12, 0.4)
    with_masks(truth['annotations'])
    page, metrics = written(tmp_path, truth, results)
    page = re.sub('</?span>', '', page)      # they keep the words of the command whole
    about = json.loads((tmp_path / 'metrics.json').read_text())['about']
    shown = html.unescape(page)
    for text in ('runs/x/7', about['command'], about['date'], f"jax\xa0{about['versions']['jax']}",
                 '1000 resamples of images', f"{100 * metrics['box_AP50']:.1f}"):
        assert text in shown
    assert 'PHANTOM' not in page
    counts = json.loads((tmp_path / 'curves.json').read_text())['failures']['detections']
    assert re.search(rf"background</th><td>{counts['background']}</td>", page)


def test_worst_films_come_by_the_size_of_what_was_missed_and_the_score_of_what_was_false():
    truth = coco([thing(0, 1, [0, 0, 20, 20]), thing(1, 1, [0, 0, 100, 50]), thing(2, 1, [0, 0, 90, 90]),
                  thing(3, 2, [10, 10, 60, 60]), thing(4, 1, [0, 0, 10, 10])], images=6, classes='ab')
    results = [thing(2, 1, [0, 0, 90, 90], 0.9), thing(3, 1, [10, 10, 60, 60], 0.8), thing(5, 1, [5, 5, 9, 9], 0.5),
               thing(4, 1, [0, 0, 10, 10], 0.7), thing(4, 2, [200, 200, 10, 10], 0.95), thing(5, 2, [0, 0, 9, 9], 0.1)]
    missed, false = worst_films.worst_films(source_of(truth), truth, results, 0.3)
    assert [film.image_id for film in missed] == ['1', '3', '0'] and [f.image_id for f in false] == ['4', '5']
    assert missed[1].missed == [('wrong class', 'b', 3600 / SIZE ** 2, None)]
    assert missed[1].false == [('wrong class', 'a', 3600 / SIZE ** 2, 0.8)]
    assert false[0].missed == [] and [f.reason for f in false[0].false] == ['background']
    few, others = worst_films.worst_films(source_of(truth, unreadable=[1]), truth, results, 0.3, count=1)
    assert [film.image_id for film in few] == ['3'] and [film.image_id for film in others] == ['4']


def test_pictures_are_bounded_even_of_noise():
    noise = np.random.default_rng(0).integers(0, 256, (worst_films.SIDE, worst_films.SIDE, 1), np.uint8)
    address = worst_films.data_address(np.repeat(noise, 3, 2))
    assert address.startswith('data:image/jpeg;base64,')
    assert len(address) * 3 / 4 <= worst_films.PICTURE_BYTES + 100 and 24 * 2 * len(address) < 4_900_000
