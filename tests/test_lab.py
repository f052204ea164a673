"The live panels without a page: states, interrupts, two labs at once, Colab, bad input, memory."
import importlib, json, re, signal, sys, threading, time, types
import IPython, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from proc_nb.all import *
import proc_nb.viz.panel as P, proc_nb.lab.explorer as L_explorer, proc_nb.lab.runner as L
import proc_nb.lab.composer as L_composer, proc_nb.lab.cli as L_cli
from proc_nb.train.background import *
from proc_nb.viz.panel import *
from proc_nb.lab.runner import *
from proc_nb.lab.explorer import *
from proc_nb.lab.transfer_lab import *
from proc_nb.lab.composer import *
from proc_nb.lab.cli import *

NEXT = dict(
    start=dict.fromkeys('idle paused stopped finished failed running'.split(), 'running'),
    pause=dict(running='paused'), stop=dict(running='stopped', paused='stopped'), spoil=dict(running='failed'))

def workers(): return [t for t in threading.enumerate() if t.name == 'proc-nb lab' and t.is_alive()]

@settings(max_examples=40)
@given(st.lists(st.sampled_from(['start', 'pause', 'stop', 'spoil', 'wait']), max_size=14))
def test_any_sequence_of_clicks(clicks):
    runs, spoilt, changes = [], threading.Event(), []
    def count():
        runs.append([])
        for i in range(10**9):
            time.sleep(.0005)
            if spoilt.is_set(): raise ValueError('spoilt')
            runs[-1].append(i)
            yield i
    runner, state = Runner(count, changed=lambda r: changes.append(r.state)), 'idle'
    for c in clicks:
        if c == 'wait': time.sleep(.004)
        elif c == 'spoil':
            spoilt.set()
            if state == 'running': runner.thread.join(5)
            spoilt.clear()
        else: getattr(runner, c)()
        state = NEXT.get(c, {}).get(state, state)
        assert runner.state == state
        assert state != 'failed' or str(runner.error) == 'spoilt'
    runner.stop()
    for w in workers(): w.join(5)
    assert not workers()
    taken = [list(r) for r in runs]
    time.sleep(.003)
    assert [list(r) for r in runs] == taken == [list(range(len(r))) for r in runs]
    assert all(a != b for a, b in zip(changes, changes[1:]))

def small(**kw): return TransferLab(**{**dict(n_pairs=3, steps=12, batch_size=8), **kw})
def losses(lab): return [r.loss for r in lab.history]

def until(lab, *states, seconds=60):
    end = time.time() + seconds
    while lab.state not in states and time.time() < end: time.sleep(.01)
    assert lab.state in states

def test_background_equals_foreground():
    a, b = small(), small()
    a.run()
    b.start()
    until(b, 'finished')
    assert losses(a) == losses(b) and len(losses(a)) == 12

def test_two_labs_do_not_disturb_each_other():
    sources = [GPT(GPTConfig(vocab_size=102, block_size=41, dropout=.2), seed=s) for s in (0, 1)]
    alone = [small(rule=s) for s in sources]
    for l in alone: l.run()
    before, both = torch.random.get_rng_state(), [small(rule=s) for s in sources]
    for l in both: l.start()
    for l in both: until(l, 'finished')
    assert [losses(l) for l in both] == [losses(l) for l in alone]
    assert torch.equal(before, torch.random.get_rng_state())

def test_an_interrupt_pauses_and_run_goes_on():
    whole, cut = small(steps=40), small(steps=40)
    whole.run()
    seen = cut.runner.seen
    def once(x):
        cut.runner.seen = seen
        signal.raise_signal(signal.SIGINT)
    cut.runner.seen = once
    handler = signal.getsignal(signal.SIGINT)
    cut.run()
    assert cut.state == 'paused' and 0 < len(cut.history) < 40
    assert signal.getsignal(signal.SIGINT) is handler
    cut.run()
    assert cut.state == 'finished' and losses(cut) == losses(whole)

def test_choices_rest_while_a_run_is_under_way():
    lab = small(steps=10_000)
    lab.start()
    assert all(w.disabled for w in lab.choosers()) and not lab.b['pause'].disabled and lab.b['train'].disabled
    lab.b['pause'].click()
    assert lab.state == 'paused' and lab.b['train'].description == 'Continue'
    assert all(w.disabled for w in lab.choosers())
    lab.b['train'].click()
    assert lab.state == 'running'
    lab.b['stop'].click()
    assert lab.state == 'stopped' and not any(w.disabled for w in lab.choosers())

