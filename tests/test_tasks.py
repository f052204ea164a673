"What holds for every task, whatever it is."
import subprocess, sys
import pytest, torch
from hypothesis import given, settings, strategies as st
import checkers
from proc_nb.all import *
from proc_nb.tasks.controls import RandomTokens

NAMES = [*tasks.rules, *tasks.tests]
OURS = 'dyck dyck_shuffle stack identity reverse sort set union delete eca haystack addition reversed_addition multiplication sorting'.split()
OTHER = dict(dyck=dict(k=3, seq_len=20, p_open=.7), dyck_shuffle=dict(k=3, seq_len=20, max_depth=4, closed=False), identity=dict(length=5, n_symbols=4),
    reverse=dict(length=9, lengths='fixed'), sort=dict(length=9, n_symbols=5), set=dict(length=12, n_symbols=5), union=dict(length=10, n_symbols=4),
    delete=dict(length=6, n_symbols=3, p_inside=0.), stack=dict(length=9, n_symbols=9), eca=dict(rule=30, length=7, n_steps=4, lengths='uniform'),
    haystack=dict(n_pairs=4), addition=dict(digits=2, metric='paper'), reversed_addition=dict(digits=3), multiplication=dict(digits=3, metric='paper'),
    sorting=dict(length=6, n_symbols=5, lengths='uniform', metric='paper'))

def gen(seed=0): return torch.Generator().manual_seed(seed)
def made(name): return tasks[name](), tasks[name](**OTHER.get(name, {}))

def test_every_task_is_there(): assert set(OURS) <= set(NAMES)

@pytest.mark.parametrize('name', NAMES)
def test_contract(name):
    for task in made(name):
        a, again, other = (task.sample(200, gen(s)) for s in (1, 1, 2))
        assert a.tokens.shape == a.targets.shape == a.loss_mask.shape == a.score_mask.shape == (200, a.tokens.shape[1])
        assert a.tokens.shape[1] <= task.seq_len and a.tokens.dtype == torch.int64 and a.loss_mask.dtype == torch.bool
        assert torch.equal(a.tokens, again.tokens) and not torch.equal(a.tokens, other.tokens)
        assert 0 <= a.tokens.min() and a.tokens.max() < task.vocab_size == len(task.token_names) and 0 <= task.pad < task.vocab_size
        assert len(set(task.token_names)) == task.vocab_size
        assert a.loss_mask.any(1).all() and not a.loss_mask[:, -1].any()
        assert task.check(a.tokens).all()

@pytest.mark.parametrize('name', [*NAMES, *tasks.controls])
def test_uses_only_its_generator(name):
    task = tasks[name]()
    before, a = torch.random.get_rng_state(), task.sample(50, gen()).tokens
    torch.rand(9)
    moved, b = torch.random.get_rng_state(), task.sample(50, gen()).tokens
    assert torch.equal(a, b) and torch.equal(moved, torch.random.get_rng_state()) and not torch.equal(before, moved)

@pytest.mark.parametrize('name', NAMES)
def test_splits_share_no_row(name):
    task = tasks[name]()
    rows = {s: {tuple(r) for r in task.sample(1500, gen(i), split=s).tokens.tolist()} for i, s in enumerate(('train', 'validation', 'test'))}
    assert not rows['train'] & rows['validation'] and not rows['train'] & rows['test'] and not rows['validation'] & rows['test']

@pytest.mark.parametrize('name', NAMES)
def test_an_answer_changed_is_caught(name):
    task, batch = tasks[name](), tasks[name]().sample(200, gen())
    wrong, at = batch.tokens.clone(), batch.loss_mask.long().argmax(1) + 1
    rows = torch.arange(200)
    wrong[rows, at] = (wrong[rows, at] + 1) % task.vocab_size
    assert task.check(wrong).float().mean() < .6

@pytest.mark.parametrize('name', [*NAMES, *tasks.controls])
def test_shows_itself(name):
    task = tasks[name]()
    page = task._repr_html_()
    assert page.count('<svg') >= 3 and 'aria-label' in page and '<script' not in page and 'http' not in page
    assert task.sample(5, gen())._repr_html_().count('<svg') == 4
    junk = torch.randint(task.vocab_size, (20, min(task.seq_len, 9)), generator=gen())
    for row in junk: assert '<svg' in task.picture(row, None).markup

# the sampler, the task's own check and the second checker agree
def mutated(rows, vocab, seed):
    "Each row with one token changed or two neighbours swapped"
    g, n, T = gen(seed), *rows.shape
    at, new, swap = torch.randint(T, (n, 1), generator=g), torch.randint(vocab, (n, 1), generator=g), torch.rand(n, 1, generator=g) < .5
    to = (at + 1) % T
    changed, swapped = rows.scatter(1, at, new), rows.scatter(1, at, rows.gather(1, to)).scatter(1, to, rows.gather(1, at))
    return torch.where(swap, swapped, changed)

