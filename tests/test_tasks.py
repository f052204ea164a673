"What holds for every task, whatever it is."
import pytest, torch
from hypothesis import given, strategies as st
from proc_nb.all import *

NAMES = list(tasks)
def gen(seed=0): return torch.Generator().manual_seed(seed)

@pytest.mark.parametrize('name', NAMES)
def test_contract(name):
    task = tasks[name]()
    a, again, other = (task.sample(200, gen(s)) for s in (1, 1, 2))
    assert a.tokens.shape == a.targets.shape == a.loss_mask.shape == a.score_mask.shape == (200, a.tokens.shape[1])
    assert a.tokens.shape[1] <= task.seq_len and a.tokens.dtype == torch.int64 and a.loss_mask.dtype == torch.bool
    assert torch.equal(a.tokens, again.tokens) and not torch.equal(a.tokens, other.tokens)
    assert 0 <= a.tokens.min() and a.tokens.max() < task.vocab_size == len(task.token_names) and 0 <= task.pad < task.vocab_size
    assert len(set(task.token_names)) == task.vocab_size
    assert a.loss_mask.any(1).all() and not a.loss_mask[:, -1].any()
    assert task.check(a.tokens).all()

@pytest.mark.parametrize('name', NAMES)
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

@given(k=st.integers(-1, 40), seq_len=st.integers(-1, 40), p_open=st.floats(-.5, 1.5))
def test_dyck_accepts_or_refuses(k, seq_len, p_open):
    fine = k >= 1 and seq_len >= 2 and seq_len % 2 == 0 and 0 < p_open < 1
    if not fine:
        with pytest.raises(ValueError): tasks['dyck'](k=k, seq_len=seq_len, p_open=p_open)
        return
    task = tasks['dyck'](k=k, seq_len=seq_len, p_open=p_open)
    rows = task.batch(20, gen()).tokens
    assert task.check(rows).all()

@given(length=st.integers(-1, 30), lengths=st.sampled_from(['fixed', 'uniform', 'any']), n=st.integers(-1, 30))
def test_identity_accepts_or_refuses(length, lengths, n):
    if length < 1 or n < 1 or lengths == 'any':
        with pytest.raises((ValueError, KeyError)): tasks['identity'](length=length, lengths=lengths, n_symbols=n)
        return
    task = tasks['identity'](length=length, lengths=lengths, n_symbols=n)
    assert task.check(task.batch(20, gen()).tokens).all()

@given(st.lists(st.integers(-3, 300), min_size=1, max_size=40))
def test_check_takes_any_row(row):
    for name in NAMES:
        task = tasks[name]()
        if all(0 <= t < task.vocab_size for t in row): assert task.check(torch.tensor([row])).shape == (1,)
        else:
            with pytest.raises(ValueError): task.check(torch.tensor([row]))