def in_cell(monkeypatch, code, count, cell_id=None):
    "As if this code ran in a notebook whose front end sends `cell_id`, or none"
    asked = dict(metadata=dict(cellId=cell_id) if cell_id else {}, content=dict(code=code))
    shell = types.SimpleNamespace(kernel=types.SimpleNamespace(get_parent=lambda _: asked), execution_count=count,
        input_transformer_manager=types.SimpleNamespace(transform_cell=lambda code: code.replace('%time ', '')))
    monkeypatch.setattr(IPython, 'get_ipython', lambda: shell)

def living(): return len(importlib.import_module('ipywidgets.widgets.widget')._instances)

@pytest.mark.parametrize('cell_id', [None, 'an id'])
@pytest.mark.parametrize('codes', [
    [f'%time lab = TransferLab(n_pairs={n})' for n in (3, 4)],
    ['TransferLab()', 'TransferLab(n_pairs=4)\n']])
def test_a_cell_edited_and_run_again_leaves_no_widgets_and_no_thread(monkeypatch, codes, cell_id):
    before, made = living(), []
    for i, code in enumerate(codes):
        in_cell(monkeypatch, code, i, cell_id)
        made.append(small(steps=10**6))
        made[-1].start()
        if i == 0: each = living() - before
    assert living() - before <= 1.2 * each
    assert [l.state for l in made] == ['stopped', 'running']
    made[-1].close()
    for l in made: l.runner.thread.join(5)
    assert not workers()

def test_labs_with_names_of_their_own_live_side_by_side(monkeypatch):
    made = []
    for i, code in enumerate(['a = TransferLab()', 'b = TransferLab()', 'RuleExplorer()']):
        in_cell(monkeypatch, code, i)
        made.append(small(steps=10**6) if i < 2 else L_explorer.RuleExplorer())
        if i < 2: made[-1].start()
    assert [l.state for l in made[:2]] == ['running', 'running']
    for l in made: l.close()
    for l in made[:2]: l.runner.thread.join(5)

def test_a_cell_run_again_stops_what_it_left(monkeypatch):
    in_cell(monkeypatch, 'lab = TransferLab()', 1, 'an id')
    first, second = small(steps=10**6), small(steps=10**6)
    first.start()
    second.start()
    assert first.state == second.state == 'running'
    in_cell(monkeypatch, 'mine = TransferLab()', 2, 'an id')
    third = small()
    assert first.state == second.state == 'stopped' and third.state == 'idle'
    for l in (first, second): l.runner.thread.join(5)
    assert not workers()

def test_memory_of_the_gpu_and_other_mishaps(monkeypatch):
    lab = small()
    def out_of_memory(*args, **kw): raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate ...')
    monkeypatch.setattr(L, 'start', out_of_memory)
    lab.run()
    assert lab.state == 'failed'
    assert 'Choose a smaller batch' in lab.message.value and 'role="alert"' in lab.message.value
    monkeypatch.undo()
    lab.run()
    assert lab.state == 'finished' and 'alert' not in lab.message.value

@pytest.mark.parametrize('kw, words', [
    (dict(seed=2**60), 'seed must be'),
    (dict(seed=-1), 'seed must be'),
    (dict(lr=-1.), 'lr must lie'),
    (dict(lr=np.nan), 'lr must lie'),
    (dict(steps=10**9), 'steps must be'),
    (dict(batch_size=0), 'batch_size must be'),
    (dict(embed='meen'), "Did you mean 'mean'"),
    (dict(device='gpu'), "no device 'gpu'"),
    (dict(practice=1.5), 'practice must be')])
def test_a_choice_that_a_control_does_not_have_is_told(kw, words):
    "It was replaced by the nearest one without a word"
    with pytest.raises((ValueError, KeyError), match=words): small(**kw)

def test_choices_may_come_out_of_numpy():
    lab = small(seed=np.int64(10**10), lr=np.float32(.5), steps=np.int32(3))
    assert [getattr(lab.choices(), k) for k in ('seed', 'lr', 'steps')] == [10**10, .5, 3]

def test_networks_of_ones_own(tmp_path):
    wide = GPT(GPTConfig(vocab_size=102, block_size=41, n_embd=32, n_layer=3), seed=1)
    lab = small(rule=wide, parts={'attn': [0, 2]})
    lab.run()
    assert lab.state == 'finished' and lab.runs[0].model.config.n_embd == 32 and lab.choices().parts == {'attn': [0, 2]}
    (tmp_path/'broken.safetensors').write_bytes(b'no')
    lab = small(rule=str(tmp_path/'broken.safetensors'))
    assert 'not a whole safetensors file' in lab.carried.value
    lab.run()
    assert lab.state == 'failed'
    lab.set(rule='identity')
    lab.run()
    assert lab.state == 'finished'