def agree(task, n, seed):
    batch = task.sample(n, gen(seed))
    assert task.check(batch.tokens).all()
    for row, mask in zip(batch.tokens.tolist(), batch.loss_mask.tolist()):
        assert checkers.check(task.name, task.settings, row), (task, row)
        assert checkers.answered(task.name, task.settings, row) == [i for i, m in enumerate(mask) if m], (task, row)
    odd = mutated(batch.tokens, task.vocab_size, seed)
    mine, theirs = task.check(odd).tolist(), [checkers.check(task.name, task.settings, r) for r in odd.tolist()]
    bad = [(task, r, a, b) for r, a, b in zip(odd.tolist(), mine, theirs) if a != b]
    assert not bad, bad[:2]
    return sum(mine)

@pytest.mark.parametrize('name', OURS)
def test_checkers_agree(name):
    for i, task in enumerate(made(name)): assert agree(task, 500, i) < 300

@pytest.mark.full
@pytest.mark.parametrize('name', OURS)
def test_checkers_agree_on_100_000_rows(name):
    for i, task in enumerate(made(name)): agree(task, 50_000, 10 + i)

@pytest.mark.parametrize('name', OURS)
def test_presets(name):
    for preset in tasks[name].presets:
        task = tasks[name](preset=preset)
        assert tasks[name].presets[preset].source and tasks[name].presets[preset].items() <= task.settings.items()
        if task.seq_len <= 200: agree(task, 40, 3)

RELEASED = dict.fromkeys('identity reverse sort set stack'.split(), (102, 129, 100)) | dict(union=(102, 130, 100), delete=(102, 131, 100))
@pytest.mark.parametrize('name', RELEASED)
def test_released_formats_of_rules(name):
    task = tasks[name](preset='2601.21725')
    assert (task.vocab_size, task.seq_len, task.sep, task.pad) == (*RELEASED[name], 101)
    assert (task.length, task.lengths, task.n_symbols) == (64, 'fixed', 99)
    tokens = task.batch(300, gen()).tokens
    used = tokens[(tokens != task.sep) & (tokens != task.pad)]
    assert used.min() == (0 if name == 'stack' else 1) and used.max() == 99

def test_released_formats_of_brackets():
    for name, extra in ('dyck', {}), ('dyck_shuffle', dict(max_depth=16, closed=False)):
        task = tasks[name](preset='2601.21725')
        assert task.settings == dict(k=64, seq_len=2048, p_open=.5, **extra) and (task.vocab_size, task.pad) == (129, 128)
        assert tasks[name](preset='released-defaults').settings == dict(k=16, seq_len=128, p_open=.5, **extra)

def test_released_formats_of_tests():
    hay = tasks['haystack'](preset='2601.21725')
    assert (hay.vocab_size, hay.n_pairs, hay.key, hay.query, hay.pad) == (256, 30, 128, 158, 0) and hay.seq_len == 62
    for name, digits, seq_len, op in ('addition', 5, 19, '+'), ('reversed_addition', 10, 34, '+'), ('multiplication', 5, 29, '×'):
        task = tasks[name](preset='2601.21725')
        assert (task.vocab_size, task.digits, task.seq_len, task.pad, task.metric) == (31, digits, seq_len, 12, 'paper')
        assert task.token_names[:13] == [*'0123456789', op, '=', '·'] and task.token_names[20:] == [*(f"{i}'" for i in range(10)), '■']

def test_arguments_override_a_preset():
    assert tasks['identity'](preset='2601.21725', length=9).settings == dict(length=9, lengths='fixed', n_symbols=99)
    with pytest.raises(KeyError, match='no preset'): tasks['identity'](preset='2601.2172')

@given(st.lists(st.integers(-3, 300), min_size=1, max_size=40))
def test_check_takes_any_row(row):
    for name in NAMES:
        task = tasks[name]()
        if all(0 <= t < task.vocab_size for t in row): assert task.check(torch.tensor([row])).shape == (1,)
        else:
            with pytest.raises(ValueError): task.check(torch.tensor([row]))

# every argument that is accepted samples correctly, every other is refused
def tried(name, fine, **kwargs):
    if not fine:
        with pytest.raises((ValueError, KeyError)): tasks[name](**kwargs)
        return
    task = tasks[name](**kwargs)
    b = task.batch(20, gen())
    assert b.tokens.shape == (20, task.seq_len) and task.check(b.tokens).all()
    for row in b.tokens.tolist(): assert checkers.check(name, task.settings, row)

