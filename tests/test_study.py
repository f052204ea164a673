"A study's rows are what single runs give, and nothing that happens to the process loses or changes one."
import os, signal, subprocess, sys, time
import pytest, torch
from dataclasses import replace
from proc_nb.study import grid, jobs, plan
from proc_nb.all import *
from proc_nb.results import RESULTS
from proc_nb.study.reference import COMMANDS, heat_map
from proc_nb.study.table import PAPERS, SMALL, cell_labels, start_text
from proc_nb.study.run import build_model, code_hash, learning_of_parts, RunConfig, weights_hash
from proc_nb.study.jobs import ENGINES, Job, Store
from proc_nb.study.plan import JobQueue
from proc_nb.files import load_tensors
from proc_nb.train.loop import Run
from proc_nb.study.cli import named_study, parse_seeds

RULE, TEST = Identity(3, n_symbols=9), Haystack(3)
def small(**kwargs): return Study([RULE], **{**dict(parts=['attn', 'all'], tests=[TEST], seeds=2, steps=30, batch_size=16, practice_steps=40, warmup=5), **kwargs})
def figures(table): return {r['id']: (r['accuracy'], r['found'], r['curve']) for r in table}

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp('study')
    return small().run(out, progress=False), out

def test_rows_equal_single_runs(tmp_path):
    study = small(seeds=[0, 3], parts=['attn'], controls=['random', 'frozen', 'noise 0.5', 'shuffled weights'])
    for row, run in zip(study.run(tmp_path, progress=False, members=4), study.runs):
        def net(source):
            model, recs = practise('identity', run.seed, 40, length=3, n_symbols=9)
            list(recs)
            return model
        model = build_model(run, net)
        recs = list(fit(model, TEST, 30, 16, warmup=5, schedule='hold', decay_steps=30, seed=run.seed, eval_every=10, **learning_of_parts(run, model)))
        assert RunConfig.from_dict(row['settings']) == run and row['seed'] == run.seed
        assert abs(evaluate(model, TEST, 2000, 'test') - row['accuracy']) < .004
        seen = {rec.step: rec.accuracy for rec in recs if rec.accuracy is not None}
        for step, acc in row['curve']: assert step not in seen or abs(acc - seen[step]) < .03

def test_rows_are_tidy(done):
    table, out = done
    assert len(table) == 6 and len((out/'rows.jsonl').read_text(encoding='utf-8').splitlines()) == 6
    for r in table:
        assert {'hardware', 'torch', 'python', 'threads', 'proc_nb', 'seconds', 'seed', 'settings', 'practised', 'accuracy'} <= set(r)
        assert 0 <= r['accuracy'] <= 1 and r['curve'][-1][0] == 30 and not (out/'flying').exists() or not any((out/'flying').iterdir())
    assert {r['control'] for r in table} == {'random', 'practised'} and len(table.summary()) == 3

def test_frozen_parts_stay_and_controls_change_weights():
    net = load_zoo('identity')
    def attn(m): return m.h[0].attn.c_attn.weight
    runs = {r.control: r for r in Study(['identity'], ['attn'], controls=['noise 0.5', 'shuffled weights', 'frozen', 'sharpened'], seeds=1).runs}
    models = {k: build_model(r, lambda s: net) for k, r in runs.items()}
    made = {k: attn(m) for k, m in models.items()}
    assert torch.equal(made['frozen'], attn(net)) and torch.equal(made['practised'], attn(net)) and learning_of_parts(runs['frozen'], models['frozen'])['freeze'] == ['attn']
    assert torch.equal(made['shuffled weights'].flatten().sort().values, attn(net).flatten().sort().values) and not torch.equal(made['shuffled weights'], attn(net))
    assert abs(float((made['noise 0.5'] - attn(net)).std() / attn(net).std()) - .5) < .05
    assert not torch.equal(made['sharpened'], attn(net))

def test_layers_and_compositions_take_what_they_name():
    nets = {'identity': load_zoo('identity'), 'eca': load_zoo('eca')}
    one = Study(['identity'], ['attn'], layers=[1], controls=[], seeds=1).runs[0]
    two = Study(compositions=[{'attn': 'identity', 'mlp': 'eca'}], seeds=1, controls=[]).runs[0]
    m, c = (build_model(r, lambda s: nets[s.rule[0]]) for r in (one, two))
    assert torch.equal(m.h[1].attn.c_attn.weight, nets['identity'].h[1].attn.c_attn.weight)
    assert not torch.equal(m.h[0].attn.c_attn.weight, nets['identity'].h[0].attn.c_attn.weight)
    assert torch.equal(c.h[0].attn.c_attn.weight, nets['identity'].h[0].attn.c_attn.weight) and torch.equal(c.h[0].mlp.c_fc.weight, nets['eca'].h[0].mlp.c_fc.weight)