@pytest.mark.parametrize('bad, said', [
    (dict(rule='identiy'), "Did you mean 'identity'"),
    (dict(test='haystak'), "Did you mean 'haystack'"),
    (dict(parts='atn'), "Did you mean 'attn'"),
    (dict(n_pairs=0), 'n_pairs must be'),
    (dict(device='gpu'), 'There is no device'),
    (dict(nonsense=1), 'There is no argument')])
def test_bad_arguments_are_named_at_once(bad, said):
    with pytest.raises((ValueError, KeyError), match=said): small(**bad)

@pytest.mark.parametrize('name', list(tasks))
def test_every_task_can_be_explored(name):
    ex = RuleExplorer(name)
    assert 'pnb-error' not in ex.page.value and '<svg' in ex.page.value
    for c in list(ex.args.controls.values()):
        was = c.value
        for v in (c.options[0], c.options[-1]) if hasattr(c, 'options') else (c.min, c.max):
            c.value = v
            if 'pnb-error' not in ex.page.value: continue
            raised = re.search(r'>\w+(Error|Exception):', ex.page.value)
            assert not raised, f'{name} {c.description}={v}: {ex.page.value}'
        c.value = was
    ex.args.choose(name)
    ex.again.click()
    assert 'pnb-error' not in ex.page.value

@pytest.mark.parametrize('name', list(tasks.tests))
def test_every_test_can_be_learnt(name):
    lab = TransferLab(test=name, steps=2, batch_size=8)
    lab.run()
    assert lab.state == 'finished', lab.message.value
    assert '<svg' in lab.static()._repr_html_() and lab.look.value

def test_no_dead_buttons_in_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, 'google.colab', types.ModuleType('google.colab'))
    lab = small()
    shown = [w.description for w in P.within(lab.box) if type(w).__name__ == 'Button']
    assert not {'Train', 'Pause', 'Stop'} & set(shown)
    assert any('lab.run()' in w.value for w in P.within(lab.box) if type(w).__name__ == 'HTML')
    lab.run()
    assert lab.state == 'finished'

def test_every_control_has_a_label():
    for panel in (small(), RuleExplorer(), Composer(), AttentionView(load_zoo('identity'))):
        for w in P.within(panel.box):
            if hasattr(w, 'disabled') and type(w).__name__ not in ('Textarea', 'ToggleButtons'): assert w.description, w

def test_panels_let_go_of_their_widgets():
    import ipywidgets as W
    alive = getattr(W.widgets.widget, '_instances', None)
    if alive is None: alive = W.Widget.widgets
    lab = small()
    lab.close()
    before = len(alive)
    for _ in range(3):
        lab = small()
        lab.close()
    assert len(alive) - before < 30

def test_jupyterlab_is_rooted_where_the_links_lead(tmp_path, monkeypatch):
    "Tutorials link to pages in `nbs/`, which JupyterLab cannot reach from a root beside the notebook"
    seen = []
    monkeypatch.setattr(L_cli, '_serve', seen.append)
    monkeypatch.setattr(L_cli, 'find_spec', lambda name: name)
    (tmp_path/'tutorials').mkdir()
    (tmp_path/'tutorials/02_lab.ipynb').write_text('{}', encoding='utf-8')
    run_lab(str(tmp_path))
    assert str(tmp_path/'tutorials/02_lab.ipynb') in seen[0] and f'--ServerApp.root_dir={tmp_path.resolve()}' in seen[0]

def test_every_lab_saves_into_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labs = [small(steps=2, seed=s) for s in (0, 1)]
    for lab in labs: lab.run()
    for lab in (*labs, labs[0]): lab.save()
    assert {p.name for p in (tmp_path/'_runs').iterdir()} == {'lab', 'lab-2'}
    assert [load_model(f'_runs/{n}/model.safetensors').meta['seed'] for n in ('lab', 'lab-2')] == [0, 1]

def test_a_composer_says_who_diverged(monkeypatch):
    real, begun = L_composer.fit, []
    def second_diverges(*args, **kw):
        begun.append(args)
        return real(*args, **{**kw, **(dict(lr=1e30, clip=1e9, warmup=0) if len(begun) == 2 else {})})
    monkeypatch.setattr(L_composer, 'fit', second_diverges)
    comp = Composer(steps=12, batch_size=8, settings=dict(haystack=dict(n_pairs=3)))
    comp.run()
    assert comp.state == 'finished' and [n for _, n in comp.lost] == ['attention giver, whole']
    for shown in (comp.static().markup, comp.charts['haystack'][1].value):
        assert 'attention giver, whole diverged at step' in shown and shown.count('diverged') == 1

