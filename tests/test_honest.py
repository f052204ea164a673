"Figures are what they are said to be: re-made from their own record, the same again, on rows never trained on, with intervals that hold."
import contextlib, io, math, os, platform, subprocess, sys
from itertools import islice, product
import pytest, torch
from proc_nb.all import *
from proc_nb.influence.retrain import removal, spearman, train_without
from proc_nb.language.plan import LM_SIZES
from proc_nb.tasks.core import SPLITS
from proc_nb.tasks.controls import warm_task
from proc_nb.influence import experiments as influence_study, retrain as repair
from proc_nb.language import experiments as language
from proc_nb.study import table as study_table
from proc_nb.study.run import build_model, learning_of_parts, RunConfig, task_label, to_spec
from proc_nb.lego.experiments import EXPERIMENTS
from proc_nb.train.practice import *

RUNS = stored('needle')['runs']
def record(**kw): return next(r for r in RUNS if all(r[k] == v for k, v in kw.items()))

def again(run, upto):
    "The first evaluations of a stored needle run, made again from its record"
    about, steps = stored('needle')['about'], stored('needle')['about']['steps'][f'{run["n_pairs"]} pairs']
    kw = {k: about[k] for k in 'batch_size lr warmup schedule weight_decay clip'.split()} | (dict(lr_scale=None) if run['rates'] == 'equal' else {})
    recs = race('identity', {run['setting']: STARTS[run['setting']]}, tasks['haystack'](n_pairs=run['n_pairs']), steps, [run['seed']],
        scaled=run['rates'] != 'equal', **kw)
    return [rec.accuracy for _, _, rec in islice(recs, upto) if rec.accuracy is not None]

def near(got, want, rows=1000):
    "Other processors round differently, and what is learnt may then differ by a few rows"
    return all(abs(a - b) <= 3 * math.sqrt(max(b * (1 - b), .02) / rows) + 5e-4 for a, b in zip(got, want))

def test_a_stored_needle_run_made_again():
    run = record(setting='attention', n_pairs=10, rates='fresh faster', seed=0)
    assert near(again(run, 125), run['accuracy'][:1])