small, share, sizes = st.integers(-1, 24), st.floats(-.5, 1.5), st.sampled_from(['fixed', 'uniform', 'any'])
def even(n): return n >= 2 and n % 2 == 0

@given(k=small, seq_len=small, p_open=share)
def test_dyck_accepts_or_refuses(k, seq_len, p_open): tried('dyck', k >= 1 and even(seq_len) and 0 < p_open < 1, k=k, seq_len=seq_len, p_open=p_open)

@given(k=small, seq_len=small, p_open=share, max_depth=small, closed=st.sampled_from([True, False, 'no']))
def test_dyck_shuffle_accepts_or_refuses(k, seq_len, p_open, max_depth, closed):
    fine = k >= 1 and even(seq_len) and 0 < p_open < 1 and 1 <= max_depth <= seq_len // 2 and closed != 'no'
    tried('dyck_shuffle', fine, k=k, seq_len=seq_len, p_open=p_open, max_depth=max_depth, closed=closed)

@pytest.mark.parametrize('name', 'identity reverse sort set union delete stack'.split())
@settings(max_examples=50)
@given(length=small, lengths=sizes, n_symbols=small, p_inside=share)
def test_sequences_accept_or_refuse(name, length, lengths, n_symbols, p_inside):
    least = dict(union=2, delete=2).get(name, 1)
    fine = length >= least and n_symbols >= 1 and lengths != 'any' and not (name == 'union' and length % 2) and not (name == 'stack' and n_symbols < length)
    extra = dict(p_inside=p_inside) if name == 'delete' else {}
    tried(name, fine and (not extra or 0 <= p_inside <= 1), length=length, lengths=lengths, n_symbols=n_symbols, **extra)

@given(rule=st.integers(-2, 258), length=small, n_steps=st.integers(-1, 5), lengths=sizes)
def test_eca_accepts_or_refuses(rule, length, n_steps, lengths):
    tried('eca', 0 <= rule < 256 and length >= 3 and n_steps >= 1 and lengths != 'any', rule=rule, length=length, n_steps=n_steps, lengths=lengths)

@given(n_pairs=st.integers(-1, 70))
def test_haystack_accepts_or_refuses(n_pairs): tried('haystack', 1 <= n_pairs <= 64, n_pairs=n_pairs)

@pytest.mark.parametrize('name, most', [('addition', 17), ('reversed_addition', 17), ('multiplication', 9)])
@settings(max_examples=40)
@given(digits=st.integers(-1, 20), metric=st.sampled_from(['corrected', 'paper', 'exact']))
def test_arithmetic_accepts_or_refuses(name, most, digits, metric): tried(name, 1 <= digits <= most and metric != 'exact', digits=digits, metric=metric)

@given(length=small, n_symbols=small, lengths=sizes)
def test_sorting_accepts_or_refuses(length, n_symbols, lengths):
    tried('sorting', length >= 1 and n_symbols >= 1 and lengths != 'any', length=length, n_symbols=n_symbols, lengths=lengths)

@pytest.mark.parametrize('name', OURS)
def test_nonsense_is_refused(name):
    for k in tasks[name]().settings:
        for bad in ('x', -1, 2.5, [3]) + (() if k == 'max_depth' else (None,)):
            with pytest.raises((ValueError, KeyError)): tasks[name](**{k: bad})
    with pytest.raises(ValueError, match='n must be a whole number'): tasks[name]().sample(0, gen())

def test_an_impossible_split():
    with pytest.raises(ValueError, match='distinct rows'): tasks['dyck'](k=1, seq_len=2).sample(5, gen(), 'test')

# controls
@pytest.mark.parametrize('name', NAMES)
def test_shuffled_keeps_the_tokens_of_each_row(name):
    task = tasks[name]()
    whole, broken = task.batch(50, gen(5)), shuffled(task).batch(50, gen(5))
    assert torch.equal(whole.tokens.sort(1).values, broken.tokens.sort(1).values) and torch.equal(whole.loss_mask, broken.loss_mask)
    assert not torch.equal(whole.tokens, broken.tokens)
    assert torch.equal((RandomTokens(task.name, task.settings).batch(50, gen(5)).tokens == task.pad).sum(1), (whole.tokens == task.pad).sum(1))

def test_what_draws_nothing_loads_no_altair():
    "Altair takes as long to load as torch; commands whose work ends in files and tables start without it"
    code = 'import sys, proc_nb.cli, proc_nb.language.pretrain, proc_nb.influence.cli; proc_nb.tasks.core.tasks["identity"]; print("altair" in sys.modules, "torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split() == ['False', 'True']