def test_a_mixture_is_practised_too(tmp_path):
    kinds = [['identity', dict(length=3, n_symbols=9)], ['reverse', dict(length=3, n_symbols=9)]]
    table = Study([tasks['mixture'](rules=kinds)], ['attn'], [TEST], seeds=1, steps=10, batch_size=8, practice_steps=10, controls=['sharpened']).run(tmp_path, progress=False)
    assert len(table) == 2 and all(r['rule'].startswith('mixture') for r in table)

SCRIPT = '''import sys
from proc_nb.all import *
Study([Identity(3, n_symbols=9)], ['attn', 'all'], [Haystack(3)], seeds=2, steps=300, batch_size=16, practice_steps=40, warmup=5).run(sys.argv[1], progress=False, members=2)'''

def test_killed_and_continued(tmp_path):
    whole = small(steps=300).run(tmp_path/'whole', progress=False, members=2)
    out = tmp_path/'killed'
    for rows_wanted in (1, 3):
        proc = subprocess.Popen([sys.executable, '-c', SCRIPT, str(out)])
        try:
            for _ in range(2400):
                lines = (out/'rows.jsonl').read_bytes().count(b'\n') if (out/'rows.jsonl').exists() else 0
                if lines >= rows_wanted or proc.poll() is not None: break
                time.sleep(.05)
        finally: os.kill(proc.pid, signal.SIGKILL)
        proc.wait()
        before = (out/'rows.jsonl').read_bytes()
        assert before.count(b'\n') >= rows_wanted
    after = small(steps=300).run(out, progress=False, members=2)
    assert (out/'rows.jsonl').read_bytes().startswith(before)
    assert len(after) == len(whole) == 6 and figures(after) == figures(whole)

class Died(BaseException): "The process is gone"

@pytest.mark.parametrize('where,name,after', [(Run, 'save', 5), (jobs, 'save_model', 1), (Store, '_keep_rows', 1), (jobs.shutil, 'rmtree', 2)])
def test_death_between_any_two_writes_changes_nothing(where, name, after, done, tmp_path, monkeypatch):
    real, calls = getattr(where, name), []
    def dies(*args, **kwargs):
        calls.append(name)
        if len(calls) > after: raise Died
        return real(*args, **kwargs)
    with monkeypatch.context() as m:
        m.setattr(where, name, dies)
        with pytest.raises(Died): small().run(tmp_path, progress=False)
    before = figures(Store(tmp_path).rows())
    table = small().run(tmp_path, progress=False)
    assert figures(table) == figures(done[0]) and before.items() <= figures(table).items()

def test_budget_stops_and_goes_on_to_the_same_end(tmp_path, done, monkeypatch):
    clock, ticks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, 'time', lambda: clock() + next(ticks))
    sizes = [len(small().run(tmp_path, budget='40s', progress=False)) for _ in range(12)]
    assert sizes[0] < 6 and sizes[-1] == 6 and sizes == sorted(sizes)
    assert figures(small().run(tmp_path, progress=False)) == figures(done[0])

def test_torn_last_line(done, tmp_path):
    table, out = done
    text = (out/'rows.jsonl').read_text(encoding='utf-8')
    (tmp_path/'rows.jsonl').write_text(text[:-40], encoding='utf-8')
    with pytest.warns(UserWarning, match='torn'): again = small().run(tmp_path, progress=False)
    assert figures(again) == figures(table)
    assert (tmp_path/'rows.jsonl').read_text(encoding='utf-8').splitlines()[:-1] == text.splitlines()[:-1]
    (tmp_path/'rows.jsonl').write_text('nonsense\n' + text, encoding='utf-8')
    with pytest.raises(ValueError, match='line 1'): small().run(tmp_path, progress=False)

def test_a_group_too_large_is_split(done, tmp_path, monkeypatch):
    real = jobs.fit_many
    def narrow(models, *args, **kwargs):
        if len(models) > 2: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(models, *args, **kwargs)
    monkeypatch.setattr(jobs, 'fit_many', narrow)
    with pytest.warns(UserWarning, match='half of them'): table = small().run(tmp_path, progress=False, members=4)
    assert {r['members'] for r in table} <= {1, 2}
    for r, s in zip(table, done[0]): assert r['id'] == s['id'] and abs(r['accuracy'] - s['accuracy']) < .004

