"The page of results shows everything that is stored, as it is stored now."
import json, re
from pathlib import Path
import pytest
from proc_nb.viz.draw import esc
from proc_nb.dev.gallery import *
from proc_nb.dev.gallery import _arm
from proc_nb.language.answers import additive
from proc_nb.language.experiments import stored_language

PAGE = Path(__file__).parent.parent/'nbs/explain/gallery.ipynb'
OUTPUTS = '\n'.join(''.join(t) for c in json.loads(PAGE.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code' for o in c['outputs'] for t in o.get('data', {}).values())

@pytest.mark.parametrize('result', gallery(), ids=lambda r: r.name)
def test_is_on_the_page(result):
    assert result.heading('../..') in OUTPUTS and esc(result.says()) in OUTPUTS, f'{result.name} has changed since the page of results was made: run `make gallery`'
    assert result.groups and '<svg' in result._repr_html_() and 'aria-label' in result._repr_html_()
    assert 'not noted' not in result.made.values(), result.made

def test_nothing_else_is_on_the_page(): assert set(re.findall(r'Stored as `(\w+)`', OUTPUTS)) == set(stored_names())

def test_pages_it_points_to_are_there():
    for r in gallery(): assert (PAGE.parent/'../..'/r.view['page']).exists()

@pytest.mark.parametrize('domain', ('text', 'code', 'maths'))
@pytest.mark.parametrize('question, size', [('parts', 'tiny'), ('amount', 'tiny'), ('additive', 'tiny'), ('additive', 'laptop')])
def test_language_is_what_the_page_of_language_says(domain, question, size):
    groups = {tuple(g['labels'].values()): g for g in Result('language').groups}
    rows = stored_language(domain, question, size)
    arms = {r['label']: _arm(dict(arm=r['arm'])) for r in rows}
    for r in additive(rows):
        if r['label'] not in arms: continue # more of the target is a later place of the same runs
        g = groups[domain, size, arms[r['label']]]
        assert g['n'] == 3 and g['mean'] == pytest.approx(sum(r['bits_per_byte']) / 3)

def test_language_after_another_text_is_apart():
    rows = stored_language('text', 'persistence')
    ends = [r['curve']['bits_per_byte'][-1] for r in rows if r['label'] == 'no warm-up']
    g, = [g for g in Result('language').groups if tuple(g['labels'].values()) == ('text, then code', 'tiny', 'no warm-up')]
    assert g['mean'] == pytest.approx(sum(ends) / 3) and rows[0]['curve']['tokens'][-1] == rows[0]['tuned'] * rows[0]['per_step']

def test_a_run_that_diverged_is_in_no_mean():
    cell = dict(test='needle', rule='none', parts='nothing', control='random', embed='random', practice='fresh', practice_steps=None, rates='equal', steps=1, batch_size=1, found=None)
    rows = VIEWS['tour']['rows'](dict(rows=[dict(cell, seed=s, accuracy=a) for s, a in enumerate((None, .5, .7))]))
    assert [(g['mean'], g['n']) for g in groups_of(rows)] == [(pytest.approx(.6), 2)]

def test_cells_that_differ_are_lines_apart():
    cell = dict(test='needle', rule='identity', parts='attn', control='practised', embed='random', practice='fresh', rates='equal', steps=1, batch_size=1, found=None)
    rows = VIEWS['spoilt']['rows'](dict(rows=[dict(cell, practice_steps=n, seed=0, accuracy=a) for n, a in ((500, .1), (9000, .9))]))
    assert [g['values'] for g in groups_of(rows, share=True)] == [[.1], [.9]]
