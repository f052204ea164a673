"""Figures in prose: what a page claims in a sentence stands in what its cells say or show, or in the package's table of the papers' figures.

A number that somebody typed grows stale unnoticed. Settings (*10 pairs*, *600 steps*) are in the code; results are printed by a cell;
the papers' figures come from `study.reference`."""
import json, re
from pathlib import Path
import pytest
from proc_nb.results import stored
from proc_nb.study.reference import PUBLISHED
from proc_nb.train.practice import load_zoo

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT/'tutorials').glob('0*.ipynb'))
PAGES = [*TUTORIALS, *sorted((ROOT/'nbs/explain').glob('*.ipynb')), ROOT/'nbs/index.ipynb', ROOT/'tutorials/assignments/teachers.ipynb', *sorted((ROOT/'tutorials/assignments/_masters').glob('*.ipynb'))]
HISTORY = 'corrections', 'moved' # what was wrong once, and stays so
NOT_PROSE = re.compile(r'`[^`]*`|\]\([^)]*\)|<[^>]*>|\$[^$]*\$|\b\d{4}\.\d{5}\b|section [\d.]+|[\d.]+ on two CPU', re.S)
MARKUP = re.compile(r'<(svg|script|style)\b.*?</\1>|<[^>]*>', re.S) # coordinates and sizes are no source
FIGURE = re.compile(r'(?<![\w.,])\d+(?:\.\d+)?(?= ?%)|(?<![\w.,])\d*\.\d+(?![\w.])')

QUOTED = re.compile(r"author's blog|author-stated|second-hand|abstract|released code") # a figure with its grade has its source beside it

def figures(text):
    "Figures of the sentences that quote nobody"
    own = ' '.join(s for s in re.split(r'(?<=[.:;])\s+(?=[A-Z])', NOT_PROSE.sub('', text)) if not QUOTED.search(s))
    return [float(f) for f in FIGURE.findall(own)]

def numbers(text):
    "Every number that `text` holds; a percentage also as a share"
    found = {float(n) for n in re.findall(r'(?<![\w.])\d*\.?\d+', text)}
    return found | {n / 100 for n in found} | {round(100 * n, 4) for n in found}

def shown(nb):
    "What the cells say and what they printed"
    for c in nb['cells']:
        if c['cell_type'] != 'code': continue
        yield ''.join(c['source'])
        for o in c['outputs']:
            yield ''.join(o.get('text', ''))
            for kind, data in o.get('data', {}).items():
                if kind.startswith('text/'): yield MARKUP.sub(' ', ''.join(data))

COUNT = re.compile(r'(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\w)|(?<![\w.,])\d+(?= (?:steps|seeds|rows|pairs|runs|documents|questions|files)\b)')
PROPOSED = re.compile(r'^## (What to try next|Things to find out|What was not tried)\n.*?(?=^## |\Z)', re.M | re.S) # settings that no cell has tried
DEFAULTS = {'transfer': {5}, '07_influence': {64}, '02_lab': {1000}} # documents in a step of `read`; what was run once for the page

def counts(text):
    own = ' '.join(s for s in re.split(r'(?<=[.:;])\s+(?=[A-Z])', NOT_PROSE.sub('', PROPOSED.sub('', text))) if not QUOTED.search(s))
    return [int(f.replace(',', '')) for f in COUNT.findall(own)]

def whole(text): return {int(n.replace(',', '').replace('_', '')) for n in re.findall(r'\d[\d,_]*\d|\d', text)}

def said_by_files(nb):
    "What is stored about the results and the practised networks that the page reads"
    code = '\n'.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code')
    about = [stored(n).get('about', {}) for n in set(re.findall(r"stored\('(\w+)'\)", code))] + [load_zoo(n).meta for n in set(re.findall(r"load_zoo\('(\w+)'\)", code))]
    return whole(json.dumps(about, default=str))

def uncounted(nb, known=frozenset()):
    "Numbers of steps, seeds, rows in the prose that no cell sets or shows"
    known = set(known).union(said_by_files(nb), *map(whole, shown(nb)))
    return [(n, ''.join(c['source'])[:60]) for c in nb['cells'] if c['cell_type'] == 'markdown' for n in counts(''.join(c['source'])) if n not in known]

def papers(): return {n for p in PUBLISHED for n in numbers(json.dumps(p, default=str))}

def stale(nb):
    "Figures of the prose that no cell and no paper's table holds"
    known = papers().union(*map(numbers, shown(nb)))
    return [(f, ''.join(c['source'])[:60]) for c in nb['cells'] if c['cell_type'] == 'markdown' for f in figures(''.join(c['source'])) if f not in known]

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_figures_have_a_source(page):
    if page.stem not in HISTORY: assert not stale(json.loads(page.read_text(encoding='utf-8')))

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_counts_have_a_source(page):
    "Steps, seeds, rows, pairs: what the prose says is what a cell sets or prints"
    if page.stem not in HISTORY: assert not uncounted(json.loads(page.read_text(encoding='utf-8')), DEFAULTS.get(page.stem, ()))

def test_a_typed_count_is_found():
    page = dict(cells=[dict(cell_type='markdown', source=['After 2,000 steps of 200 rows, three of 5 seeds.']), dict(cell_type='code', source=['n = 200'], outputs=[])])
    assert [n for n, _ in uncounted(page)] == [2000, 5]
    page['cells'].append(dict(cell_type='code', source=['run(steps=2_000, seeds=5)'], outputs=[]))
    assert not uncounted(page)

def test_a_typed_figure_is_found():
    page = dict(cells=[dict(cell_type='markdown', source=['It reaches 39 % after 12.5 seconds, `x=.77`.']), dict(cell_type='code', source=['n = 12.5'], outputs=[])])
    assert [f for f, _ in stale(page)] == [39.0]
    page['cells'][1]['outputs'] = [dict(text=['accuracy 0.39'])]
    assert not stale(page)
