"Tutorial 06 in a real JupyterLab: two loss curves that grow while the networks train. A screenshot is kept in _artifacts/."
import json
from pathlib import Path
import pytest
from lab_page import LabPage, jupyterlab

pytestmark = [pytest.mark.browser, pytest.mark.full]
pytest.importorskip('accelerate')
POINTS = "paths => paths.map(p => (p.getAttribute('d') || '').split(/[ML]/).length - 1)"

def cells():
    "The code of the tutorial up to the chart that grows, without the line that installs the package"
    book = json.loads((Path(__file__).parent.parent/'tutorials/06_language.ipynb').read_text(encoding='utf-8'))
    code = [''.join(c['source']) for c in book['cells'] if c['cell_type'] == 'code']
    end = next(i for i, c in enumerate(code) if 'watch(runs, live)' in c)
    return [c for c in code[:end + 1] if 'eval: false' not in c] + ["print('trained', len(rows))"]

@pytest.fixture
def page(browser, tmp_path, monkeypatch):
    monkeypatch.setenv('PROC_NB_SHORT', '10')
    with jupyterlab(tmp_path) as server: yield LabPage(browser, *server)

def inside(a, b): return b['x'] <= a['x'] and b['y'] <= a['y'] and a['x'] + a['width'] <= b['x'] + b['width'] + 1 and a['y'] + a['height'] <= b['y'] + b['height'] + 1

def test_two_loss_curves_grow_while_one_watches(page):
    page.open('language.ipynb', *cells())
    def points(): return sorted(page.page.eval_on_selector_all('.vega-embed .mark-line path', POINTS))
    def done(): return page.page.get_by_text('trained 2', exact=True).count()
    chart = page.page.locator('.vega-embed').first
    page.run_all()
    page.wait(chart.count, 240)
    assert 300 < chart.bounding_box()['width'] < 1000, 'the chart has no size before it has a line'
    chart.scroll_into_view_if_needed()
    page.wait(lambda: len(points()) == 2 and points()[0] >= 3, 300)
    few = points()
    assert not done(), 'the curves were drawn only when the training was over'
    page.shoot('language_growing')
    page.wait(lambda: points()[0] > few[0] + 2, 120)
    page.wait(done, 120)
    page.wait(lambda: points() == [15, 15])
    page.shoot('language_grown')
    whole = chart.locator('svg').bounding_box()
    for said in 'bits per byte', 'million tokens', 'warm-up on set', 'no warm-up', '7.0': assert inside(chart.get_by_text(said, exact=True).first.bounding_box(), whole), f'{said} is cut off'
    assert page.errors == [] and page.outside == []
