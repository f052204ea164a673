"The network that trains in a browser: compared with the Python one in a real Chromium, and driven as a reader would."
import time, pytest, torch
from lab_page import ARTEFACTS
from proc_nb.tasks.core import seeded, tasks
from proc_nb.train.practice import fresh_rates, start
from proc_nb.train.loop import Run
from proc_nb.lab.browser import HOW, MATHS_JS, network_data, train_page
from proc_nb.lab.runner import Frame

pytestmark = pytest.mark.browser
PARTS = ['attn', 'pos']

@pytest.fixture(scope='module')
def task(): return tasks['haystack'](n_pairs=10)

@pytest.fixture(scope='module')
def maths(browser):
    page = browser.new_context(offline=True).new_page()
    page.add_script_tag(content=MATHS_JS)
    page.evaluate('() => { window.unpack = t => new Float32Array(Uint8Array.from(atob(t), c => c.charCodeAt(0)).buffer) }')
    return page

def cut(task, batch):
    "Rows as the page has them, without padding"
    return [dict(tokens=task.trim(t).tolist(), at=int(m.nonzero()[0, 0])) for t, m in zip(batch.tokens, batch.loss_mask)]

@pytest.mark.parametrize('parts', [PARTS, []], ids=['practised', 'random'])
def test_loss_and_steps_are_those_of_python(maths, task, parts):
    "From the page's start weights: the same loss on the same rows before training, and after each of six steps"
    model = start('identity', task, parts)
    scale = fresh_rates(parts, report=model.report)
    run = Run(model, task, steps=HOW['steps'], batch_size=64, lr=HOW['lr'], warmup=3, schedule='hold', decay_steps=HOW['steps'], lr_scale=scale)
    data = network_data(start('identity', task, PARTS), start('identity', task, []))
    batches = [task.sample(64, seeded(s)) for s in range(6)]
    maths.evaluate(f'''([data, scale, practised]) => {{
        const all = Float64Array.from(unpack(data.weights))
        let at = 0
        for (const [name, size] of data.shapes) {{
            if (practised && data.carried[name]) all.set(unpack(data.carried[name]), at)
            at += size
        }}
        window.net = new Network(data.shapes, all)
        window.adam = new Adam(net, data.shapes, {{lr: {HOW['lr']}, warmup: 3, steps: {HOW['steps']}, scale}})
    }}''', [data, scale, bool(parts)])
    for i, batch in enumerate(batches):
        theirs = maths.evaluate('rows => adam.step(rows)', cut(task, batch))
        for g in run.opt.param_groups: g['lr'] = g['top'] * min(1, (i + 1) / 3)
        assert abs(theirs - float(run.update(batch))) < 1e-4, f'step {i}'

def test_the_heads_are_those_of_python(maths, task):
    model = start('identity', task, PARTS)
    batch = task.sample(16, seeded(3))
    f = Frame(model, 0, batch)
    data = network_data(model, model)
    theirs = maths.evaluate('([data, rows, names]) => look(new Network(data.shapes, unpack(data.weights)), rows[0], rows, names)', [data, cut(task, batch), task.token_names])
    def near(a, b): return max(abs(x - 100 * y) for x, y in zip(a, b)) <= .51
    assert near(theirs['answer'], f.answer.flatten().tolist()) and near(theirs['before'], f.before.flatten().tolist())
    assert all(near(a, b.tolist()) for a, b in zip(theirs['attention'], f.sight.att.flatten(0, 1)))
    for (name, share), (token, p) in zip(theirs['found'], f.sight.found): assert name == task.token_names[token] and abs(share - p) < 1e-4

def test_rows_are_those_of_the_task(maths, task):
    "Valid by the task's own check, of all lengths alike, every key and every place asked for as often as in Python"
    rows = maths.evaluate('() => rowsOf(generator(5), 10, 4000).map(r => [...r.tokens])')
    padded = torch.zeros(4000, task.seq_len, dtype=torch.long)
    for i, r in enumerate(rows): padded[i, :len(r)] = torch.tensor(r)
    assert task.valid(padded).all()
    mine = task.sample(4000, seeded(5)).tokens
    def sizes(tokens): return ((tokens != task.pad).sum(1) // 2).float()
    assert abs(sizes(padded).mean() - sizes(mine).mean()) < .25 and sizes(padded).unique().tolist() == sizes(mine).unique().tolist()
    asked = padded[torch.arange(4000), (2 * sizes(padded) - 2).long()].bincount(minlength=148)[138:148]
    assert asked.min() > 320 and asked.max() < 480
    assert rows == maths.evaluate('() => rowsOf(generator(5), 10, 4000).map(r => [...r.tokens])'), 'one seed, one set of rows'

def opened(browser, tmp_path, **how):
    file = train_page(**how).save(tmp_path/'train.html')
    assert file.stat().st_size < 200_000
    page = browser.new_context(offline=True, viewport=dict(width=800, height=1000)).new_page()
    page.trouble = []
    page.on('console', lambda m: page.trouble.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.trouble.append(str(e)))
    page.on('request', lambda r: None if r.url.startswith((file.as_uri(), 'blob:')) else page.trouble.append(r.url))
    page.goto(file.as_uri())
    return page

def step(page):
    said = page.locator('.pnb-r-clock').inner_text()
    return int(said.split('step ')[1].split(' of')[0]) if 'step ' in said else 0

def test_train_pause_go_on_both(browser, tmp_path):
    page = opened(browser, tmp_path, steps=60, batch=16, every=4)
    button, slider = page.locator('button', has_text='train'), page.locator('input[type=range]')
    assert slider.get_attribute('max') == '0' and page.locator('.pnb-r-heads').count() == 2
    button.click()
    page.wait_for_function('() => document.querySelector("input").max >= 3')
    page.locator('button', has_text='pause').click()
    page.wait_for_timeout(300)
    held = step(page)
    page.wait_for_timeout(500)
    assert step(page) == held < 60, 'pause did not hold'
    page.locator('select').select_option('all')
    button.click()
    page.wait_for_function('() => document.querySelector("button").disabled && !document.querySelector("select").disabled')
    assert 'of 60' in page.locator('.pnb-r-clock').inner_text()
    assert 'not measured' not in page.locator('.pnb-r-status').inner_text()
    slider.fill('0')
    assert 'step 0' in page.locator('.pnb-r-status').inner_text()
    assert page.trouble == []

@pytest.mark.full
def test_the_needle_is_found_in_the_browser(browser, tmp_path):
    page = opened(browser, tmp_path)
    page.locator('select').select_option('all')
    begun = time.time()
    page.locator('button', has_text='train').click()
    page.wait_for_function('() => document.querySelector("button").disabled', timeout=300_000)
    said = page.locator('.pnb-r-status').inner_text()
    print(f'{said}; both trained after {time.time() - begun:.0f} s; {page.locator(".pnb-r-clock").inner_text()}')
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTEFACTS/'train_page.png'), full_page=True)
    practised, control = (float(w.split('%')[0]) for w in said.split(': ', 1)[1].replace('practised (identity) ', '').split(', random weights '))
    assert practised > 80 > 50 > control
    assert page.trouble == []
