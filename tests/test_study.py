"A study's rows are what single runs give, and nothing that happens to the process loses or changes one."
import os, signal, subprocess, sys, time
import pytest, torch
from proc_nb import study as module
from proc_nb.all import *
from proc_nb.ensemble import ManyRun
from proc_nb.study import *
from proc_nb.study import key
from proc_nb.study_cli import named

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
            model, recs = practise('identity', run['seed'], 40, length=3, n_symbols=9)
            list(recs)
            return model
        model = assemble(run, net)
        recs = list(fit(model, TEST, 30, 16, warmup=5, schedule='hold', decay_steps=30, seed=run['seed'], eval_every=10, **learns(run)))
        assert row['settings'] == run and row['seed'] == run['seed']
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
    runs = {r['control']: r for r in Study(['identity'], ['attn'], controls=['noise 0.5', 'shuffled weights', 'frozen', 'sharpened'], seeds=1).runs}
    made = {k: attn(assemble(r, lambda s: net)) for k, r in runs.items()}
    assert torch.equal(made['frozen'], attn(net)) and torch.equal(made['practised'], attn(net)) and learns(runs['frozen'])['freeze'] == ['attn']
    assert torch.equal(made['shuffled weights'].flatten().sort().values, attn(net).flatten().sort().values) and not torch.equal(made['shuffled weights'], attn(net))
    assert abs(float((made['noise 0.5'] - attn(net)).std() / attn(net).std()) - .5) < .05
    assert not torch.equal(made['sharpened'], attn(net))

def test_layers_and_compositions_take_what_they_name():
    nets = {'identity': load_zoo('identity'), 'eca': load_zoo('eca')}
    one = Study(['identity'], ['attn'], layers=[1], controls=[], seeds=1).runs[0]
    two = Study(compositions=[{'attn': 'identity', 'mlp': 'eca'}], seeds=1, controls=[]).runs[0]
    m, c = (assemble(r, lambda s: nets[s['rule'][0]]) for r in (one, two))
    assert torch.equal(m.h[1].attn.c_attn.weight, nets['identity'].h[1].attn.c_attn.weight)
    assert not torch.equal(m.h[0].attn.c_attn.weight, nets['identity'].h[0].attn.c_attn.weight)
    assert torch.equal(c.h[0].attn.c_attn.weight, nets['identity'].h[0].attn.c_attn.weight) and torch.equal(c.h[0].mlp.c_fc.weight, nets['eca'].h[0].mlp.c_fc.weight)

def test_a_mixture_is_practised_too(tmp_path):
    kinds = [['identity', dict(length=3, n_symbols=9)], ['reverse', dict(length=3, n_symbols=9)]]
    table = Study([tasks['mixture'](rules=kinds)], ['attn'], [TEST], seeds=1, steps=10, batch_size=8, practice_steps=10, controls=['sharpened']).run(tmp_path, progress=False)
    assert len(table) == 2 and all(r['rule'].startswith('mixture') for r in table)

