"The page of results shows everything that is stored, as it is stored now."
import json, re
from pathlib import Path
import pytest
from proc_nb.draw import esc
from proc_nb.gallery import *

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