def test_ray_equals_local(done, tmp_path, monkeypatch):
    ray = pytest.importorskip('ray')
    monkeypatch.setenv('RAY_worker_niceness', '0')
    for tries_left in 2, 1, 0: # on a busy machine Ray gives up starting after a while; nothing is lost
        try: table = small().run(tmp_path, engine='ray', workers=2, progress=False)
        except OSError:
            if not tries_left: raise
        else: break
        finally: ray.shutdown()
    assert figures(table) == figures(done[0]) and {r['threads'] for r in table} == {r['threads'] for r in done[0]}

def test_a_practice_that_diverged_blocks_nothing(tmp_path, monkeypatch):
    real = plan.practice_job
    def one_diverges(group, **where):
        job = real(group, **where)
        return replace(job, fit=dict(job.fit, lr=[1e30 if p.seed == 0 else 1e-3 for p in group], warmup=0, clip=1e9))
    monkeypatch.setattr(plan, 'practice_job', one_diverges)
    with pytest.warns(UserWarning, match='diverged'): table = small(parts=['attn']).run(tmp_path, progress=False)
    for r in table: assert (r['accuracy'] is None) == (None in r['practised']) == (r['rule'] != 'none' and r['seed'] == 0)
    assert str(table).count('1 of 2, 1 diverged') == 1
    assert figures(small(parts=['attn']).run(tmp_path, progress=False)) == figures(table)

def test_a_reader_changes_nothing(done, tmp_path):
    half = (done[1]/'rows.jsonl').read_bytes()[:-40]
    (tmp_path/'rows.jsonl').write_bytes(half)
    assert len(Store(tmp_path).rows()) == 5 and '5 of them done' in str(small().plan(tmp_path)) and (tmp_path/'rows.jsonl').read_bytes() == half

def test_what_another_finished_while_one_waited_is_not_made_again(done, tmp_path, monkeypatch):
    real = grid.folder_lock
    def late(out):
        (tmp_path/'rows.jsonl').write_bytes((done[1]/'rows.jsonl').read_bytes())
        return real(out)
    monkeypatch.setattr(grid, 'folder_lock', late)
    assert figures(small().run(tmp_path, progress=False)) == figures(done[0]) and len(Store(tmp_path).rows()) == 6

def test_an_interrupt_ends_what_flies_on_ray(monkeypatch):
    from types import SimpleNamespace
    ended = []
    def wait(refs): raise KeyboardInterrupt
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: dict(CPU=1), wait=wait, cancel=lambda ref, force: ended.append((ref, force)),
        remote=lambda **kwargs: lambda f: SimpleNamespace(remote=lambda job: job.folder))
    monkeypatch.setitem(sys.modules, 'ray', ray)
    waiting = [Job([], None, [], {}, 1, name) for name in 'abc']
    with pytest.raises(KeyboardInterrupt): list(jobs.run_on_ray(lambda: waiting.pop(0) if waiting else None, None))
    assert ended == [('a', True), ('b', True)]

@pytest.mark.parametrize('kwargs,words', [
    (dict(rules=['identiti']), "rule=identiti.*Did you mean 'identity'"), (dict(tests=['haystak']), "test=haystak.*Did you mean 'haystack'"),
    (dict(parts=[{'attn': [7]}]), r'rule=identity, parts=attn\[7\].*no layer 7'), (dict(layers=[7]), 'no layer 7'), (dict(parts=['atn']), "parts=atn.*Did you mean 'attn'"),
    (dict(shape=dict(block_size=30)), 'test=haystack.*block_size >= 62'), (dict(embed='maen'), "Did you mean 'mean'"), (dict(controls=['frozzen']), "Did you mean 'frozen'"),
    (dict(tests=[tasks['haystack'](n_pairs=1)], rules=[tasks['dyck'](k=1, seq_len=2)]), 'distinct rows'), (dict(practice='zoo', practice_steps=5), 'only has'),
    (dict(controls=['frozen'], layers=[0]), 'Only whole parts'), (dict(practice='stale'), 'kind of practice'), (dict(practice_steps=0), 'rule=identity.*practice_steps'), (dict(steps=0), 'steps'), (dict(shape=dict(n_embd=15)), 'n_embd')])