SCRIPT = '''import sys
from proc_nb.all import *
from proc_nb.ensemble import ManyRun
from proc_nb.study import *
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

@pytest.mark.parametrize('where,name,after', [(ManyRun, 'save', 5), (module, 'save_model', 1), (module, '_keep_rows', 1), (module.shutil, 'rmtree', 2)])
def test_death_between_any_two_writes_changes_nothing(where, name, after, done, tmp_path, monkeypatch):
    real, calls = getattr(where, name), []
    def dies(*args, **kwargs):
        calls.append(name)
        if len(calls) > after: raise Died
        return real(*args, **kwargs)
    with monkeypatch.context() as m:
        m.setattr(where, name, dies)
        with pytest.raises(Died): small().run(tmp_path, progress=False)
    before = figures(module.Store(tmp_path).rows())
    table = small().run(tmp_path, progress=False)
    assert figures(table) == figures(done[0]) and before.items() <= figures(table).items()

def test_budget_stops_and_goes_on_to_the_same_end(tmp_path, done, monkeypatch):
    clock, ticks = time.time, iter(range(10**9))
    monkeypatch.setattr(module.time, 'time', lambda: clock() + next(ticks))
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
    real = module.fit_many
    def narrow(models, *args, **kwargs):
        if len(models) > 2: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(models, *args, **kwargs)
    monkeypatch.setattr(module, 'fit_many', narrow)
    with pytest.warns(UserWarning, match='half of them'): table = small().run(tmp_path, progress=False, members=4)
    assert {r['members'] for r in table} <= {1, 2}
    for r, s in zip(table, done[0]): assert r['id'] == s['id'] and abs(r['accuracy'] - s['accuracy']) < .004

def test_ray_equals_local(done, tmp_path, monkeypatch):
    ray = pytest.importorskip('ray')
    monkeypatch.setenv('RAY_worker_niceness', '0')
    try: table = small().run(tmp_path, engine='ray', workers=2, progress=False)
    finally: ray.shutdown()
    assert figures(table) == figures(done[0]) and {r['threads'] for r in table} == {r['threads'] for r in done[0]}

def test_a_practice_that_diverged_blocks_nothing(tmp_path, monkeypatch):
    real = module._practice_job
    def one_diverges(group):
        job = real(group)
        return dict(job, fit=dict(job['fit'], lr=[1e30 if p['seed'] == 0 else 1e-3 for p in group], warmup=0, clip=1e9))
    monkeypatch.setattr(module, '_practice_job', one_diverges)
    with pytest.warns(UserWarning, match='diverged'): table = small(parts=['attn']).run(tmp_path, progress=False)
    for r in table: assert (r['accuracy'] is None) == (None in r['practised']) == (r['rule'] != 'none' and r['seed'] == 0)
    assert str(table).count('1 of 2, 1 diverged') == 1
    assert figures(small(parts=['attn']).run(tmp_path, progress=False)) == figures(table)

def test_a_reader_changes_nothing(done, tmp_path):
    half = (done[1]/'rows.jsonl').read_bytes()[:-40]
    (tmp_path/'rows.jsonl').write_bytes(half)
    assert len(module.Store(tmp_path).rows()) == 5 and '5 of them done' in str(small().plan(tmp_path)) and (tmp_path/'rows.jsonl').read_bytes() == half

def test_what_another_finished_while_one_waited_is_not_made_again(done, tmp_path, monkeypatch):
    real = module.alone
    def late(out):
        (tmp_path/'rows.jsonl').write_bytes((done[1]/'rows.jsonl').read_bytes())
        return real(out)
    monkeypatch.setattr(module, 'alone', late)
    assert figures(small().run(tmp_path, progress=False)) == figures(done[0]) and len(module.Store(tmp_path).rows()) == 6

def test_an_interrupt_ends_what_flies_on_ray(monkeypatch):
    from types import SimpleNamespace
    ended = []
    def wait(refs): raise KeyboardInterrupt
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: dict(CPU=1), wait=wait, cancel=lambda ref, force: ended.append((ref, force)),
        remote=lambda **kwargs: lambda f: SimpleNamespace(remote=lambda job: job['name']))
    monkeypatch.setitem(sys.modules, 'ray', ray)
    with pytest.raises(KeyboardInterrupt): list(module.on_ray([dict(name=n, device='cpu') for n in 'abc'], None))
    assert ended == [('a', True), ('b', True)]

@pytest.mark.parametrize('kwargs,words', [
    (dict(rules=['identiti']), "rule=identiti.*Did you mean 'identity'"), (dict(tests=['haystak']), "test=haystak.*Did you mean 'haystack'"),
    (dict(parts=[{'attn': [7]}]), r'rule=identity, parts=attn\[7\].*no layer 7'), (dict(layers=[7]), 'no layer 7'), (dict(parts=['atn']), "parts=atn.*Did you mean 'attn'"),
    (dict(shape=dict(block_size=30)), 'test=haystack.*block_size >= 62'), (dict(embed='maen'), "Did you mean 'mean'"), (dict(controls=['frozzen']), "Did you mean 'frozen'"),
    (dict(tests=[tasks['haystack'](n_pairs=1)], rules=[tasks['dyck'](k=1, seq_len=2)]), 'distinct rows'), (dict(practice='zoo', practice_steps=5), 'only has'),
    (dict(controls=['frozen'], layers=[0]), 'Only whole parts'), (dict(practice='stale'), 'kind of practice'), (dict(practice_steps=0), 'rule=identity.*practice_steps'), (dict(steps=0), 'steps'), (dict(shape=dict(n_embd=15)), 'n_embd')])
def test_impossible_grids_are_refused_by_name(kwargs, words, tmp_path):
    with pytest.raises((ValueError, KeyError), match=words): Study(**{**dict(rules=['identity']), **kwargs})

def test_sums_and_subsets():
    a, b = small(), small(parts=['mlp'])
    assert len((a + b).runs) == len(a.runs) + 2 and len((a + a).runs) == len(a.runs)
    assert [key(r) for r in (a + b).runs][:len(a.runs)] == [key(r) for r in a.runs]

def call(*args, cwd): return subprocess.run([sys.executable, '-m', 'proc_nb.study_cli', *args], cwd=cwd, capture_output=True, text=True, timeout=300)

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
    _, name, *rest = command.split()
    return named(name, **{k[2:].replace('-', '_'): int(v) if v.isdigit() else v for k, v in zip(rest[::2], rest[1::2])})

@pytest.mark.parametrize('name', COMMANDS)
def test_stored_rows_are_what_their_command_makes(name):
    table = stored_table(name)
    stored, all_of_it = [r['id'] for r in table], [key(r) for r in meant(COMMANDS[name]).runs]
    assert stored == [k for k in all_of_it if k in stored] and (stored == all_of_it or name in ('published', 'spoilt'))
    for r in table:
        assert r['hardware'] and r['torch'] and r['seed'] == r['settings']['seed'] and r['id'] == key(r['settings']) and r['curve'][-1][0] == r['steps']
        assert r['accuracy'] is None or 0 <= r['accuracy'] <= 1
        assert len(r['practised']) == len(r['settings']['sources']) and (r['practice'] == 'zoo') == ('zoo' in COMMANDS[name])

def test_every_stored_study_has_a_command(): assert {p.stem for p in RESULTS.glob('*.jsonl')} == set(COMMANDS)

def test_stored_cells_stand_beside_published_ones():
    lines = compare(stored_table('published'))
    assert lines and all(c['published'] and c['runs'] == 3 and c['verdict'] in ('agrees', 'differs') for c in lines)

@pytest.mark.parametrize('error, words', [('WorkerCrashedError', 'died before it was done'), ('OutOfMemoryError', 'for want of memory')])
def test_a_worker_that_dies_is_told_in_words(error, words):
    from types import SimpleNamespace
    from proc_nb.study import _got
    kinds = {n: type(n, (Exception,), {}) for n in ('WorkerCrashedError', 'OutOfMemoryError')}
    def get(ref): raise kinds[error]()
    with pytest.raises(ChildProcessError, match=f'{words}. Finished groups are kept'): _got(SimpleNamespace(get=get, exceptions=SimpleNamespace(**kinds)), None)

def test_a_ray_that_does_not_start_is_told_in_words(monkeypatch):
    ray = pytest.importorskip('ray')
    def init(**kwargs): raise Exception('The current node timed out during startup.')
    monkeypatch.setattr(ray, 'init', init)
    with pytest.raises(OSError, match="Ray did not start: The current node timed out during startup. .*engine='local'"): next(module.on_ray([], None))

def test_a_grid_beyond_measure_is_refused():
    with pytest.raises(ValueError, match='at most 100,000 runs'): small(seeds=100_000)
    with pytest.raises(ValueError, match='seeds must be a whole number from 1 to 100000, not 1000000'): small(seeds=1_000_000)