@pytest.mark.full
@pytest.mark.parametrize('setting,rates', [('random weights', 'fresh faster'), ('attention + positions', 'fresh faster'), ('everything', 'fresh faster'), ('attention + positions', 'equal')])
def test_more_stored_needle_runs_made_again(setting, rates):
    run = record(setting=setting, n_pairs=10, rates=rates, seed=1)
    upto = int(os.environ.get('PROC_NB_AGAIN', 500))
    assert near(again(run, upto), run['accuracy'][:upto // 125])

def study_row_again(row, upto):
    "The first evaluations of a stored row of a study, made again from its settings"
    run = RunConfig.from_dict(row['settings'])
    model = build_model(run, lambda source: zoo[source.rule[0]])
    recs = fit(model, model.task, run.steps, run.batch_size, run.lr, warmup=run.warmup, schedule=run.schedule, decay_steps=run.steps,
        weight_decay=run.weight_decay, seed=run.seed, eval_every=run.steps // 20, **learning_of_parts(run, model))
    return [rec.accuracy for rec in islice(recs, upto) if rec.accuracy is not None]

def test_stored_study_rows_made_again():
    for name in 'tour', 'lengths':
        row = next(r for r in stored_table(name) if r['control'] == 'random' and r['test'].startswith('haystack'))
        found = study_row_again(row, row['steps'] // 20)
        assert near(found, [a for _, a in row['curve'][:1]]), (name, found, row['curve'][0])

@pytest.mark.full
def test_a_stored_study_row_made_again_as_it_learns():
    row = next(r for r in stored_table('tour') if r['control'] == 'random' and r['test'].startswith('reversed_addition'))
    found, told = study_row_again(row, 700), [a for step, a in row['curve'] if step <= 700]
    assert told[-1] > told[0] + .06 and found == pytest.approx(told, abs=.025)

def test_practised_networks_score_what_they_say():
    for name in zoo:
        m = zoo[name]
        assert near([evaluate(m, m.task, 2000)], [m.meta['accuracy']], 2000), name

def test_tables_say_what_the_rows_say():
    for name in 'tour', 'lengths':
        for s in stored_table(name).summary():
            xs = [r['accuracy'] for r in stored_table(name) if tuple(r[k] for k in study_table.CELL) == tuple(s[k] for k in study_table.CELL)]
            assert s['runs'] == len(xs) and abs(s['mean'] - sum(xs) / len(xs)) < 1e-12 and (s['lowest'], s['highest'], s['accuracies']) == (min(xs), max(xs), sorted(xs))

@pytest.mark.parametrize('n', range(2, 41))
def test_students_interval_leaves_out_one_in_forty_at_each_end(n):
    "Student's density with n - 1 degrees of freedom, added up from the mean to the end of the interval of n numbers"
    xs, df = [float(i) for i in range(n)], n - 1
    mean, low, high = student(xs)
    t = (high - mean) / (torch.tensor(xs).var() / n).sqrt().item()
    x = torch.linspace(0, t, 20_001, dtype=torch.float64)
    density = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi) * (1 + x * x / df) ** (-(df + 1) / 2)
    assert abs(torch.trapezoid(density, x).item() - .475) < 3e-4 and mean - low == pytest.approx(high - mean)

# ---- LEGO: settings and rates are in the file, what a setting is made of in the study that its command names

def lego_again(name, setting, seed, upto=None):
    "Stored rows of a LEGO run and the same made again: before training, and the first measurements"
    kept, study = stored(f'lego_{name}'), EXPERIMENTS[name]
    about, rows = kept['about']['settings'][setting], [r for r in kept['rows'] if (r['setting'], r['seed']) == (setting, seed)]
    assert about['task'] == study.fixed['task']
    found = list(islice(study.run(seed, **study.lines[setting]), upto))
    return found, rows[:len(found)]

def alike(found, row, n=500):
    "Shares of `n` rows differ by chance at most, means over attention or divergence hardly at all"
    shares = {k: v for k, v in found.items() if k in ('places', 'beyond', 'right', 'follows', 'counts', 'flips')}
    assert all(near(torch.tensor(v).flatten().tolist(), torch.tensor(row[k]).flatten().tolist(), 150 if k == 'flips' else n) for k, v in shares.items()), (found, row)
    assert all(found[k] == pytest.approx(row[k], rel=.02, abs=2e-3) for k in ('association', 'local') if k in found), (found, row)

@pytest.mark.parametrize('name,setting', [('readers', 'ALBERT-like, random'), ('mimic', 'ALBERT-like'), ('wired', 'BERT-like, two of four heads wired')])
def test_stored_readers_begin_as_they_are_said_to(name, setting):
    (found,), (row,) = lego_again(name, setting, 1, 1)
    alike(found, row)

def test_a_stored_lego_run_made_again():
    for found, row in zip(*lego_again('mimic', 'BERT-like', 0, 2)): alike(found, row)

@pytest.mark.full
@pytest.mark.parametrize('name,setting', [('readers', 'BERT-like, mimicked'), ('mimic', 'BERT-like')])
def test_whole_lego_runs_made_again(name, setting):
    found, rows = lego_again(name, setting, 0)
    assert len(found) == len(rows)
    for f, r in zip(found, rows): alike(f, r)

# ---- influence: the libraries are the same to the letter, what a network learns from them is so up to rounding

@pytest.mark.parametrize('run', stored('influence_study')['runs'], ids=lambda r: str(r['seed']))
def test_stored_libraries_made_again(run):
    library = influence_study.Library(run['seed'])
    assert len(library.data) == run['documents']
    for share, told in run['methods']['EK-FAC']['answer'].items():
        top = int(len(library.data) * float(share[:-1]) / 100)
        chance = influence_study.answer_rate(torch.zeros(library.holds.shape), library.holds, library.families, top)
        assert {f: x for f, (_, x) in chance.items()} == pytest.approx({f: x for f, (_, x) in told.items()}, abs=1e-4)
    pairs = influence_study.by_shared_steps(torch.zeros(len(library.questions), 2), library.questions)
    assert {' | '.join(k): n for k, (_, n) in pairs.items()} == {k: n for k, (_, n) in run['methods']['EK-FAC']['steps'].items()}

def test_a_stored_influence_run_made_again():
    kept = stored('influence_study')
    row = kept['on_the_way'][0]
    found = next(influence_study.on_the_way(row['seed'], [row['step']], kept['runs'][0]['steps'], **kept['runs'][0]['sizes']))
    assert found['accuracy'] == row['accuracy'] and {k: v[1] for k, v in found['steps'].items()} == {k: v[1] for k, v in row['steps'].items()}
    assert found['correlation'] == pytest.approx(row['correlation'], abs=.02)

def test_stored_rows_of_practice_are_drawn_again():
    kept = stored('influence_bridge')
    for seed in {r['seed'] for r in kept['runs']}:
        rows, rules = repair.practice(zoo[kept['about']['source']], kept['about']['rows_per_rule'], seed)
        names = rows.task.token_names
        texts = {' '.join(names[t] for t in rows.task.trim(row).tolist()) for row, rule in zip(rows.tokens, rules) if rule == kept['about']['source']}
        for r in (r for r in kept['runs'] if r['seed'] == seed):
            assert list(r['rules']) == list(dict.fromkeys(rules)) and {t for side in r['rows'].values() for _, t in side} <= texts

@pytest.mark.full
def test_a_stored_repair_made_again():
    kept = stored('influence_bridge')
    run, about = next(r for r in kept['runs'] if (r['test'], r['finder_seed']) == ('needle', 1)), kept['about']
    source, test, parts = zoo[about['source']], tasks['haystack'](n_pairs=10), [p for p in run['carried'] if p in ('attn', 'mlp')]
    assert task_label(to_spec(test)) == about['tests'][run['test']]
    model, accuracy = repair.finder(source, test, run['carried'], about['steps'], run['finder_seed'])
    found = repair.repairs(source, model, test, parts, n=about['rows_per_rule'], questions=about['questions'], seed=run['seed'])
    assert near([accuracy], [run['accuracy']]) and found['nats'] == pytest.approx(run['nats'], rel=.1)
    assert found['layers'] == pytest.approx(run['layers'], abs=.02) and found['agreement'] == pytest.approx(run['agreement'], abs=.05)

@pytest.mark.full
def test_stored_retraining_made_again():
    kept = stored('influence_checks')
    about, told = kept['about'], [r for r in kept['removal'] if (r['seed'], r['family']) == (0, 'facts')][:2]
    library = influence_study.Library(0, **about['library'])
    asked = library.held[[i for i, f in enumerate(library.families) if f == 'facts']]
    config = influence_study.reader(library, n_embd=about['n_embd']).config
    def train(keep, seed): return train_without(library.data, keep, config, seed, about['steps'], **about['training'])
    found = list(removal({}, library.data, asked, train, told[1]['k'], [0]))
    assert len(library.data) == about['documents'] and [r['method'] for r in found] == [r['method'] for r in told]
    for f, t in zip(found, told): assert f['losses'] == pytest.approx(t['losses'], rel=.05, abs=.02)

# ---- language

LANGUAGE = stored('language')['rows']
def test_stored_practice_read_as_many_tokens_as_it_says():
    for r in LANGUAGE:
        arm, rule = r['arm'], r['arm']['rule'] and warm_task(r['arm']['rule'], r['length'])
        if 'other' not in r: assert r['warm_tokens'] == (arm['warm_steps'] * r['warm_batch'] * rule.seq_len if rule else 0)
        assert len({b - a for a, b in zip(r['curve']['tokens'], r['curve']['tokens'][1:-1])}) <= 1

@pytest.fixture(scope='module')
def maths(tmp_path_factory):
    pytest.importorskip('accelerate')
    return corpus('maths', block_size=LM_SIZES['tiny'].block_size, cache=tmp_path_factory.mktemp('corpus'), progress=False)

def language_again(row, data, upto):
    "The first evaluations of a stored language run, made again from its settings"
    every = row['curve']['tokens'][0] // row['per_step']
    kw = {k: row[k] for k in 'size steps length warm_batch eval_rows warm_lr'.split()}
    study = language.ask('additive', data, language.RULES[row['corpus']], seeds=[row['seed']], eval_every=every, **kw)
    told = dict(study.identity(row['corpus']), corpus=row['corpus'], python=data.about['python'])
    about = {k: v for k, v in told.items() if k in row} # older rows do not name every setting
    if row['python'] != platform.python_version(): about = {k: v for k, v in about.items() if k not in ('python', 'sha256')}
    if about.get('sha256') != row['sha256']: pytest.skip('the stored run read an earlier corpus, and its page says so')
    assert about == {k: row[k] for k in about}
    net = study.practice(row['corpus'], row['arm'], row['seed']).net
    p = Pretraining(data, net, row['size'], row['arm']['parts'], steps=row['steps'], seed=row['seed'], eval_every=every, eval_rows=row['eval_rows'], warm_lr=row['warm_lr'])
    return [r.found for r in islice((r for r in p.records() if r.found), upto)]

def test_a_stored_language_run_made_again(maths):
    row = next(r for r in LANGUAGE if (r['corpus'], r['size'], r['seed'], r['arm']['rule']) == ('maths', 'tiny', 0, None))
    found = language_again(row, maths, 1)[0]
    for k in 'validation', 'bits_per_byte': assert found[k] == pytest.approx(row['curve'][k][0], abs=2e-3)

@pytest.mark.full
def test_a_stored_language_run_after_practice_made_again(maths):
    row = next(r for r in LANGUAGE if (r['corpus'], r['size'], r['seed'], r['arm']['rule']) == ('maths', 'tiny', 1, 'union') and r['arm']['warm_steps'] == 500)
    assert [f['validation'] for f in language_again(row, maths, None)] == pytest.approx(row['curve']['validation'], abs=.05)

# ---- the same again

CODE = '''import hashlib, torch
from proc_nb.all import *
torch.set_num_threads(1)
m = GPT(GPTConfig(vocab_size=12, block_size=11, dropout=.1), seed=3)
recs = list(fit(m, Identity(5, n_symbols=9), 12, 16, seed=5, eval_every=6, eval_rows=50))
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in m.parameters())).hexdigest(), [r.loss for r in recs], [r.accuracy for r in recs])'''

def test_same_seed_same_result_in_any_process():
    other = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=True, env=dict(os.environ, PYTHONHASHSEED='77')).stdout
    threads, here = torch.get_num_threads(), io.StringIO()
    try:
        with contextlib.redirect_stdout(here): exec(CODE, {})
    finally: torch.set_num_threads(threads)
    assert here.getvalue() == other and 'None' in other

def test_nothing_outside_the_seed_counts():
    def run():
        m = GPT(GPTConfig(vocab_size=12, block_size=11, dropout=.1), seed=3)
        return [r.loss for r in fit(m, Identity(5, n_symbols=9), 6, 16, seed=5, eval_rows=20)]
    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2), torch.rand(7)
    assert run() == first and torch.initial_seed() == 2

# ---- rows

@pytest.mark.parametrize('name', list(tasks))
def test_no_row_is_in_two_splits(name):
    task, rows = tasks[name](), {}
    for split, seed in product(SPLITS, range(2)):
        b = task.sample(600, torch.Generator().manual_seed(seed), split)
        rows.setdefault(split, set()).update(map(tuple, b.tokens.tolist()))
    for a, b in (('train', 'test'), ('train', 'validation'), ('validation', 'test')): assert not rows[a] & rows[b]

def test_every_row_of_a_small_task_has_one_split():
    task = Identity(3, n_symbols=6)
    seen = {s: set(map(tuple, task.sample(4000, torch.Generator().manual_seed(1), s).tokens.tolist())) for s in SPLITS}
    whole = set(map(tuple, task.batch(20_000, torch.Generator().manual_seed(0)).tokens.tolist()))
    assert set.union(*seen.values()) == whole and sum(map(len, seen.values())) == len(whole)

def test_what_is_trained_on_is_never_scored():
    task, met = Identity(3, n_symbols=9), set()
    sample = type(task).sample
    class Watched(Identity):
        def sample(self, n, generator, split='train'):
            b = sample(self, n, generator, split)
            (met if split == 'train' else held).update(map(tuple, b.tokens.tolist()))
            return b
    held = set()
    w = Watched(3, n_symbols=9)
    list(fit(GPT(GPTConfig(vocab_size=w.vocab_size, block_size=w.seq_len)), w, 30, 32, eval_every=10, eval_rows=100))
    evaluate(GPT(GPTConfig(vocab_size=w.vocab_size, block_size=w.seq_len)), w, 100, 'test')
    assert len(met) > 300 and len(held) > 50 and not met & held

# ---- metrics by hand

class Fixed(torch.nn.Module):
    "Always answers the same token"
    def __init__(self, token, vocab):
        super().__init__()
        self.p, self.token, self.vocab = torch.nn.Parameter(torch.zeros(1)), token, vocab
    def forward(self, tokens, at=None):
        x = torch.zeros(*tokens.shape, self.vocab)
        x[..., self.token] = 1
        return x if at is None else x[at]

def by_hand(task, token, n, split, seed, metric='corrected'):
    b = task.sample(n, torch.Generator().manual_seed(seed), split).rescored(metric)
    asked = [(i, t) for i in range(n) for t in range(b.tokens.shape[1]) if b.score_mask[i, t]]
    return sum(int(b.targets[i, t]) == token for i, t in asked) / len(asked), b

@pytest.mark.parametrize('name', ['haystack', 'addition', 'reversed_addition', 'sorting', 'identity', 'dyck'])
def test_accuracy_by_hand(name):
    task = tasks[name]()
    for token in 1, 3:
        want, b = by_hand(task, token, 60, 'validation', 4)
        model = Fixed(token, task.vocab_size)
        assert abs(evaluate(model, task, 60, 'validation', 4) - want) < 1e-6
        assert abs(score(model, task, 'corrected', 60, 'validation', 4) - want) < 1e-6
        paper, _ = by_hand(task, token, 60, 'validation', 4, 'paper')
        assert abs(score(model, task, 'paper', 60, 'validation', 4) - paper) < 1e-6
        whole = sum(all(int(b.targets[i, t]) == token for t in range(b.tokens.shape[1]) if b.score_mask[i, t]) for i in range(60)) / 60
        assert abs(score(model, task, 'exact', 60, 'validation', 4) - whole) < 1e-6

def test_the_loss_is_the_mean_over_answers(g):
    task = tasks['haystack'](n_pairs=5)
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len))
    b = task.sample(20, g)
    logp = model(b.tokens).log_softmax(-1)
    want = [-float(logp[i, t, b.targets[i, t]]) for i in range(20) for t in range(b.tokens.shape[1]) if b.loss_mask[i, t]]
    from proc_nb.train.loop import backward
    assert abs(float(backward(model, b)) - sum(want) / len(want)) < 1e-5

