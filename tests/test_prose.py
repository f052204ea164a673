"""Figures in prose: what a page claims in a sentence stands in what its cells say or show, or in the package's table of the papers' figures.

A number that somebody typed grows stale without a word. Settings (*10 pairs*, *600 steps*) are in the code; results are printed by a cell;
the papers' figures come from `study.reference`."""
import json, re
from pathlib import Path
import pytest
from proc_nb.study.reference import PUBLISHED

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT/'tutorials').glob('0*.ipynb')) + sorted((ROOT/'nbs/explain').glob('*.ipynb'))
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

def papers(): return {n for p in PUBLISHED for n in numbers(json.dumps(p, default=str))}

def stale(nb):
    "Figures of the prose that no cell and no paper's table holds"
    known = papers().union(*map(numbers, shown(nb)))
    return [(f, ''.join(c['source'])[:60]) for c in nb['cells'] if c['cell_type'] == 'markdown' for f in figures(''.join(c['source'])) if f not in known]

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_figures_have_a_source(page):
    if page.stem not in HISTORY: assert not stale(json.loads(page.read_text(encoding='utf-8')))

def test_a_typed_figure_is_found():
    page = dict(cells=[dict(cell_type='markdown', source=['It reaches 39 % after 12.5 seconds, `x=.77`.']), dict(cell_type='code', source=['n = 12.5'], outputs=[])])
    assert [f for f, _ in stale(page)] == [39.0]
    page['cells'][1]['outputs'] = [dict(text=['accuracy 0.39'])]
    assert not stale(page)