def test_impossible_grids_are_refused_by_name(kwargs, words, tmp_path):
    with pytest.raises((ValueError, KeyError), match=words): Study(**{**dict(rules=['identity']), **kwargs})

# ---- a run is all that changes its result, a cell is what its rows share apart from the seed

def rows_of(study, accuracy=.5):
    "Rows as a study writes them, without the training"
    def row(r):
        columns = {k: getattr(r, k) for k in 'embed rescale control seed practice rates steps batch_size'.split()}
        return dict(r.columns(), **columns, id=r.id, settings=r.to_dict(), accuracy=accuracy, found=None)
    return Table(map(row, study.runs))

ONE = dict(rules=['identity'], parts=['attn'], tests=[TEST], seeds=1, controls=[])
OTHERS = [dict(lr=3e-2), dict(schedule='cosine'), dict(warmup=7), dict(weight_decay=.1), dict(shape=dict(n_embd=32)), dict(practice_lr=.1), dict(practice_with=dict(dropout=.1)),
    dict(recipe='bundled'), dict(embed='matched'), dict(rescale=True), dict(practice_steps=5), dict(steps=7), dict(test_rows=5), dict(eval_every=3), dict(rates='equal'), dict(batch_size=3)]

@pytest.mark.parametrize('other', OTHERS, ids=str)
def test_what_differs_is_another_cell_and_every_chart_says_so(other):
    table = Table([*rows_of(Study(**ONE), .9), *rows_of(Study(**{**ONE, **other}), .1)])
    cells = table.summary()
    assert len(cells) == 2 and len({start_text(c) for c in cells} | set(cell_labels(cells))) >= 2 and len(set(cell_labels(cells))) == 2
    assert len({tuple(l[:7]) for l in table.lines()}) == 2, 'the lines of the table look alike'
    name = cells[0]['test']
    for figure in heat_map(table), dot_chart(table, name): assert figure.table.markup.count('90.0 (one run)') == figure.table.markup.count('10.0 (one run)') == 1
    assert len({(d['rule'], d['parts']) for d in heat_map(table).chart.data.values}) == 2
    assert len({d['name'] for d in dot_chart(table, name).chart.layer[1].data.values}) == 2

def test_one_run_has_one_spelling():
    def ids(**kwargs): return [r.id for r in Study(**{**ONE, **kwargs}).runs]
    assert ids(parts=['attn']) == ids(parts=[['attn']]) == ids(parts=[{'attn': None}]) and ids(parts=[['pos', 'attn']]) == ids(parts=[('attn', 'pos')])
    assert ids(weight_decay=0) == ids(weight_decay=0.) and ids(lr=1) == ids(lr=1.) and ids(rules=[tasks['dyck'](p_open=.5)]) == ids(rules=['dyck'])
    assert len((Study(**ONE) + Study(**{**ONE, 'parts': [['attn']]})).runs) == 1

def reversed_rows(step):
    "A rule that is defined anew with other rows"
    @register('rule')
    class Counted(Task):
        def __init__(self, length=4): self.seq_len, self.pad, self.token_names = length, 0, [str(i) for i in range(30)]
        def rows(self, n, generator):
            x = torch.randint(1, 20, (n, 2), generator=generator)
            x = torch.cat([x, x + step], 1)
            return x, (torch.arange(self.seq_len) < self.seq_len - 1).expand(n, -1)
    return Counted

def test_a_task_defined_anew_is_another_task(tmp_path):
    def study(): return Study(['counted'], ['attn'], [TEST], seeds=1, controls=[], steps=6, batch_size=8, practice_steps=6, eval_every=6, test_rows=20)
    kept = tasks.found.copy()
    try:
        reversed_rows(1)
        first = study()
        rows = first.run(tmp_path, progress=False)
        assert study().runs[0].id == rows[0]['id'], 'the same code is the same run'
        reversed_rows(2)
        assert study().runs[0].id != rows[0]['id'] and not Store(tmp_path).of(study().runs)
        with pytest.raises(ValueError, match='defined anew'): first.run(tmp_path, progress=False)
        new = study().run(tmp_path, progress=False)
        assert new[0]['nets'] != rows[0]['nets'] and len(Table([*rows, *new]).summary()) == 2
    finally:
        tasks.found.clear()
        tasks.found.update(kept)

