"Samplers against plain Python: the same distribution, and all rows at once."
import random
import pytest, torch
from torch.utils._python_dispatch import TorchDispatchMode
import checkers, plain
from proc_nb.all import *

NAMES = [k for k in [*tasks.rules, *tasks.tests] if hasattr(plain, {'set': 'set_'}.get(k, k))]
def gen(seed=0): return torch.Generator().manual_seed(seed)

@pytest.mark.parametrize('name', NAMES)
def test_plain_rows_keep_the_rule(name):
    task, rng = tasks[name](), random.Random(0)
    for _ in range(100):
        row = plain.row(name, task.settings, rng)
        row += [task.pad] * (task.seq_len - len(row))
        assert checkers.check(name, task.settings, row) and task.check(torch.tensor([row])).all()

def padded(rows, task):
    x = torch.full((len(rows), task.seq_len), task.pad)
    for i, r in enumerate(rows): x[i, :len(r)] = torch.tensor(r)
    return x

@pytest.mark.parametrize('name', NAMES)
def test_same_distribution_as_plain_python(name):
    "Means of five features, within 5 standard errors of their difference"
    task, rng, n = tasks[name](), random.Random(1), 3000
    theirs, mine = padded([plain.row(name, task.settings, rng) for _ in range(n)], task), task.batch(n, gen(1)).tokens
    def features(x):
        "Length, mean token, different tokens, greatest depth (or neighbours that are equal), the sum of the first eight tokens"
        on, k = x != task.pad, getattr(task, 'k', None)
        height = (x < k) * 2 - 1 if k else (x[:, 1:] == x[:, :-1]).long()
        different = (x.sort(1).values.diff(dim=1) > 0).sum(1)
        return torch.stack([on.sum(1), (x * on).sum(1) / on.sum(1), different, height.cumsum(1).amax(1), (x[:, :8] * on[:, :8]).sum(1)]).double()
    a, b = features(mine), features(theirs)
    z = (a.mean(1) - b.mean(1)).abs() / ((a.var(1) + b.var(1)) / n + 1e-12).sqrt()
    assert z.max() < 5, (name, z)

class Operations(TorchDispatchMode):
    "Count PyTorch's operations"
    n = 0
    def __torch_dispatch__(self, op, kinds, args=(), kwargs=None):
        self.n += 1
        return op(*args, **(kwargs or {}))

@pytest.mark.parametrize('name', [*tasks.rules, *tasks.tests])
def test_rows_are_drawn_all_at_once(name):
    "A hundred times as many rows take as many operations"
    task = tasks[name]()
    task.sample(1, gen()) # tables that are made once
    def operations(n):
        with Operations() as done: task.sample(n, gen())
        return done.n
    assert operations(2000) == operations(20)
