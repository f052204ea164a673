"The live panels in a real JupyterLab, driven in a headless Chromium. Screenshots are kept in _artifacts/."
import time, pytest
from lab_page import LabPage, chromium, jupyterlab

pytestmark = pytest.mark.browser
CELLS = ['import threading\nfrom proc_nb.all import *\nfrom proc_nb.lab.runner import *\nfrom proc_nb.lab.panel import *\nfrom proc_nb.lab.explorer import *\nfrom proc_nb.lab.transfer_lab import *\nfrom proc_nb.lab.composer import *\nfrom proc_nb.lab.cli import *', 'lab = TransferLab(n_pairs=4, batch_size=32, steps=6000)\nlab', 'two = TransferLab("dyck", n_pairs=4, batch_size=32, steps=5000)\ntwo']
SHOWN = dict(explorer='RuleExplorer("identity", length=8)', attention='AttentionView(load_zoo("identity"), before=GPT(load_zoo("identity").config))',
    composer='comp = Composer(steps=40, batch_size=16, settings=dict(haystack=dict(n_pairs=3)))\ncomp')

@pytest.fixture(scope='module')
def browser():
    if not chromium(): pytest.skip('NOT RUN: no Chromium found (set CHROMIUM to its path); the live widgets were not tested in a page')
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium(), args=['--no-sandbox', '--disable-gpu'])
        yield b
        b.close()

@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp('jupyter')) as s: yield s

def test_train_pause_continue_stop_again(browser, server):
    p = LabPage(browser, *server)
    p.open('lab.ipynb', *CELLS)
    p.run_all()
    p.wait(lambda: p.button('Train', 1).count(), 240)
    p.wait(lambda: p.page.locator('.vega-embed svg').count() == 2, 240)
    p.shoot('lab_idle')
    assert p.button('Pause').is_disabled() and p.button('Stop').is_disabled()

    p.button('Train').click()
    p.wait(lambda: p.points() >= 4, 240)
    p.wait(lambda: p.page.get_by_label('position embedding').first.is_disabled())
    few, was = p.points(), p.step()
    p.wait(lambda: p.points() > few and p.step() > was)

    p.button('Pause').click()
    p.wait(lambda: p.button('Continue').count())
    p.page.wait_for_timeout(500)
    held = p.step()
    p.page.wait_for_timeout(1500)
    assert p.step() == held, 'pause did not hold'
    p.shoot('lab_paused')

    p.button('Train', 0 if p.button('Train').count() == 1 else 1).click() # the second lab, while the first one rests
    p.wait(lambda: p.step(1) > 5)
    assert p.step() == held, 'the labs disturb each other'
    p.button('Continue').click()
    p.wait(lambda: p.step() > held)
    p.button('Stop').click()
    p.wait(lambda: p.button('Train').count())
    p.page.wait_for_timeout(500) # the step that was under way ends, and is shown
    ended = p.step()
    p.page.wait_for_timeout(800)
    assert p.step() == ended and ended < 6000
    assert p.step(1) > 5
    p.button('Stop', 1).click()

    lines = p.page.locator('.pnb').first.locator('table tr').count()
    p.button('attention').click() # another preset, another line
    p.wait(lambda: not p.page.get_by_label('position embedding').first.is_checked())
    p.button('Train').click()
    p.wait(lambda: p.page.locator('.pnb').first.locator('table tr').count() > lines, 60) # and one for random weights beside it
    p.button('Stop').click()
    p.shoot('lab_two_runs')

    p.page.get_by_label('token embedding + head').first.check() # it does not fit, and the panel says so
    p.wait(lambda: p.page.locator('.pnb-error').count())
    assert 'Untick' in p.page.locator('.pnb-error').first.inner_text()
    p.button('Train').click()
    p.wait(lambda: p.page.locator('.pnb-error').count() and p.button('Train').first.is_enabled())
    p.page.get_by_label('token embedding + head').first.uncheck()
    p.wait(lambda: not p.page.locator('.pnb-error').count())
    p.button('copy as code').click()
    p.wait(lambda: 'start(' in p.page.locator('.pnb textarea').first.input_value())
    assert p.errors == [] and p.outside == []

    p.run_all() # every cell again: the old labs are closed, no thread is left
    p.wait(lambda: p.button('Train', 1).count() and p.step() == p.step(1) == 0, 240)
    assert p.errors == [] and p.outside == []
    p.page.close()