def test_code_counts_what_it_uses_and_nothing_else():
    space = dict(__name__='__main__')
    def define(helper, comment=''):
        exec(f'from proc_nb.tasks.core import Task\nSHIFT = 1\n{helper}\nclass Own(Task):\n    def rows(self, n, generator): return shift(n) {comment}', space)
        return code_hash(space['Own']())
    first = define('def shift(n): return n + SHIFT')
    assert first and first == define('def shift(n): return n + SHIFT', '# said otherwise') != define('def shift(n): return n - SHIFT')
    assert code_hash(Haystack(3)) == code_hash(shuffled(RULE)) == ''

def test_a_network_of_the_zoo_is_known_by_its_weights(tmp_path, monkeypatch):
    def study(): return Study(['identity'], ['attn'], [TEST], seeds=1, controls=[], steps=2, batch_size=4, practice='zoo', test_rows=5)
    before = study()
    rows = before.run(tmp_path, progress=False)
    assert rows[0]['nets'] == [weights_hash(load_zoo('identity'))] == [before.runs[0].sources[0].net]
    real = grid.load_zoo
    def other(name):
        net = real(name)
        with torch.no_grad(): net.wte.weight.add_(1)
        return net
    for m in grid, jobs: monkeypatch.setattr(m, 'load_zoo', other)
    assert study().runs[0].id != rows[0]['id']
    with pytest.raises(ValueError, match='not the one that this study was made with'): Study.run(before, tmp_path/'new', progress=False)

def test_compositions_take_every_axis():
    mix = dict(compositions=[{'attn': 'identity', 'mlp': 'eca'}], tests=[TEST], seeds=1)
    runs = Study(**mix, controls=['sharpened', 'noise 0.3'], layers=[0, 1], embed=['random', 'mean'], rescale=[False, True], practice_steps=[5, 6]).runs
    assert len(runs) == 3 * 2 * 2 * 2 * 2 and {r.control for r in runs} == {'practised', 'sharpened', 'noise 0.3'}
    nets = {n: load_zoo(n) for n in ('identity', 'eca')}
    def model(**kwargs): return build_model(Study(**mix, controls=[], **kwargs).runs[0], lambda s: nets[s.rule[0]])
    one = model(layers=[1])
    assert torch.equal(one.h[1].mlp.c_fc.weight, nets['eca'].h[1].mlp.c_fc.weight) and not torch.equal(one.h[0].mlp.c_fc.weight, nets['eca'].h[0].mlp.c_fc.weight)
    assert torch.allclose(model(embed='mean').wte.weight[3], nets['identity'].wte.weight.mean(0))
    assert model(rescale=True).wte.weight.norm(dim=1).mean().item() == pytest.approx(nets['identity'].wte.weight.norm(dim=1).mean().item(), rel=1e-5)

def test_a_named_study_hands_on_what_it_is_given():
    runs = named_study('diagnostic', seeds=1, steps=100, batch_size=7, practice_steps=9, rules=['identity']).runs
    assert {r.test[0] for r in runs} >= {'multiplication', 'haystack'}
    assert {(r.seed, r.steps, r.batch_size) for r in runs} == {(0, 100, 7)} and {s.practice['steps'] for r in runs for s in r.sources} == {9}
    assert {r.shape['n_embd'] for r in runs if r.test[0] == 'multiplication'} == {512}

# ---- practice

@pytest.mark.parametrize('recipe', ['own', 'paper'])
@pytest.mark.parametrize('steps', [50, 100, 500, 20_000])
def test_a_short_practice_reaches_the_full_rate(steps, recipe):
    from proc_nb.train.loop import rate
    from proc_nb.train.practice import recipe_for
    how = recipe_for('identity', recipe, steps=steps)
    factors = [rate(s, how['warmup'], how['schedule'], steps) for s in range(steps)]
    assert max(factors) == 1 and factors[-1] < .02 and abs(sum(factors) / steps - .5) < .03

def test_the_papers_practice_is_tied_and_drops(tmp_path):
    study = Study(['identity'], ['attn'], [TEST], seeds=1, controls=[], steps=4, batch_size=8, recipe='paper', practice_steps=5, eval_every=4, test_rows=10)
    row, = study.run(tmp_path, progress=False)
    net = Store(tmp_path).net(study.runs[0], study.runs[0].sources[0])
    assert (net.config.tied, net.config.dropout) == (True, .1) and repr(net.task) == "Identity(length=20, lengths='fixed', n_symbols=20)"
    assert row['settings']['sources'][0]['practice'] == dict(steps=5, batch_size=64, lr=5e-5, weight_decay=.01, warmup=1, schedule='cosine', dropout=.1, tied=True)
    assert not build_model(study.runs[0], lambda s: net).config.tied