@pytest.mark.full
def test_ten_thousand_updates_stay_small():
    import tracemalloc
    lab = small(steps=60)
    lab.run()
    lab._draw()
    tracemalloc.start()
    begun = tracemalloc.get_traced_memory()[0]
    for i in range(10_000):
        lab.runs[0].lines['mine'].append(dict(lab.runs[0].lines['mine'][-1], step=60 + i))
        if i % 10 == 0: lab._draw()
    grown = (tracemalloc.get_traced_memory()[0] - begun) / 2**20
    tracemalloc.stop()
    assert grown < 20, f'{grown:.1f} MB'

def test_watching_costs_little():
    """A look at the heads and a new drawing, five times a second, take less of a thread than two of the steps they
    show: of some 140 a second, 5 to 7 %"""
    lab = TransferLab('identity', 'haystack', steps=300, batch_size=16)
    lab.run()
    run = lab.runs[-1]
    assert 30 < len(run.scores) <= 100
    def seconds(f):
        begun = time.thread_time()
        f()
        return time.thread_time() - begun
    def look():
        run.scores.pop()
        run.watch()
        lab._draw()
        json.dumps([lab.score_chart.now, lab.chart.now])
    def train(): list(fit(run.model, run.task, 20, batch_size=400, eval_every=20))
    looks, steps = (sorted(seconds(f) for _ in range(9))[4] for f in (look, train))
    assert looks < 2 * steps / 20, (looks, steps)

OTHERS = [dict(rule='dyck'), dict(parts=['mlp']), dict(parts={'attn': [0]}), dict(embed='matched'), dict(freeze=True),
    dict(test='sorting', settings={}), dict(settings=dict(n_pairs=4)), dict(steps=20), dict(batch_size=16),
    dict(lr=.01), dict(fresh=1.), dict(device='cuda'), dict(seed=1)]
@pytest.mark.parametrize('other', OTHERS, ids=lambda o: '-'.join(map(str, o)))
def test_runs_that_differ_in_a_choice_are_two(other):
    "Both are drawn, and the legend says what differs: in words, or as two points of one line for two seeds"
    chosen = dict(parts=['attn'], settings=dict(n_pairs=3), steps=10)
    runs = [types.SimpleNamespace(choices=Choices(**{**chosen, **kw})) for kw in ({}, other)]
    for r in runs: r.lines = {k: [dict(seed=r.choices.seed, step=5, accuracy=.5, loss=1.)] for k in ('mine', 'control')}
    assert runs[0].choices.key() != runs[1].choices.key()
    rows = chart_rows(runs)
    mine = {(r['setting'], r['seed']) for r in rows if not r['setting'].startswith('random weights')}
    assert len(mine) == 2 and (len({s for s, _ in mine}) == 1) == ('seed' in other), mine
    assert len({tuple(sorted(r.items())) for r in rows}) == len(rows), 'two runs are drawn over one another'

@pytest.mark.full
def test_the_needle_is_found_while_one_watches():
    lab = TransferLab()
    begun = time.time()
    lab.run()
    found = [r['step'] for r in lab.runs[0].lines['mine'] if r['accuracy'] > .95]
    other = [r['accuracy'] for r in lab.runs[0].lines['control']]
    assert found and max(other) < .6, (found, other)
    print(f'found at step {found[0]}; whole run {time.time() - begun:.0f} s')

def _used(kind):
    "A panel that somebody has changed"
    if kind is RuleExplorer:
        p = RuleExplorer('dyck')
        p.name.value = 'eca'
    elif kind is AttentionView: p = AttentionView(load_zoo('identity'), Identity())
    elif kind is Composer: p = Composer()
    else:
        p = TransferLab(n_pairs=3, steps=3, batch_size=8)
        p.c['test'].value = 'reversed_addition'
    return p

@pytest.mark.parametrize('kind', [RuleExplorer, AttentionView, Composer, TransferLab])
def test_a_closed_panel_leaves_nothing(kind):
    import gc, weakref
    from ipywidgets.widgets.widget import _instances
    before, panel = len(_instances), _used(kind)
    assert len(_instances) > before
    gone = weakref.ref(panel)
    panel.close()
    del panel
    gc.collect()
    assert len(_instances) == before and gone() is None
