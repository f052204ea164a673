"A finished run as one file, opened in a real Chromium without a network, and played."
import re, pytest
from proc_nb.lab.replay import replay
from proc_nb.lab.runner import Choices, LabRun
from proc_nb.train.practice import load_zoo

pytestmark = pytest.mark.browser

@pytest.fixture(scope='module')
def run():
    run = LabRun(Choices(settings=dict(n_pairs=3), steps=60, batch_size=32), lambda: load_zoo('identity'))
    for _ in run.items(): pass
    return run

@pytest.fixture(scope='module')
def file(run, tmp_path_factory):
    lines = {'practised': run.frames['mine'], 'random weights': run.frames['control']}
    return replay(lines, guess=.611).save(tmp_path_factory.mktemp('replay')/'replay.html')

def opened(browser, file, **kw):
    "The page without a network; errors and requests to anywhere else are kept"
    context = browser.new_context(offline=True, **kw)
    page = context.new_page()
    page.trouble = []
    page.on('console', lambda m: page.trouble.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.trouble.append(str(e)))
    page.on('request', lambda r: None if r.url == file.as_uri() else page.trouble.append(r.url))
    page.goto(file.as_uri())
    return page

def table(page, i): return page.locator('.pnb-r-heads').nth(i).locator('td').all_inner_texts()

def percent(shares): return [str(round(100 * s)) for s in shares]

def test_it_is_small(file): assert file.stat().st_size < 300_000

def test_curve_heads_scores_and_answer_follow_the_slider(browser, file, run):
    page = opened(browser, file)
    slider, status, ahead = page.locator('input[type=range]'), page.locator('.pnb-r-status'), page.locator('.pnb-r-curve path:not([stroke-opacity])')
    n = len(run.frames['mine'])
    assert slider.get_attribute('max') == str(n - 1) and slider.input_value() == str(n - 1)
    drawn = set()
    for i in (n - 1, 0, n // 2):
        slider.fill(str(i))
        assert f'step {run.frames["mine"][i].step}:' in status.inner_text()
        assert slider.get_attribute('aria-valuetext') == status.inner_text()
        for k, kind in enumerate(('mine', 'control')):
            f = run.frames[kind][i]
            shown = table(page, k)
            assert shown[:8] == percent(f.answer.flatten().tolist()) and shown[8:16] == percent(f.before.flatten().tolist())
            first = [str(round(100 * a)) if round(100 * a) >= 9.5 else '' for a in f.sight.att.flatten(0, 1)[:, 0].tolist()]
            assert shown[16:24] == first, 'the heads do not look where they looked'
            token, sure = f.sight.found[0]
            said = page.locator('.pnb-r-answer').nth(k).inner_text()
            assert f'answers {f.sight.task.token_names[token]} ({round(sure * 100)}% sure)' in said
            if f.accuracy is not None: assert f'{100 * f.accuracy:.1f}%' in status.inner_text()
        drawn.add(ahead.first.get_attribute('d'))
    assert len(drawn) == 3, 'the curve does not move with the slider'
    assert page.trouble == []

def test_it_plays_by_button_and_by_keyboard(browser, file):
    page = opened(browser, file)
    slider, button = page.locator('input[type=range]'), page.locator('.pnb-replay button')
    last = int(slider.get_attribute('max'))
    button.click() # from the end it begins again
    page.wait_for_function('() => 1 <= document.querySelector("input").value')
    assert button.inner_text().endswith('pause')
    button.click()
    held = int(slider.input_value())
    page.wait_for_timeout(600)
    assert int(slider.input_value()) == held < last
    slider.focus()
    page.keyboard.press('ArrowRight')
    assert int(slider.input_value()) == held + 1
    page.keyboard.press('Home')
    assert slider.input_value() == '0' and 'not measured yet' in page.locator('.pnb-r-status').inner_text()
    page.keyboard.press(' ')
    page.wait_for_function('() => document.querySelector("input").value >= 2')
    page.keyboard.press('End')
    assert slider.input_value() == str(last) and button.inner_text().endswith('play')
    assert page.trouble == []

@pytest.mark.parametrize('width, scheme', [(1400, 'light'), (700, 'dark'), (420, 'light')])
def test_it_fits_the_window(browser, file, width, scheme):
    page = opened(browser, file, viewport=dict(width=width, height=900), color_scheme=scheme)
    assert page.evaluate('() => document.documentElement.scrollWidth - innerWidth') <= 0
    tops = {round(s.bounding_box()['y']) for s in page.locator('.pnb-replay section').all()}
    assert len(tops) == (1 if width >= 700 else 2), 'side by side where there is room'
    ink = page.locator('.pnb-r-status').evaluate('e => getComputedStyle(e).color')
    assert (int(re.search(r'\d+', ink)[0]) > 128) == (scheme == 'dark')

def test_pages_without_scripts_show_the_last_moment(browser, file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator('svg').count() and 'answers' in page.locator('.pnb-replay').inner_text()