def test_published_is_the_papers_protocol_seed_by_seed(tmp_path):
    study = named_study('published', 'paper', seeds=[3, 7], rescale=True)
    assert {tuple(getattr(r, k) for k in PAPERS) for r in study.runs} == {tuple(PAPERS.values())}
    assert PAPERS == dict(steps=10_000, batch_size=1000, rates='equal', lr=1e-3, weight_decay=1e-3, warmup=500, schedule='cosine', eval_every=250, test_rows=4000)
    assert all(r.practice == 'fresh' and r.rescale == bool(r.sources) and r.shape == SMALL for r in study.runs)
    queue = JobQueue(study.runs, Store(tmp_path), 'cpu')
    assert [g[0].seed for g in queue.tests] == [3] * (len(study.runs) // 2) + [7] * (len(study.runs) // 2) and {len(g) for g in queue.waiting} == {1}

class Told(BaseException): "Somebody stopped it"

def test_stopped_in_the_middle_it_goes_on_from_there(tmp_path, monkeypatch):
    def study(): return small(parts=['attn'], seeds=1, steps=40, eval_every=20, controls=[])
    whole = study().run(tmp_path/'whole', progress=False, workers=1)
    ticks = []
    def stopped(job, tick):
        def count(n):
            ticks.append(n)
            if len(ticks) == 40 + 13: job.deadline = 0
            tick(n)
        return job.run(count)
    monkeypatch.setitem(ENGINES, 'local', lambda take, tick, workers: ((j, stopped(j, tick)) for j in iter(take, None)))
    assert len(study().run(tmp_path/'cut', progress=False)) == 0
    flying, = (tmp_path/'cut'/'flying').iterdir()
    assert load_tensors(flying/'checkpoint.safetensors')[1]['done'] == 13
    monkeypatch.undo()
    assert figures(study().run(tmp_path/'cut', progress=False, workers=1)) == figures(whole)

def test_seeds_of_any_size_and_a_task_without_init(tmp_path):
    class Bare(Task):
        "A rule without arguments"
        seq_len, pad, token_names = 4, 0, [str(i) for i in range(30)]
        def rows(self, n, generator): return torch.randint(1, 30, (n, 4), generator=generator), (torch.arange(4) < 3).expand(n, -1)
    kept = tasks.found.copy()
    try:
        register('rule')(Bare)
        study = Study(['bare', RULE], ['attn'], [TEST], seeds=[10 ** 10, 2 ** 63 - 1], controls=['noise 0.1', 'shuffled weights', 'sharpened'], steps=2, batch_size=4, practice_steps=2, eval_every=2, test_rows=5)
        assert sorted({r['seed'] for r in study.run(tmp_path, progress=False)}) == [10 ** 10, 2 ** 63 - 1]
    finally:
        tasks.found.clear()
        tasks.found.update(kept)

SENDER = """import sys
from ray import cloudpickle
from proc_nb.all import *
from proc_nb.study.plan import JobQueue
from proc_nb.study.jobs import Store
@register('rule')
class Mine(Task):
    def __init__(self, length=4): self.seq_len, self.pad, self.token_names = length, 0, [str(i) for i in range(30)]
    def rows(self, n, generator): return torch.randint(1, 30, (n, self.seq_len), generator=generator), (torch.arange(self.seq_len) < self.seq_len - 1).expand(n, -1)
study = Study(['mine'], ['attn'], [Haystack(3)], seeds=1, controls=[], steps=2, batch_size=4, practice_steps=2)
open(sys.argv[2], 'wb').write(cloudpickle.dumps(JobQueue(study.runs, Store(sys.argv[1]), 'cpu').take()))"""

def test_a_worker_need_not_know_the_task(tmp_path):
    pytest.importorskip('ray')
    from ray import cloudpickle
    sent = subprocess.run([sys.executable, '-c', 'import torch\n' + SENDER, str(tmp_path/'out'), str(tmp_path/'job')], capture_output=True, text=True, timeout=300)
    assert sent.returncode == 0, sent.stderr
    assert 'mine' not in tasks
    models, results = cloudpickle.loads((tmp_path/'job').read_bytes()).run()
    assert results[0]['curve'][-1][0] == 2 and models[0].config.vocab_size == 30

# ---- verdicts

def line(accuracies, rule='set', parts='attn', control='practised', test='haystack', **settings):
    own = {**PAPERS, **SMALL, 'embed': 'mean' if parts == 'all' else 'random', **settings}
    return [dict(test=test, rule=rule, parts=parts, control=control, practice='fresh', practice_steps=9, rescale=own.get('rescale', False), found=500 if a > .5 else None, accuracy=a, seed=i,
        settings=dict(own, sources=[]), **{k: own[k] for k in ('embed', 'rates', 'steps', 'batch_size')}) for i, a in enumerate(accuracies)]

@pytest.mark.parametrize('rows, word', [
    (line([0., .9]), 'cannot tell'), (line([.11, .9, .9, .9]), 'cannot tell'), (line([.89] * 5), 'agrees'), (line([.11] * 5), 'differs'), (line([.89]), 'cannot tell'), (line([.89] * 5, n_embd=64), 'cannot tell'),
    (line([.89] * 5, steps=10), 'cannot tell'), (line([.89] * 5, rates='fresh'), 'cannot tell'), (line([.89] * 5, schedule='cosine_from_0'), 'cannot tell'), (line([.89] * 5, rescale=True), 'cannot tell'),
    (line([.89] * 5, n_layer=1), 'cannot tell'), (line([.89] * 5, batch_size=200), 'cannot tell'), (line([.89] * 5, lr=3e-3), 'cannot tell'), (line([.89] * 5, 'set(length=7)'), 'cannot tell'),
    (line([.89] * 5, 'set(lengths=fixed, n_symbols=20)'), 'agrees'), (line([.97] * 5, 'dyck', 'all'), 'cannot tell'), (line([.1] * 5, 'sort'), 'not published')])
def test_a_verdict_only_where_it_could_have_been_another(rows, word):
    found, = compare(rows)
    assert found['verdict'] == word and bool(found['why']) == (word != 'not published'), found['why']

def test_runs_that_scatter_evenly_need_fewer_seeds_once_that_is_known():
    test = 'reversed_addition(metric=paper)'
    even = line([.9, .91, .92, .91, .9], 'eca', 'all', test=test)
    assert compare(even)[0]['verdict'] == 'cannot tell', 'five runs do not show that runs on this test never jump'
    others = [r for rule in ('sort', 'set', 'union', 'stack') for r in line([.5, .51, .49, .5, .5], rule, 'mlp', test=test)]
    assert compare([*even, *others])[0]['verdict'] == 'agrees'
    assert compare([*even, *others, *line([.3, .8], 'reverse', 'mlp', test=test)])[0]['verdict'] == 'cannot tell'

def test_intervals_of_accuracies_stay_between_0_and_1():
    from proc_nb.results import next_mean, next_mean_even
    for xs in [0., .01, 1.], [1., 1., .99], [.5], []:
        for ends in (next_mean(xs, 0, 1), next_mean_even(xs), *([student(xs, 0, 1)[1:]] if len(xs) > 1 else [])): assert 0 <= ends[0] <= ends[1] <= 1
    for k in range(4): assert 0 <= wilson(k, 3)[0] <= wilson(k, 3)[1] <= 1

def test_sums_and_subsets():
    a, b = small(), small(parts=['mlp'])
    assert len((a + b).runs) == len(a.runs) + 2 and len((a + a).runs) == len(a.runs)
    assert [r.id for r in (a + b).runs][:len(a.runs)] == [r.id for r in a.runs]

def call(*args, cwd):
    "What the installed command does"
    (cwd/'command.py').write_text('from proc_nb.commands import study\nstudy()\n', encoding='utf-8')
    return subprocess.run([sys.executable, 'command.py', *args], cwd=cwd, capture_output=True, text=True, timeout=300)

def test_command_plans_stops_and_refuses(tmp_path):
    plan = call('tour', '--plan', '--measured', '2', '--seeds', '1', cwd=tmp_path)
    assert plan.returncode == 0 and '10 runs, 0 of them done' in plan.stdout and '2 measured steps' in plan.stdout, plan.stderr
    assert not (tmp_path/'_runs').exists()
    cut = call('tour', '--budget', '0s', cwd=tmp_path)
    assert cut.returncode == 0 and '0 of 20 runs are done; the same command goes on' in cut.stdout, cut.stderr
    for args, words in ((('tuor',), "Did you mean 'tour'"), (('tour', '--steps', '0'), 'steps must be'), (('tour', '--budget', 'soon'), "'10m'"), (('tour', '--engine', 'rya'), "Did you mean 'ray'")):
        bad = call(*args, cwd=tmp_path)
        assert bad.returncode != 0 and words in bad.stderr

def meant(command):
    "The study that a command of `proc-nb-study` runs"
    _, name, *rest = command.split()
    settings = {}
    while rest:
        option = rest.pop(0)[2:].replace('-', '_')
        alone = not rest or rest[0].startswith('--')
        settings[option] = True if alone else rest.pop(0)
    settings = {k: int(v) if str(v).isdigit() else v for k, v in settings.items()}
    return named_study(name, **{**settings, 'seeds': parse_seeds(settings.get('seeds'))})

@pytest.mark.parametrize('name', COMMANDS)
def test_stored_rows_are_what_their_command_makes(name):
    table = stored_table(name)
    stored, all_of_it = [r['id'] for r in table], [r.id for r in meant(COMMANDS[name]).runs]
    assert stored == [k for k in all_of_it if k in stored] and (stored == all_of_it or name in ('published', 'rescaled', 'spoilt', 'why'))
    for r in table:
        assert r['hardware'] and r['torch'] and r['seed'] == r['settings']['seed'] and r['id'] == RunConfig.from_dict(r['settings']).id and r['curve'][-1][0] == r['steps']
        assert r['accuracy'] is None or 0 <= r['accuracy'] <= 1
        assert len(r['practised']) == len(r['settings']['sources']) and (r['practice'] == 'zoo') == ('zoo' in COMMANDS[name])

def test_every_stored_study_has_a_command(): assert {p.stem for p in RESULTS.glob('*.jsonl')} == set(COMMANDS)

def test_stored_cells_stand_beside_published_ones():
    "Every cell of the two studies has a published figure; what is ours in them (the scale) is named and takes the verdict away"
    ours, theirs = compare(stored_table('rescaled')), compare(stored_table('published'))
    assert ours and theirs and all(c['published'] is not None for c in [*ours, *theirs])
    assert not [c for c in theirs if c['why'].startswith('steps') or 'rescale' in c['why']]
    assert all(c['verdict'] == 'cannot tell' for c in theirs if len(c['accuracies']) < 3), 'one or two networks have no verdict'
    assert {c['verdict'] for c in ours if c['rescale']} == {'cannot tell'} and all('rescale' in c['why'] for c in ours if c['rescale'])

@pytest.mark.parametrize('error, words', [('WorkerCrashedError', 'died before it was done'), ('OutOfMemoryError', 'for want of memory')])
def test_a_worker_that_dies_is_told_in_words(error, words):
    from types import SimpleNamespace
    kinds = {n: type(n, (Exception,), {}) for n in ('WorkerCrashedError', 'OutOfMemoryError')}
    def get(ref): raise kinds[error]()
    with pytest.raises(ChildProcessError, match=f'{words}. Finished groups are kept'): jobs._from_ray(SimpleNamespace(get=get, exceptions=SimpleNamespace(**kinds)), None)

def test_a_ray_that_does_not_start_is_told_in_words(monkeypatch):
    ray = pytest.importorskip('ray')
    def init(**kwargs): raise Exception('The current node timed out during startup.')
    monkeypatch.setattr(ray, 'init', init)
    with pytest.raises(OSError, match="Ray did not start: The current node timed out during startup. .*engine='local'"): next(jobs.run_on_ray([], None))

def test_a_grid_beyond_measure_is_refused():
    with pytest.raises(ValueError, match='at most 100,000 runs'): small(seeds=100_000)
    with pytest.raises(ValueError, match='seeds must be a whole number from 1 to 100000, not 1000000'): small(seeds=1_000_000)

def test_rows_carry_the_measures_of_their_networks(tmp_path):
    from proc_nb.study.jobs import MEASURES
    from proc_nb.study.why import networks, why
    study = why(['identity', 'set'], seeds=2, steps=4, batch_size=8, practice_steps=4)
    table = study.run(tmp_path, workers=1)
    assert len(table) == len(study.runs) == 10
    for r in table: assert [list(m) for m in r['measures']] == [list(MEASURES)] * len(r['settings']['sources'])
    for rescale in False,True: assert {(n['rule'].split('(')[0], n['seed']) for n in networks(table, rescale)} == {(r, s) for r in ('identity', 'set') for s in (0, 1)}
    ours,theirs = ([{k: n[k] for k in MEASURES} for n in networks(table, r)] for r in (False, True))
    assert ours == theirs # measured before anything is carried over