@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_how_it_looks(browser, server, dark):
    p = LabPage(browser, *server, dark=dark)
    p.open(f'looks{dark}.ipynb', CELLS[0], 'lab = TransferLab(n_pairs=4, batch_size=32, steps=60)\nlab.run()\nlab', *SHOWN.values(), 'comp.run()')
    p.run_all()
    p.wait(lambda: p.page.locator('.pnb').count() == 4, 300)
    p.wait(lambda: p.page.locator('.vega-embed svg').count() == 2, 240)
    for width in (1400, 700):
        p.page.set_viewport_size(dict(width=width, height=4200 if width == 1400 else 6200))
        p.page.wait_for_timeout(1200)
        p.shoot(f'all_{"dark" if dark else "light"}_{width}')
        for i in range(4):
            box = p.page.locator('.pnb').nth(i)
            assert box.evaluate('e => e.scrollWidth - e.clientWidth') <= 2, f'panel {i} is too wide at {width}'
    assert p.errors == [] and p.outside == []
    p.page.close()

def test_keys_reach_everything(browser, server):
    p = LabPage(browser, *server)
    p.open('keys.ipynb', CELLS[0], CELLS[1])
    p.run_all()
    p.wait(lambda: p.button('Train').count(), 240)
    p.page.locator('.pnb select').first.focus()
    seen = []
    for _ in range(40):
        seen.append(p.page.evaluate('() => document.activeElement.innerText || document.activeElement.type || document.activeElement.tagName'))
        p.page.keyboard.press('Tab')
    kinds = ' '.join(str(s).strip() for s in seen)
    assert all(k in kinds for k in ('checkbox', 'Train', 'attention', 'save', 'copy as code')), kinds
    p.page.close()

@pytest.mark.full
def test_found_on_screen_within_three_minutes(browser, server):
    p = LabPage(browser, *server)
    p.open('found.ipynb', CELLS[0], 'lab = TransferLab()\nlab')
    p.run_all()
    p.wait(lambda: p.button('Train').count(), 240)
    begun = time.time()
    p.button('Train').click()
    p.wait(lambda: any(float(a.rstrip('%')) > 90 for a in p.page.locator('.pnb td').all_inner_texts() if a.endswith('%')), 180)
    print(f'more than 90 % on screen after {time.time() - begun:.0f} s, at step {p.step()}')
    p.shoot('found')
    p.button('Stop').click()
    assert p.errors == []
    p.page.close()

UPDATES = '''lab = TransferLab(n_pairs=4, batch_size=32, steps=60)
display(lab)
lab.run()
def thousand(k):
    for i in range(1000):
        lab.runs[0].rows[-1] = dict(lab.runs[0].rows[-1], accuracy=i / 1000)
        lab._draw()
    print(f'thousand {k} done')
'''

@pytest.mark.full
def test_ten_thousand_updates_leave_the_page_as_quick(browser, server):
    p = LabPage(browser, *server)
    p.open('many.ipynb', CELLS[0], UPDATES, *(f'thousand({k})' for k in range(11)))
    cdp = p.page.context.new_cdp_session(p.page)
    p.run_all()
    took, heap = [], []
    for k in range(11): # the first thousand warms up
        begun = time.time()
        p.wait(lambda: p.page.get_by_text(f'thousand {k} done', exact=True).count(), 240)
        took.append(time.time() - begun)
        cdp.send('HeapProfiler.collectGarbage')
        heap.append(cdp.send('Runtime.getHeapUsage')['usedSize'] / 2**20)
    print('seconds per thousand', [round(t, 1) for t in took], 'MiB', [round(h) for h in heap])
    assert heap[-1] - heap[1] < 20, heap
    assert sum(took[-3:]) < 2 * sum(took[1:4]), took
    assert p.errors == []
    p.page.close()