def test_means_and_intervals_by_hand():
    assert student([1, 2, 3, 4])[0] == 2.5
    mean, lo, hi = student([1, 2, 3, 4])
    assert abs((hi - lo) / 2 - 3.182 * math.sqrt(5 / 3) / 2) < 1e-3 and student([7]) == (7, None, None)
    assert [round(x, 4) for x in wilson(5, 10)] == [.2366, .7634] and [round(x, 3) for x in wilson(0, 10)] == [0, .278] and wilson(10, 10)[1] <= 1 + 1e-12
    a, b = torch.tensor([[1., 2, 3, 4]]), torch.tensor([[1., 3, 2, 4]])
    assert abs(float(spearman(a, b)) - (1 - 6 * 2 / (4 * 15))) < 1e-6

def t_beyond(t, df):
    "Share of Student's distribution beyond +-t, by adding up its density"
    x = torch.linspace(0, t, 200_001, dtype=torch.float64)
    y = (1 + x * x / df) ** (-(df + 1) / 2) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    return 1 - 2 * float(torch.trapezoid(y, x))

def test_students_quantiles():
    for df in (*range(1, 21), 21, 25, 30, 50, 120):
        mean, lo, hi = student([0.] * df + [math.sqrt(df + 1)]) # a standard error of 1, but for a factor
        xs = torch.tensor([0.] * df + [math.sqrt(df + 1)], dtype=torch.float64)
        t = (hi - mean) / float(xs.std() / math.sqrt(df + 1))
        assert abs(t_beyond(t, df) - .05) < 1e-3, (df, t)

# ---- intervals that hold what they promise

def test_students_interval_covers_the_mean():
    g = torch.Generator().manual_seed(0)
    for n in 2, 3, 5, 10, 30:
        xs = torch.randn(4000, n, generator=g)
        hit = sum(lo <= 0 <= hi for _, lo, hi in (student(x) for x in xs.double().tolist())) / 4000
        assert abs(hit - .95) < .012, (n, hit)

def test_wilsons_interval_covers_the_share():
    for n in 10, 30, 100: # exactly, from the binomial distribution
        covered = []
        for p in (i / 200 for i in range(1, 200)):
            weight = [math.comb(n, k) * p ** k * (1 - p) ** (n - k) for k in range(n + 1)]
            covered.append(sum(w for k, w in enumerate(weight) if wilson(k, n)[0] <= p <= wilson(k, n)[1]))
        assert abs(sum(covered) / len(covered) - .95) < .01 and min(covered) > .83, (n, sum(covered) / len(covered), min(covered))
